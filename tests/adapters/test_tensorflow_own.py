"""Modules of one's own in TensorFlow and Keras: every row is what it is alone, whatever the module takes and keeps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow")

from fabula import set_seed  # noqa: E402
from fabula.errors import ArgumentError, NotSupportedError  # noqa: E402
from tests.adapters.tensorflow_modules import MODULES, VOCABULARY, Plain, Summing  # noqa: E402  # needs tensorflow

PROMPTS = [[5, 6, 7, 8, 9, 10, 11], [12, 13, 14], [3]]
NEW = 6


@pytest.fixture(scope="module", params=MODULES)
def module(request: pytest.FixtureRequest) -> Any:
    return MODULES[request.param]()


def greedy_by_hand(module: Any, prompt: list[int], steps: int) -> list[int]:
    """The best token after a whole pass, step by step, of one row."""
    tokens = list(prompt)
    for _ in range(steps):
        output = module(tf.constant([tokens]))
        logits = output[0] if isinstance(output, tuple) else getattr(output, "logits", output)
        tokens.append(int(tf.argmax(logits[0, -1])))
    return tokens


def test_ragged_rows_are_those_of_a_loop_by_hand(module: Any):
    found = module.generate(PROMPTS, max_new_tokens=NEW)
    assert found == [greedy_by_hand(module, prompt, NEW) for prompt in PROMPTS]


def test_tensors_give_tensors_whatever_side_their_padding_is_on(module: Any):
    rows = module.generate(PROMPTS, max_new_tokens=NEW)
    for side in ("left", "right"):
        ids, mask = padded(side)
        found = module.generate(tf.constant(ids), attention_mask=tf.constant(mask), max_new_tokens=NEW)
        assert isinstance(found, tf.Tensor)
        assert found.dtype == tf.int32
        new = [row[len(prompt) :] for row, prompt in zip(rows, PROMPTS, strict=True)]
        assert found.numpy()[:, 7:].tolist() == new


def test_sampled_rows_are_the_same_alone_and_together(module: Any):
    settings = {"max_new_tokens": NEW, "do_sample": True, "num_return_sequences": 2}
    together = module.generate(PROMPTS, seed=[4, 5, 6], **settings)
    alone = [module.generate([one], seed=[seed], **settings) for one, seed in zip(PROMPTS, (4, 5, 6), strict=True)]
    assert together == [row for rows in alone for row in rows]
    assert len({tuple(row) for row in together}) > 4


def test_beams_reorder_what_a_module_keeps():
    kept, whole = Summing(), Plain()
    whole.table, whole.out = kept.table, kept.out
    settings = {"num_beams": 4, "num_return_sequences": 3, "max_new_tokens": 8}
    assert kept.generate(PROMPTS, **settings) == whole.generate(PROMPTS, **settings)


def test_a_module_with_a_cache_is_given_each_column_once():
    module = Summing()
    module.generate([PROMPTS[0]], max_new_tokens=2)  # and the trial
    module.columns.clear()
    module.generate([[20, 21, 22, 23]], max_new_tokens=5)
    assert module.columns == [(1, 4), (1, 1), (1, 1), (1, 1), (1, 1)]


def test_changed_weights_are_seen():
    module = Summing()
    before = module.generate([PROMPTS[0]], max_new_tokens=NEW)
    module.out.assign(-module.out)
    after = module.generate([PROMPTS[0]], max_new_tokens=NEW)
    assert after == [greedy_by_hand(module, PROMPTS[0], NEW)]
    assert after != before


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


def test_hidden_states_serve_contrasts():
    settings = {"max_new_tokens": NEW, "penalty_alpha": 0.5, "top_k": 3}
    assert len(Summing().generate([PROMPTS[0]], **settings)[0]) == len(PROMPTS[0]) + NEW
    with pytest.raises(NotSupportedError, match="output_hidden_states"):
        Plain().generate([PROMPTS[0]], **settings)


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


def test_logits_of_another_shape_are_refused():
    class Last(Plain):
        def __call__(self, input_ids: Any) -> Any:
            return super().__call__(input_ids)[:, -1]

    with pytest.raises(ArgumentError, match=r"shape \[rows, columns, vocabulary\]"):
        Last().generate([[1, 2]], max_new_tokens=2)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (tf.constant([1, 2]), "2 dimensions"),
        (tf.constant([[0.5]]), "integers"),
        (tf.constant([[VOCABULARY]]), "lie in"),
    ],
)
def test_ids_that_make_no_sense_are_refused(given: Any, reason: str):
    with pytest.raises(ArgumentError, match=reason):
        Plain().generate(tf.constant(given), max_new_tokens=1)


def padded(side: str) -> tuple[np.ndarray, np.ndarray]:
    ids, mask = np.zeros((3, 7), np.int32), np.zeros((3, 7), np.int32)
    for row, prompt in enumerate(PROMPTS):
        span = slice(7 - len(prompt), 7) if side == "left" else slice(0, len(prompt))
        ids[row, span], mask[row, span] = prompt, 1
    return ids, mask
