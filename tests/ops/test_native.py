"""The native backend gives what its NumPy twin gives, and a row's numbers depend on nothing but the row."""

from __future__ import annotations

import numpy as np
import pytest

from fabula.errors import ArgumentError
from fabula.ops.protocol import Batch, Taps
from tests.ops.native_cases import CONFIGS, ISAS, make_batch, one_row, relative_error, small_model

pytestmark = pytest.mark.skipif(not ISAS, reason="the kernels are not built")
TOKENS = np.random.default_rng(5).integers(0, 70, 150)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("name", CONFIGS)
def test_every_family_equals_its_twin_in_float32(name, isa):
    native, twin = small_model(name, isa=isa), small_model(name)
    batch = one_row(TOKENS[:70])
    expected = twin.step(batch, twin.new_cache(5)).logits
    assert relative_error(native.step(batch, native.new_cache(5)).logits, expected) < 2e-6


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("format", ["F16", "BF16", "Q4_0", "Q4_1", "Q8_0"])
def test_packed_models_are_near_their_twin(format, isa):
    native, twin = small_model("llama", format, isa), small_model("llama", format)
    batch = one_row(TOKENS[:70])
    actual, expected = (np.array(m.step(batch, m.new_cache(5)).logits, np.float64) for m in (native, twin))
    cosine = (actual * expected).sum() / np.sqrt((actual**2).sum() * (expected**2).sum())
    assert cosine > 0.9998  # a rounding that falls the other way moves an activation by a whole step of 8 bits


def split_steps(model, tokens, cuts):
    """The logits of every position, computed in chunks that end at `cuts`; and the cache."""
    cache, logits, start = model.new_cache(8), [], 0
    for end in [*cuts, len(tokens)]:
        batch = make_batch([tokens[start:end]], [start], [range(8)], range(end - start))
        logits.append(np.array(model.step(batch, cache).logits))
        start = end
    return np.concatenate(logits), cache.data


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(
    ("name", "format"), [("llama", "Q4_1"), ("mistral_window", "F16"), ("gemma3", "F32"), ("qwen3", "F16")]
)
def test_chunks_and_single_positions_give_the_bits_of_one_step(name, format, isa):
    model, tokens = small_model(name, format, isa), TOKENS[:75]
    whole, cache = split_steps(model, tokens, [])
    for cuts in ([1, 2, 5, 6, 37], [40], list(range(1, 75))):
        parts, parts_cache = split_steps(model, tokens, cuts)
        assert np.array_equal(parts, whole)
        assert np.array_equal(parts_cache, cache)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("format", ["F32", "Q4_1"])
def test_rows_have_the_same_bits_alone_and_in_any_company(format, isa):
    model = small_model("llama", format, isa)
    alone, _ = split_steps(model, TOKENS[:41], [])
    shared = model.new_cache(20)
    first = [np.array(TOKENS[:9]), np.array(TOKENS[50:67]), np.array(TOKENS[:40])]
    tables = [[7, 3], [1, 19], [4, 9]]
    model.step(make_batch(first, [0, 0, 0], tables, [65]), shared)
    mixed = [TOKENS[9:41], TOKENS[67:68], TOKENS[40:41]]
    logits = model.step(make_batch(mixed, [9, 17, 40], tables, [0, 31, 33]), shared).logits
    assert np.array_equal(logits, alone[[9, 40, 40]])


@pytest.mark.parametrize("isa", ISAS)
def test_the_number_of_threads_changes_no_bit(isa):
    results = [split_steps(small_model("gemma3", "F16", isa, threads=n), TOKENS, [64, 65, 66])[0] for n in (1, 2, 3, 5)]
    for other in results[1:]:
        assert np.array_equal(other, results[0])


@pytest.mark.parametrize("name", ["llama", "mistral_window"])
@pytest.mark.parametrize("isa", ISAS)
def test_long_rows_are_cut_at_the_same_positions_however_they_are_computed(isa, name):
    tokens, table = np.random.default_rng(6).integers(0, 90, 1200), [np.arange(40)]
    results = []
    for threads, cuts in ((1, [512]), (3, [1100, 1199]), (2, [])):
        model = small_model(name, isa=isa, threads=threads)
        cache, start = model.new_cache(40), 0
        for end in [*cuts, len(tokens)]:
            last = [end - start - 1]
            logits = np.array(model.step(make_batch([tokens[start:end]], [start], table, last), cache).logits)
            start = end
        results.append(logits)
    assert np.array_equal(results[0], results[1])
    assert np.array_equal(results[0], results[2])
    twin = small_model(name)
    expected = twin.step(make_batch([tokens], [0], table, [len(tokens) - 1]), twin.new_cache(40)).logits
    assert relative_error(results[0], expected) < 5e-6


@pytest.mark.parametrize("isa", ISAS)
def test_a_forked_row_goes_on_from_a_copy_of_its_tail(isa):
    model = small_model("llama", "Q8_0", isa)
    alone, _ = split_steps(model, TOKENS[:45], [])
    cache = model.new_cache(2)
    model.step(make_batch([TOKENS[:40]], [0], [[0, 1]], [39]), cache)
    cache.grow(4)
    cache.copy([1], [3])
    rows = [TOKENS[40:45], TOKENS[90:95]]
    logits = model.step(make_batch(rows, [40, 40], [[0, 1], [0, 3]], [4, 9]), cache).logits
    assert np.array_equal(logits[0], alone[44])
    assert not np.array_equal(logits[0], logits[1])


