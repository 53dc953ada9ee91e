"""Modules of one's own in Flax, TensorFlow and Keras: a row is what it is alone, whatever a module takes or keeps."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
import pytest

from fabula.errors import ArgumentError, NotSupportedError
from tests.equal.frameworks.doors import DOORS, Door
from tests.padding import padded

PROMPTS = [[5, 6, 7, 8, 9, 10, 11], [12, 13, 14], [3]]
NEW = {"jax": 3, "tensorflow": 6}  # tokens; each length of a row is compiled in JAX
MODULES = {
    "jax": ("Plain", "BothWays", "OnTheHost", "Summing", "Sideways", "Attending", "Beside"),
    "tensorflow": ("Plain", "BothWays", "Summing", "Sideways", "keras_model"),
}


@pytest.fixture(scope="module", params=MODULES)
def door(request: pytest.FixtureRequest) -> Door:
    DOORS[request.param].require()
    return DOORS[request.param]


@pytest.fixture(scope="module")
def kinds(door: Door) -> Any:
    """The framework's modules."""
    return import_module(f"tests.adapters.{door.backend}_modules")


@pytest.fixture(scope="module")
def new(door: Door) -> int:
    return NEW[door.backend]


@pytest.fixture(scope="module")
def module(request: pytest.FixtureRequest, kinds: Any) -> Any:
    return getattr(kinds, request.param)()


every_module = pytest.mark.parametrize(
    ("door", "module"), [(backend, name) for backend, names in MODULES.items() for name in names], indirect=True
)


@every_module
def test_ragged_rows_are_those_of_a_loop_by_hand(module: Any, kinds: Any, new: int):
    found = module.generate(PROMPTS, max_new_tokens=new)
    assert found == [kinds.greedy_by_hand(module, prompt, new) for prompt in PROMPTS]


@every_module
def test_arrays_give_arrays_whatever_side_their_padding_is_on(module: Any, door: Door, new: int):
    rows = module.generate(PROMPTS, max_new_tokens=new)
    for side in ("left", "right"):
        found = door.on_host(door.generate(module, padded(PROMPTS, side), max_new_tokens=new))
        assert found.dtype == np.int32
        assert found[:, 7:].tolist() == [row[len(prompt) :] for row, prompt in zip(rows, PROMPTS, strict=True)]


@pytest.mark.parametrize(
    "settings", [{"num_beams": 4, "num_return_sequences": 3}, {"do_sample": True, "seed": [4, 5, 6]}], ids=str
)
def test_beams_and_draws_reorder_what_a_module_keeps(kinds: Any, new: int, settings: dict[str, Any]):
    kept, whole = kinds.Summing(), kinds.Plain()
    whole.table, whole.out = kept.table, kept.out
    call = {"max_new_tokens": new + 1, **settings}
    assert kept.generate(PROMPTS, **call) == whole.generate(PROMPTS, **call)


def test_changed_weights_are_seen(kinds: Any, new: int):
    module = kinds.Summing()
    before = module.generate(PROMPTS[:1], max_new_tokens=new)
    kinds.turn(module.out)
    after = module.generate(PROMPTS[:1], max_new_tokens=new)
    assert after == [kinds.greedy_by_hand(module, PROMPTS[0], new)]
    assert after != before


def test_hidden_states_serve_contrasts(kinds: Any, new: int):
    settings = {"max_new_tokens": new, "penalty_alpha": 0.5, "top_k": 3}
    assert len(kinds.Summing().generate(PROMPTS[:1], **settings)[0]) == len(PROMPTS[0]) + new
    with pytest.raises(NotSupportedError, match="output_hidden_states"):
        kinds.Plain().generate(PROMPTS[:1], **settings)


def test_logits_of_another_shape_are_refused(kinds: Any):
    class Last(kinds.Plain):  # type: ignore[misc]
        def __call__(self, input_ids: Any) -> Any:
            return super().__call__(input_ids)[:, -1]

    with pytest.raises(ArgumentError, match=r"shape \[rows, columns, vocabulary\]"):
        Last().generate([[1, 2]], max_new_tokens=2)


@pytest.mark.parametrize(("given", "reason"), [([1, 2], "2 dimensions"), ([[0.5]], "integers"), ([[61]], "lie in")])
def test_ids_that_make_no_sense_are_refused(kinds: Any, given: Any, reason: str):
    with pytest.raises(ArgumentError, match=reason):
        kinds.Plain().generate(kinds.constant(given), max_new_tokens=1)
