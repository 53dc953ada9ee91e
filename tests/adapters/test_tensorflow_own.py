"""Modules of one's own in TensorFlow and Keras beside what Flax's do too: what each is given, seeds, and weights."""

from __future__ import annotations

from typing import Any

import pytest

tf = pytest.importorskip("tensorflow")

from fabula import set_seed  # noqa: E402
from fabula.errors import ArgumentError  # noqa: E402
from tests.adapters import tensorflow_modules  # noqa: E402  # needs tensorflow
from tests.adapters.tensorflow_modules import Plain, Summing, greedy_by_hand  # noqa: E402  # needs tensorflow

PROMPTS = [[5, 6, 7, 8, 9, 10, 11], [12, 13, 14], [3]]
NEW = 6


@pytest.fixture(scope="module", params=["Plain", "BothWays", "Summing", "Sideways", "keras_model"])
def module(request: pytest.FixtureRequest) -> Any:
    return getattr(tensorflow_modules, request.param)()


def test_sampled_rows_are_the_same_alone_and_together(module: Any):
    settings = {"max_new_tokens": NEW, "do_sample": True, "num_return_sequences": 2}
    together = module.generate(PROMPTS, seed=[4, 5, 6], **settings)
    alone = [module.generate([one], seed=[seed], **settings) for one, seed in zip(PROMPTS, (4, 5, 6), strict=True)]
    assert together == [row for rows in alone for row in rows]
    assert len({tuple(row) for row in together}) > 4


def test_a_module_with_a_cache_is_given_each_column_once():
    module = Summing()
    module.generate([PROMPTS[0]], max_new_tokens=2)  # and the trial
    module.columns.clear()
    module.generate([[20, 21, 22, 23]], max_new_tokens=5)
    assert module.columns == [(1, 4), (1, 1), (1, 1), (1, 1), (1, 1)]


@pytest.mark.parametrize("way", ["assign", "in place"])
def test_one_changed_number_is_seen_by_rows_that_go_on(way: str):
    module, prompt = Summing(), [*range(1, 41)]
    begun = module.generate([prompt], max_new_tokens=NEW)[0]
    number = module.table[40, 3] + 9.0
    if way == "assign":
        module.table.assign(tf.tensor_scatter_nd_update(module.table, [[40, 3]], [number]))
    else:
        module.table.scatter_nd_update([[40, 3]], [number])
    longer = module.generate([begun], max_new_tokens=NEW)[0]
    assert longer == greedy_by_hand(module, begun, NEW)


def test_one_seed_is_a_number_two_numbers_or_one_a_prompt():
    model, sampled = Plain(), {"max_new_tokens": NEW, "do_sample": True}
    whole = model.generate(PROMPTS[:1], seed=(7, 9), **sampled)
    assert whole == model.generate(PROMPTS[:1], seed=9 << 32 | 7, **sampled)
    assert whole == model.generate(PROMPTS[:1], seed=tf.constant([7, 9]), **sampled)
    each = model.generate(PROMPTS[:2], seed=[3, 4], **sampled)
    alone = [model.generate([row], seed=[seed], **sampled) for row, seed in zip(PROMPTS, (3, 4), strict=False)]
    assert each == [row for rows in alone for row in rows]
    with pytest.raises(ArgumentError, match="`seed` must be"):
        model.generate(PROMPTS[:2], seed=[1, 2, 3], **sampled)


def test_without_a_seed_the_generator_of_tensorflow_is_drawn_from():
    model, ids = Plain(), tf.constant(PROMPTS[:1])

    def drawn() -> list[list[int]]:
        return model.generate(ids, max_new_tokens=NEW, do_sample=True).numpy().tolist()

    set_seed(3)
    first, second = drawn(), drawn()
    assert first != second
    tf.random.set_seed(3)
    assert [drawn(), drawn()] == [first, second]


def test_what_generate_keeps_is_no_weight():
    module = Plain()
    module.generate(PROMPTS, max_new_tokens=2)
    assert {id(one) for one in module.trainable_variables} == {id(module.table), id(module.out)}
    assert not module.submodules
