"""Modules of one's own in Flax beside what TensorFlow's do too: caches of fixed length, parameters, and the tree."""

from __future__ import annotations

import pytest

jax = pytest.importorskip("jax")
nnx = pytest.importorskip("flax.nnx")

from tests.adapters.jax_modules import VOCABULARY, Attending, Beside, Plain, greedy_by_hand  # noqa: E402

PROMPT = [5, 6, 7, 8, 9, 10, 11]


def test_a_cache_of_fixed_length_is_made_anew_where_a_row_outgrows_it():
    module, prompt = Attending(), list(range(1, 60))
    assert module.generate([prompt], max_new_tokens=8)[0] == greedy_by_hand(module, prompt, 8)


def test_parameters_beside_the_code_may_be_those_of_the_call():
    module = Beside()
    own = module.generate([PROMPT], max_new_tokens=3)
    other = module.generate([PROMPT], max_new_tokens=3, params={**module.params, "out": -module.params["out"]})
    assert other != own
    assert module.generate([PROMPT], max_new_tokens=3) == own


def test_what_generate_keeps_is_no_part_of_the_tree():
    module = Plain()
    before = nnx.split(module)
    module.generate([PROMPT], max_new_tokens=2)
    graph, state = nnx.split(module)
    assert jax.tree.structure(state) == jax.tree.structure(before[1])
    assert nnx.merge(graph, state).generate([PROMPT], max_new_tokens=2)
    assert nnx.jit(lambda m, ids: m(ids))(module, jax.numpy.asarray([PROMPT])).shape == (1, 7, VOCABULARY)
