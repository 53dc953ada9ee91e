"""The kernels encode, remember and decode as their NumPy twin does, whatever else is computed beside a row."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from fabula.errors import ArgumentError
from fabula.models.families.config import ModelConfig
from fabula.models.families.table import family_for
from fabula.models.weights.native import placed_tensors
from fabula.models.weights.table import all_entries
from fabula.ops.native_seq2seq import POSITIONS, NativeSeq2Seq
from fabula.quant.formats import stored
from tests.ops.native_cases import ISAS, as_format, library_with, make_batch, relative_error, run_one

pytestmark = pytest.mark.skipif(not ISAS, reason="the kernels are not built")
SIZES = {
    "model_type": "t5", "vocab_size": 70, "d_model": 64, "d_kv": 16, "d_ff": 96, "num_layers": 2, "num_heads": 4,
}  # fmt: skip
CONFIGS = {
    "t5": {},
    "gated": {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False, "num_decoder_layers": 3},
    "odd": {
        "d_model": 36, "d_kv": 5, "d_ff": 50, "num_heads": 3, "relative_attention_num_buckets": 7,
        "relative_attention_max_distance": 11,
    },
    "wide": {"d_kv": 80, "num_heads": 2, "relative_attention_max_distance": 700},
}  # fmt: skip
TOKENS = np.random.default_rng(5).integers(0, 70, 1400)
TEXTS = (TOKENS[:40], TOKENS[40:41], TOKENS[41:58], TOKENS[58:140])


@cache
def family_and_tensors(name, format):
    family, random = family_for(ModelConfig.from_dict({**SIZES, **CONFIGS[name]})), np.random.default_rng(3)
    tensors = {}
    for _, entry in all_entries(family):
        if entry.tied is None or entry.name == "lm_head.weight":
            weight = (0.3 * random.standard_normal(entry.shape)).astype(np.float32)
            plain = weight.ndim < 2 or entry.table
            tensors[entry.name] = stored(entry.name, weight) if plain else as_format(entry.name, format, weight)
    return family, tensors


def small_model(name, isa=None, format="F32", threads=2):
    """isa None: the NumPy twin."""
    family, tensors = family_and_tensors(name, format)
    placed = [placed_tensors(stack, tensors) for stack in (family, family.encoder)]
    return NativeSeq2Seq(family, *placed, library=None if isa is None else library_with(isa), threads=threads)


def encoded_rows(model, texts=TEXTS):
    (hidden,) = model.encode(texts)
    return np.split(hidden, np.cumsum([len(text) for text in texts])[:-1])


def remembered(model, texts=TEXTS):
    return model.remember(encoded_rows(model, texts))


def decoded(model, rows, memories, cuts=(), bits=0):
    """The logits of every position of rows that are computed side by side, in chunks that end at `cuts`."""
    cache, start, logits = model.new_cache(40 * len(rows), bits, 16 if bits else 0), 0, []
    tables = [np.arange(40) * len(rows) + place for place in range(len(rows))]
    for end in [*cuts, max(map(len, rows))]:
        chosen = [place for place, row in enumerate(rows) if len(row) > start]
        pieces = [rows[place][start:end] for place in chosen]
        batch = make_batch(pieces, [start] * len(chosen), [tables[i] for i in chosen], range(sum(map(len, pieces))))
        found = model.step(replace(batch, memories=[memories[i] for i in chosen]), cache).logits
        logits.append(dict(zip(chosen, np.split(np.array(found), batch.starts[1:-1]), strict=True)))
        start = end
    return [np.concatenate([part[i] for part in logits if i in part]) for i in range(len(rows))]


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("name", CONFIGS)
def test_every_pass_equals_its_twin_in_float32(name, isa):
    native, twin = small_model(name, isa), small_model(name)
    for ours, expected in zip(encoded_rows(native), encoded_rows(twin), strict=True):
        assert relative_error(ours, expected) < 5e-6
    hidden = encoded_rows(twin)
    memories = native.remember(hidden), twin.remember(hidden)
    for ours, expected in zip(*memories, strict=True):
        assert (ours.length, ours.data.shape) == (expected.length, expected.data.shape)
        assert relative_error(ours.data.view(np.float32), expected.data.view(np.float32)) < 5e-6
    rows = [TOKENS[:45], TOKENS[45:46], TOKENS[50:120]]
    found = (decoded(model, rows, each[1:]) for model, each in zip((native, twin), memories, strict=True))
    for ours, expected in zip(*found, strict=True):
        assert relative_error(ours, expected) < 5e-6


@pytest.mark.parametrize("isa", ISAS)
def test_rows_have_the_same_bits_alone_and_in_any_company(isa):
    model = small_model("gated", isa, "Q8_0")
    together = encoded_rows(model)
    for text, row in zip(TEXTS, together, strict=True):
        assert np.array_equal(encoded_rows(model, [text])[0], row)
    memories = model.remember(together)
    for memory, row in zip(memories, together, strict=True):
        assert np.array_equal(model.remember([row])[0].data, memory.data)
    rows = [TOKENS[:45], TOKENS[:45], TOKENS[60:61], TOKENS[50:120]]
    company = decoded(model, rows, [memories[0], *memories[:3]])
    assert np.array_equal(company[0], company[1][:45]), "two rows of one memory"
    for row, memory, found in zip(rows[1:], memories, company[1:], strict=False):
        assert np.array_equal(decoded(model, [row], [memory])[0], found)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("format", ["F32", "F16", "Q4_1"])
def test_chunks_and_single_positions_give_the_bits_of_one_step(isa, format):
    model, row = small_model("t5", isa, format), [TOKENS[:75]]
    memories = remembered(model)[:1]
    whole = decoded(model, row, memories)[0]
    for cuts in ([1, 2, 5, 6, 37], [40], list(range(1, 75))):
        assert np.array_equal(decoded(model, row, memories, cuts)[0], whole)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("name", ["t5", "wide"])
def test_long_rows_are_cut_at_the_same_positions_however_they_are_computed(isa, name):
    results = []
    for threads, cuts in ((1, [512]), (3, [1100, 1199]), (2, [])):
        model = small_model(name, isa, threads=threads)
        hidden = encoded_rows(model, [TOKENS[:1300]])
        results.append((hidden[0], decoded(model, [TOKENS[:1200]], model.remember(hidden), cuts)[0]))
    for hidden, logits in results[1:]:
        assert np.array_equal(hidden, results[0][0])
        assert np.array_equal(logits, results[0][1])


@pytest.mark.parametrize("isa", ISAS)
def test_texts_longer_than_a_softmax_is_summed_at_once_equal_their_twin(isa):
    native, twin = small_model("odd", isa), small_model("odd")
    hidden = encoded_rows(twin, [TOKENS[:600]])
    assert relative_error(encoded_rows(native, [TOKENS[:600]])[0], hidden[0]) < 5e-6
    row = [TOKENS[600:603]]
    assert relative_error(*(decoded(each, row, each.remember(hidden))[0] for each in (native, twin))) < 5e-6


@pytest.mark.parametrize("isa", ISAS)
def test_distances_are_counted_in_columns_where_tokens_are_not_one_behind_the_other(isa):
    native, twin = small_model("odd", isa), small_model("odd")
    texts, random = [TOKENS[:600], TOKENS[600:633], TOKENS[5:6]], np.random.default_rng(1)
    columns = [np.cumsum(random.integers(1, 4, len(text))) for text in texts]
    (ours,), (expected,), (plain,) = (
        native.encode(texts, columns=columns), twin.encode(texts, columns=columns), native.encode(texts)
    )  # fmt: skip
    assert relative_error(ours, expected) < 5e-6
    assert relative_error(plain, expected) > 1e-3
    (again,) = native.encode(texts, columns=[np.arange(len(text)) + 7 for text in texts])
    assert np.array_equal(again, plain)


def test_many_texts_are_encoded_in_several_steps_and_a_long_one_in_its_own():
    model = small_model("odd", ISAS[-1])
    texts = [TOKENS[:1300], TOKENS[:900], TOKENS[5:6], np.tile(TOKENS, 2), TOKENS[:7]]
    assert len(texts[3]) > POSITIONS
    found = encoded_rows(model, texts)
    assert np.array_equal(found[4], encoded_rows(model, [TOKENS[:7]])[0])
    assert np.array_equal(found[1], encoded_rows(model, [TOKENS[:900]])[0])
    memories = model.remember(found)
    assert [memory.length for memory in memories] == [1300, 900, 1, 2800, 7]
    assert np.array_equal(memories[4].data, model.remember(found[4:])[0].data)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("format", ["F16", "BF16", "Q4_1", "Q8_0"])
def test_packed_models_are_near_their_twin(format, isa):
    native, twin = (small_model("gated", each, format) for each in (isa, None))
    hidden, row = encoded_rows(twin), [TOKENS[:60]]
    actual, expected = (decoded(each, row, each.remember(hidden))[0].astype(np.float64) for each in (native, twin))
    cosine = (actual * expected).sum() / np.sqrt((actual**2).sum() * (expected**2).sum())
    assert cosine > 0.9998


@pytest.mark.parametrize("isa", ISAS)
def test_coded_keys_of_the_decoder_are_those_of_the_twin(isa):
    native, twin = small_model("t5", isa), small_model("t5")
    hidden, row = encoded_rows(twin), [TOKENS[:50]]
    found = [decoded(each, row, each.remember(hidden), bits=8)[0] for each in (native, twin)]
    assert relative_error(*found) < 0.02
    assert not np.array_equal(found[0], decoded(native, row, native.remember(hidden))[0])


@pytest.mark.parametrize("isa", ISAS)
def test_shown_layers_are_the_twins(isa):
    native, twin = small_model("t5", isa), small_model("t5")
    found, expected = (model.encode(TEXTS, shown=(0, 1)) for model in (native, twin))
    assert len(found) == 3
    for ours, right in zip(found, expected, strict=True):
        assert relative_error(ours, right) < 5e-6
    vectors = np.split(expected[0], np.cumsum([len(text) for text in TEXTS])[:-1])
    (again,) = native.encode([np.zeros(len(text), np.int32) for text in TEXTS], vectors)
    assert not np.array_equal(again, found[0])
    rows = [np.array(each) for each in np.split(found[1], np.cumsum([len(text) for text in TEXTS])[:-1])]
    (again,) = native.encode([np.zeros(len(text), np.int32) for text in TEXTS], rows)
    assert np.array_equal(again, found[0]), "the embeddings in place of ids"


@pytest.mark.parametrize("isa", [None, *ISAS])
def test_activations_are_scaled(isa):
    x = np.linspace(-5, 5, 37).astype(np.float32)[None]
    assert np.array_equal(run_one(lambda ops, x, w: ops.scale(x, 0.125), x, {}, isa), x / 8)


def test_rows_without_a_memory_of_this_model_are_refused():
    model, other = small_model("t5", ISAS[-1]), small_model("t5", ISAS[-1])
    batch, cache = make_batch([TOKENS[:3]], [0], [[0]], [2]), model.new_cache(1)
    with pytest.raises(ArgumentError, match="must have a memory, got none"):
        model.step(batch, cache)
    with pytest.raises(ArgumentError, match="what `encode` of its model returned, got another model's"):
        model.step(replace(batch, memories=remembered(other)[:1]), cache)
    with pytest.raises(ArgumentError, match="what `encode` of its model returned, got str"):
        model.step_apart(replace(batch, memories=["x"]), cache)
