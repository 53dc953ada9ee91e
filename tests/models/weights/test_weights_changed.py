"""A model whose weights have changed generates as one that was made with them, whatever it computed before."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.equal.frameworks.doors import DOORS, REFERENCE
from tests.models.conftest import Written

PROMPT = [[5 + place % 40 for place in range(40)]]  # more than a block, which can be found again
SETTINGS: dict[str, Any] = {"max_new_tokens": 8, "do_sample": False, "eos_token_id": None}


def _torch_step(model: Any) -> None:
    import torch

    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.linspace(-0.5, 0.5, weight.numel()).view(weight.shape))


def _jax_step(model: Any) -> None:
    import jax.numpy as jnp
    from flax import nnx

    state = nnx.state(model, nnx.Param)
    changed = {
        path: variable.replace(variable[...] + jnp.linspace(-0.5, 0.5, variable[...].size).reshape(variable[...].shape))
        for path, variable in nnx.to_flat_state(state)
    }
    nnx.update(model, nnx.from_flat_state(changed))


def _tensorflow_step(model: Any) -> None:
    for variable in model.variables:
        variable.assign_add(np.linspace(-0.5, 0.5, int(np.prod(variable.shape))).reshape(variable.shape))


STEPS: dict[str, Callable[[Any], None]] = {"torch": _torch_step, "jax": _jax_step, "tensorflow": _tensorflow_step}


@pytest.fixture(scope="module")
def folder(writing: Callable[[str], Written]) -> Path:
    return writing("llama").directory


@pytest.fixture(params=STEPS)
def door(request: pytest.FixtureRequest) -> tuple[Callable[[Path], Any], Callable[[Any], None]]:
    return {"torch": REFERENCE, **DOORS}[request.param].load, STEPS[request.param]


def test_nothing_is_found_that_other_weights_computed(door: Any, folder: Path, tmp_path: Path):
    load, step = door
    model = load(folder)
    before = model.generate(PROMPT, **SETTINGS)
    step(model)
    after = model.generate(PROMPT, **SETTINGS)
    model.save_pretrained(tmp_path)
    assert after == load(tmp_path).generate(PROMPT, **SETTINGS)
    assert after != before


def test_what_the_same_weights_computed_is_found_again(door: Any, folder: Path, monkeypatch: pytest.MonkeyPatch):
    load, _ = door
    model = load(folder)
    first = model.generate(PROMPT, **SETTINGS)
    prefixes, found = model.engine.pool.prefixes, []
    find = prefixes.find
    monkeypatch.setattr(prefixes, "find", lambda *given: found.append(find(*given)) or found[-1])
    assert model.generate(PROMPT, **SETTINGS) == first
    assert len(found) == 1
    assert len(found[0]) == 1