def test_only_scored_positions_are_handed_out_and_none_is_allowed():
    model = small_model("llama", isa=ISAS[-1])
    whole, cache_bytes = split_steps(model, TOKENS[:20], [])
    cache = model.new_cache(8)
    none = model.step(make_batch([TOKENS[:10]], [0], [range(8)], []), cache).logits
    assert none.shape == (0, 96)
    some = model.step(make_batch([TOKENS[10:20]], [10], [range(8)], [3, 9]), cache).logits
    assert np.array_equal(some, whole[[13, 19]])
    assert np.array_equal(cache.data, cache_bytes)


@pytest.mark.parametrize("isa", [None, *ISAS])
def test_taps_hand_out_hidden_states_of_the_scored_positions(isa):
    model = small_model("llama", isa=isa)
    batch = make_batch([TOKENS[:10]], [0], [[0]], [2, 9])
    plain = np.array(model.step(batch, model.new_cache(1)).logits)
    forward = model.step(batch, model.new_cache(1), Taps(hidden_states=(0, 1, 2), final_hidden=True))
    assert np.array_equal(forward.logits, plain)
    assert forward.hidden.shape == (2, 64)
    assert set(forward.hidden_states) == {0, 1, 2}
    twin = small_model("llama").step(batch, model.new_cache(1), Taps(hidden_states=(0, 1, 2), final_hidden=True))
    for layer in (0, 1, 2):
        assert relative_error(forward.hidden_states[layer], twin.hidden_states[layer]) < 1e-5


@pytest.mark.parametrize("isa", [None, *ISAS])
def test_vectors_stand_in_for_token_ids(isa):
    model = small_model("llama", isa=isa)
    batch = one_row(TOKENS[:12])
    vectors = model.weights.table(model._weights[0].embed).dequantize(TOKENS[:12])
    replaced = type(batch)(batch.tokens * 0, batch.starts, batch.first, batch.tables, batch.scored, vectors)
    expected = np.array(model.step(batch, model.new_cache(1)).logits)
    assert np.array_equal(model.step(replaced, model.new_cache(1)).logits, expected)


@pytest.mark.parametrize("precision", ["float32", "float16", "bfloat16", "8bit", "4bit"])
@pytest.mark.parametrize("isa", ISAS)
def test_weights_change_their_format_on_load_as_the_twin_does(precision, isa):
    source = "Q4_1" if precision.startswith(("float", "bfloat")) else "F32"
    native, twin = (small_model("llama", source, each, precision=precision) for each in (isa, None))
    batch = one_row(TOKENS[:30])
    actual, expected = (np.array(m.step(batch, m.new_cache(5)).logits, np.float64) for m in (native, twin))
    cosine = (actual * expected).sum() / np.sqrt((actual**2).sum() * (expected**2).sum())
    assert cosine > 0.9998
    if precision == "float32":
        assert relative_error(actual, expected) < 2e-6


@pytest.mark.parametrize("change", [{"tokens": 96}, {"tokens": -1}, {"tables": 5}, {"tables": -1}, {"first": 32}])
def test_tokens_and_blocks_that_do_not_exist_are_refused(change):
    model = small_model("llama", isa=ISAS[-1])
    batch = make_batch([TOKENS[:10]], [0], [[4]], [9])
    parts = {field: getattr(batch, field).copy() for field in ("tokens", "starts", "first", "tables", "scored")}
    for field, value in change.items():
        parts[field].flat[-1] = value
    with pytest.raises(ArgumentError, match="must"):
        model.step(Batch(**parts), model.new_cache(5))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(("bits", "group"), [(8, 64), (8, 16), (4, 16), (4, 512)])
@pytest.mark.parametrize("name", CONFIGS)
def test_codes_of_keys_and_values_are_those_of_the_twin(name, bits, group, isa):
    native, twin = small_model(name, isa=isa), small_model(name)
    (rows, table), logits, stored = ([TOKENS[:70]], [[4, 2, 0]]), [], []
    for model in (native, twin):
        cache = model.new_cache(5, bits, group)
        begun = model.step(make_batch(rows, [0], table, [69]), cache).logits.copy()
        logits.append(
            np.concatenate([begun, model.step(make_batch([TOKENS[70:72]], [70], table, [0, 1]), cache).logits])
        )
        stored.append([cache.read_row(layer, table[0], 72) for layer in range(len(cache.heads))])
        assert cache.nbytes < model.new_cache(5).nbytes * (bits + 8) / 32
    assert relative_error(*logits) < 0.02  # a code that falls the other way moves a feature by a step
    for ours, right in zip(stored[0][0], stored[1][0], strict=True):
        step = (right.max() - right.min()) / 2**bits
        assert np.abs(ours - right).max() <= step
        assert np.mean(np.abs(ours - right) > step / 100) < 0.02
