"""Modules of one's own in Flax: every row is what it is alone, whatever the module takes and keeps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

jax = pytest.importorskip("jax")
nnx = pytest.importorskip("flax.nnx")

from fabula.errors import ArgumentError, NotSupportedError  # noqa: E402
from tests.adapters.jax_modules import (  # noqa: E402
    MODULES,
    VOCABULARY,
    Attending,
    Beside,
    BothWays,
    OnTheHost,
    Plain,
    Summing,
)

PROMPTS = [[5, 6, 7, 8, 9, 10, 11], [12, 13, 14], [3]]
NEW = 3
WIDEST = 72  # of the rows that are computed by hand
jnp = jax.numpy


@pytest.fixture(scope="module", params=MODULES)
def module(request: pytest.FixtureRequest) -> Any:
    return MODULES[request.param]()


def greedy_by_hand(module: Any, prompt: list[int], steps: int) -> list[int]:
    """The best token after a whole pass of one row, step by step; padded behind where a module looks only backwards."""
    if isinstance(module, nnx.Module):
        module = nnx.merge(*nnx.split(module))
        module.eval()
    tokens, compiled = list(prompt), module if isinstance(module, OnTheHost) else jax.jit(module)
    for _ in range(steps):
        width = len(tokens) if isinstance(module, BothWays) else WIDEST
        ids = jnp.asarray([tokens + [0] * (width - len(tokens))])
        more = (jnp.ones_like(ids), jnp.arange(width)[None]) if isinstance(module, Attending) else ()
        output = compiled(ids, *more) if not isinstance(module, Summing) else module(ids)
        output = output if isinstance(output, (tuple, dict)) else (getattr(output, "logits", output),)
        logits = output["logits"] if isinstance(output, dict) else output[0]
        tokens.append(int(np.argmax(np.asarray(logits)[0, len(tokens) - 1])))
    return tokens


def test_ragged_rows_are_those_of_a_loop_by_hand(module: Any):
    found = module.generate(PROMPTS, max_new_tokens=NEW)
    assert found == [greedy_by_hand(module, prompt, NEW) for prompt in PROMPTS]


def test_beams_and_draws_reorder_what_a_module_keeps():
    kept, whole = Summing(), Plain()
    whole.table[...], whole.out[...] = kept.table[...], kept.out[...]
    for settings in ({"num_beams": 2}, {"do_sample": True, "seed": [4, 5, 6]}):
        call = {"max_new_tokens": 4, **settings}
        assert kept.generate(PROMPTS, **call) == whole.generate(PROMPTS, **call)


def test_arrays_give_arrays_whatever_side_their_padding_is_on():
    module = Plain()
    rows = module.generate(PROMPTS, max_new_tokens=NEW)
    for side in ("left", "right"):
        ids, mask = padded(side)
        found = module.generate(jnp.asarray(ids), attention_mask=jnp.asarray(mask), max_new_tokens=NEW)
        assert isinstance(found, jax.Array)
        assert found.dtype == np.int32
        new = [row[len(prompt) :] for row, prompt in zip(rows, PROMPTS, strict=True)]
        assert np.asarray(found)[:, 7:].tolist() == new


def test_a_cache_of_fixed_length_is_made_anew_where_a_row_outgrows_it():
    module, prompt = Attending(), list(range(1, 60))
    assert module.generate([prompt], max_new_tokens=8)[0] == greedy_by_hand(module, prompt, 8)


def test_changed_weights_are_seen():
    module = Summing()
    before = module.generate([PROMPTS[0]], max_new_tokens=NEW)
    module.out[...] = -module.out[...]
    after = module.generate([PROMPTS[0]], max_new_tokens=NEW)
    assert after == [greedy_by_hand(module, PROMPTS[0], NEW)]
    assert after != before


def test_parameters_beside_the_code_may_be_those_of_the_call():
    module = Beside()
    own = module.generate(PROMPTS[:1], max_new_tokens=NEW)
    other = module.generate(PROMPTS[:1], max_new_tokens=NEW, params={**module.params, "out": -module.params["out"]})
    assert other != own
    assert module.generate(PROMPTS[:1], max_new_tokens=NEW) == own


def test_hidden_states_serve_contrasts():
    settings = {"max_new_tokens": 3, "penalty_alpha": 0.5, "top_k": 3}
    assert len(Summing().generate([PROMPTS[0]], **settings)[0]) == len(PROMPTS[0]) + 3
    with pytest.raises(NotSupportedError, match="output_hidden_states"):
        Plain().generate([PROMPTS[0]], **settings)


def test_what_generate_keeps_is_no_part_of_the_tree():
    module = Plain()
    before = nnx.split(module)
    module.generate(PROMPTS[:1], max_new_tokens=2)
    graph, state = nnx.split(module)
    assert jax.tree.structure(state) == jax.tree.structure(before[1])
    assert nnx.merge(graph, state).generate(PROMPTS[:1], max_new_tokens=2)
    assert nnx.jit(lambda m, ids: m(ids))(module, jnp.asarray([PROMPTS[0]])).shape == (1, 7, VOCABULARY)


def test_logits_of_another_shape_are_refused():
    class Last(Plain):
        def __call__(self, input_ids: Any) -> Any:
            return super().__call__(input_ids)[:, -1]

    with pytest.raises(ArgumentError, match=r"shape \[rows, columns, vocabulary\]"):
        Last().generate([[1, 2]], max_new_tokens=2)


@pytest.mark.parametrize(("given", "reason"), [([1, 2], "2 dimensions"), ([[0.5]], "integers"), ([[61]], "lie in")])
def test_ids_that_make_no_sense_are_refused(given: Any, reason: str):
    with pytest.raises(ArgumentError, match=reason):
        Plain().generate(jnp.asarray(given), max_new_tokens=1)


def padded(side: str) -> tuple[np.ndarray, np.ndarray]:
    ids, mask = np.zeros((3, 7), np.int32), np.zeros((3, 7), np.int32)
    for row, prompt in enumerate(PROMPTS):
        span = slice(7 - len(prompt), 7) if side == "left" else slice(0, len(prompt))
        ids[row, span], mask[row, span] = prompt, 1
    return ids, mask
