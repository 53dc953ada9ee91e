"""Stored formats decode and encode bit for bit as the gguf package does."""

import numpy as np
import pytest

from fabula.errors import ArgumentError, NotSupportedError
from fabula.quant.formats import FORMATS, StoredTensor, dequantize, quantize, stored

gguf = pytest.importorskip("gguf")
QUANTIZED = tuple(name for name in FORMATS if name.startswith("Q"))
ENCODED = tuple(name for name, entry in FORMATS.items() if entry.encode)


def reference(name: str, data: np.ndarray) -> np.ndarray:
    with np.errstate(all="ignore"):
        return gguf.quants.dequantize(data.reshape(1, -1), gguf.GGMLQuantizationType[name]).reshape(-1)


def same_bits(actual: np.ndarray, expected: np.ndarray) -> bool:
    """Equal bits; any NaN equals any other, as the sign of an invalid product is the processor's choice."""
    actual, expected = actual.reshape(-1), expected.reshape(-1).astype(np.float32, copy=False)
    nan = np.isnan(expected)
    return bool((np.isnan(actual) == nan).all() and (actual.view("<u4") == expected.view("<u4"))[~nan].all())


@pytest.mark.parametrize("name", FORMATS)
def test_block_sizes_are_those_of_the_format(name):
    entry = FORMATS[name]
    assert (entry.block_size, entry.block_bytes) == gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[name]]


@pytest.mark.parametrize("name", FORMATS)
def test_random_blocks_decode_as_the_reference_does(name):
    entry = FORMATS[name]
    data = np.random.default_rng(1).integers(0, 256, 3000 * entry.block_bytes, dtype=np.uint8)
    assert same_bits(dequantize(name, data, (3000 * entry.block_size,)), reference(name, data))


@pytest.mark.parametrize("name", QUANTIZED)
@pytest.mark.parametrize("scale", [0, 0x8000, 1, 0x03FF, 0x0400, 0x3C00, 0x7BFF, 0xFBFF, 0x7C00, 0xFC00, 0x7E00])
def test_extreme_scales_decode_as_the_reference_does(name, scale):
    entry = FORMATS[name]
    data = np.random.default_rng(2).integers(0, 256, 64 * entry.block_bytes, dtype=np.uint8)
    blocks = data.view(entry.layout)
    blocks["scale"] = np.uint16(scale).view(np.float16)
    assert same_bits(dequantize(name, data, (64 * entry.block_size,)), reference(name, data))


@pytest.mark.parametrize("name", QUANTIZED)
def test_every_value_of_every_byte_decodes_as_the_reference_does(name):
    entry = FORMATS[name]
    block = np.random.default_rng(3).integers(0, 256, entry.block_bytes, dtype=np.uint8)
    data = np.tile(block, (entry.block_bytes, 256, 1))
    for place in range(entry.block_bytes):
        data[place, :, place] = np.arange(256)
    weights = data.size // entry.block_bytes * entry.block_size
    assert same_bits(dequantize(name, data.reshape(-1), (weights,)), reference(name, data))


@pytest.mark.parametrize("name", ["F16", "BF16"])
def test_every_16_bit_pattern_decodes_as_the_reference_does(name):
    data = np.arange(1 << 16, dtype=np.uint16).view(np.uint8)
    assert same_bits(dequantize(name, data, (1 << 16,)), reference(name, data))


@pytest.mark.parametrize("name", ENCODED)
def test_encoding_equals_the_reference(name):
    generator = np.random.default_rng(4)
    weights = generator.standard_normal((400, 64)) * 10.0 ** generator.integers(-6, 4, (400, 1))
    weights[0], weights[1, :32], weights[2], weights[3] = 0, -0.0, 7.5, np.arange(64)
    weights = weights.astype(np.float32)
    expected = gguf.quants.quantize(weights, gguf.GGMLQuantizationType[name])
    assert quantize(name, weights).tobytes() == expected.tobytes()


def test_bfloat16_rounds_ties_infinities_and_nans_as_the_reference_does():
    ties = np.arange(0x8000, 1 << 32, 1 << 16, dtype=np.uint32)
    bits = np.append(ties, np.arange(0, 1 << 32, 65537, dtype=np.uint32))
    bits = np.append(bits, np.uint32([0x7F800000, 0xFF800000, 0x7F800001, 0x7FFFFFFF, 0xFFFFFFFF, 0x7F7FFFFF]))
    expected = gguf.quants.quantize(bits.view(np.float32).reshape(1, -1), gguf.GGMLQuantizationType.BF16)
    assert quantize("BF16", bits.view(np.float32)).tobytes() == expected.tobytes()


@pytest.mark.parametrize("name", FORMATS)
def test_decoding_in_pieces_equals_decoding_whole(name, monkeypatch):
    entry = FORMATS[name]
    data = np.random.default_rng(5).integers(0, 256, 21 * entry.block_bytes, dtype=np.uint8)
    whole = dequantize(name, data, (21 * entry.block_size,))
    monkeypatch.setattr("fabula.quant.formats.CHUNK_WEIGHTS", 4 * entry.block_size)
    assert same_bits(dequantize(name, data, (21 * entry.block_size,)), whole)


def test_data_of_the_wrong_size_are_refused():
    with pytest.raises(ArgumentError, match="data must have 36 bytes for Q4_0"):
        dequantize("Q4_0", np.zeros(35, np.uint8), (2, 32))


def test_a_row_that_is_no_whole_number_of_blocks_is_refused():
    with pytest.raises(ArgumentError, match="multiple of 32"):
        quantize("Q4_0", np.zeros((2, 33), np.float32))


def test_weights_whose_scale_does_not_fit_are_refused():
    with pytest.raises(ArgumentError, match="finite"):
        quantize("Q8_0", np.full((1, 32), np.nan, np.float32))
    with pytest.raises(ArgumentError, match="float16"):
        quantize("Q4_1", np.full((1, 32), 1e9, np.float32))


def test_a_format_that_is_only_read_refuses_to_write():
    with pytest.raises(NotSupportedError, match="Q4_0"):
        quantize("Q6_K", np.zeros((1, 256), np.float32))


def test_an_unknown_format_is_refused():
    with pytest.raises(ArgumentError, match="IQ4_XS"):
        dequantize("IQ4_XS", np.zeros(4, np.uint8), (4,))


@pytest.mark.parametrize("name", ["F32", "Q4_0", "Q6_K"])
def test_rows_reorders_rows_without_decoding(name):
    entry = FORMATS[name]
    width = 2 * entry.block_size
    data = np.random.default_rng(6).integers(0, 64, 4 * entry.row_bytes(width), dtype=np.uint8)
    weight = StoredTensor("w", name, (4, width), data)
    taken = weight.rows(np.array([2, 0, 3]))
    assert taken.shape == (3, width)
    assert same_bits(taken.dequantize(), weight.dequantize()[[2, 0, 3]])


def test_rows_of_a_vector_are_its_numbers():
    assert stored("b", np.arange(4, dtype=np.float32)).rows(np.array([3, 1])).dequantize().tolist() == [3, 1]


def test_row_bytes_count_one_row():
    weight = StoredTensor("w", "Q4_1", (3, 64), np.zeros(3 * 40, np.uint8))
    assert weight.row_bytes == 40
    assert stored("v", np.zeros(5, np.float32)).row_bytes == 20
