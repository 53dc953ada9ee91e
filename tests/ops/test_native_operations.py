"""Each kernel against float64, on every instruction set and in its twin; every format of packed weights."""

from __future__ import annotations

from math import erf

import numpy as np
import pytest

from fabula.quant.formats import FORMATS, StoredTensor
from tests.ops.native_cases import ISAS, relative_error, run_one

RUNS = (None, *ISAS)


def rows(count: int, width: int) -> np.ndarray:
    return np.random.default_rng(count * 1000 + width).standard_normal((count, width)).astype(np.float32)


@pytest.mark.parametrize("isa", RUNS)
@pytest.mark.parametrize(("width", "group"), [(64, 64), (48, 16), (37, 37), (9, 3), (576, 576)])
def test_rms_norm(isa, width, group):
    x, weight = rows(7, width), rows(1, group)[0]
    runs = x.astype(np.float64).reshape(7, -1, group)
    expected = runs / np.sqrt((runs**2).mean(-1, keepdims=True) + 1e-5) * (weight + 1.0)
    actual = run_one(lambda ops, x, w: ops.rms_norm(x, w.norm, 1e-5, 1.0), x, {"norm": weight}, isa)
    assert relative_error(actual, expected.reshape(7, width)) < 1e-6


@pytest.mark.parametrize("isa", RUNS)
@pytest.mark.parametrize("width", [16, 50, 133])
def test_layer_norm(isa, width):
    x, weight, bias = rows(5, width) + 3, rows(1, width)[0], rows(2, width)[1]
    wide = x.astype(np.float64)
    centred = wide - wide.mean(-1, keepdims=True)
    expected = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * weight + bias
    weights = {"norm": weight, "bias": bias}
    actual = run_one(lambda ops, x, w: ops.layer_norm(x, w.norm, w.bias, 1e-5), x, weights, isa)
    assert relative_error(actual, expected) < 2e-6


def exact(x: np.ndarray, kind: str) -> np.ndarray:
    x = x.astype(np.float64)
    if kind == "silu":
        return x / (1 + np.exp(-x))
    if kind == "gelu":
        return x * 0.5 * (1 + np.vectorize(erf)(x / np.sqrt(2)))
    if kind == "gelu_tanh":
        return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
    return np.maximum(x, 0)


@pytest.mark.parametrize("isa", RUNS)
@pytest.mark.parametrize("kind", ["silu", "gelu", "gelu_tanh", "relu"])
def test_activations(isa, kind):
    x = np.concatenate([np.linspace(-12, 12, 400), [-200, -88.5, -1e-8, 0, 1e-8, 90, 300]]).astype(np.float32)[None]
    actual = run_one(lambda ops, x, w: ops.activate(x, kind), x, {}, isa)
    assert np.allclose(actual, exact(x, kind), rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize("isa", RUNS)
def test_softcap_and_sum(isa):
    x = np.linspace(-300, 300, 301).astype(np.float32)[None]
    actual = run_one(lambda ops, x, w: ops.softcap(ops.add(x, x), 30.0), x, {}, isa)
    assert np.allclose(actual, 30 * np.tanh(x.astype(np.float64) / 15), rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize("isa", RUNS)
@pytest.mark.parametrize(
    ("tokens", "columns", "outputs"), [(1, 64, 64), (1, 37, 70), (5, 33, 17), (13, 160, 129), (70, 8, 3)]
)
def test_float_matmul_with_bias_and_residual(isa, tokens, columns, outputs):
    x, weight, bias = rows(tokens, columns), rows(outputs, columns), rows(1, outputs)[0]
    project = rows(outputs + 1, columns)[1:]

    def forward(ops, x, w):
        return ops.add(ops.linear(x, w.first, w.bias), ops.linear(x, w.second))

    expected = x.astype(np.float64) @ weight.T.astype(np.float64) + bias + x.astype(np.float64) @ project.T
    actual = run_one(forward, x, {"first": weight, "second": project, "bias": bias}, isa)
    assert relative_error(actual, expected) < 1e-6


def packed(format: str, outputs: int, columns: int) -> StoredTensor:
    """Random blocks of a format whose scales are small numbers."""
    entry, generator = FORMATS[format], np.random.default_rng(outputs)
    blocks = generator.integers(0, 256, outputs * entry.row_bytes(columns), np.uint8).view(entry.layout).copy()
    for field in entry.layout.names:
        halves = entry.layout[field].base == np.dtype("<f2")
        if halves or (field in ("scale", "min") and entry.layout[field].itemsize == 2):
            small = generator.uniform(0.001, 0.01, blocks[field].shape).astype(np.float16)
            blocks[field] = small.view(blocks[field].dtype)
    return StoredTensor("w", format, (outputs, columns), blocks.view(np.uint8))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("format", [name for name in FORMATS if name.startswith("Q")])
@pytest.mark.parametrize(("tokens", "columns", "outputs"), [(1, 256, 48), (3, 768, 16), (21, 512, 35)])
def test_every_packed_format_gives_the_products_of_its_decoded_weights(isa, format, tokens, columns, outputs):
    x, weight = rows(tokens, columns), packed(format, outputs, columns)
    twin = run_one(lambda ops, x, w: ops.linear(x, w.w), x, {"w": weight}, None)
    actual = run_one(lambda ops, x, w: ops.linear(x, w.w), x, {"w": weight}, isa, threads=3)
    # scales of K formats are products, kept to 11 bits
    assert relative_error(actual, twin) < (1e-3 if format.endswith("K") else 2e-6)
    exact_products = x.astype(np.float64) @ weight.dequantize().astype(np.float64).T
    assert relative_error(actual, exact_products) < 0.02


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("format", [name for name in FORMATS if FORMATS[name].block_size == 32])
def test_packed_weights_need_only_whole_groups(isa, format):
    x, weight = rows(9, 96), packed(format, 33, 96)
    twin, actual = (run_one(lambda ops, x, w: ops.linear(x, w.w), x, {"w": weight}, each) for each in (None, isa))
    assert relative_error(actual, twin) < 2e-6


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("inner", [64, 96, 40])
def test_gated_pairs_of_packed_weights(isa, inner):
    columns = inner // 32 * 32 if inner % 32 == 0 else 40
    weights = {"gate": packed("Q4_0", inner, 64), "up": packed("Q8_0", inner, 64)}
    weights["down"] = packed("Q4_1", 50, columns) if inner % 32 == 0 else rows(50, inner)

    def forward(ops, x, w):
        return ops.linear(ops.gated_mlp(x, w.gate, w.up, "gelu_tanh"), w.down)

    twin, actual = (run_one(forward, rows(11, 64), weights, each) for each in (None, isa))
    assert relative_error(actual, twin) < 5e-3


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("format", list(FORMATS))
def test_embeddings_are_decoded_exactly(isa, format):
    if format.startswith("Q"):
        table = packed(format, 40, 256)
    else:
        data = np.random.default_rng(1).integers(0, 120, 40 * 256 * FORMATS[format].block_bytes, np.uint8)
        table = StoredTensor("w", format, (40, 256), data)
    actual = run_one(lambda ops, x, w: ops.add(ops.embed(w.w), x), np.zeros((40, 256), np.float32), {"w": table}, isa)
    assert np.array_equal(actual, table.dequantize())


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("format", ["Q4_0", "Q4_1", "Q5_0", "Q6_K", "Q8_0"])
@pytest.mark.parametrize("tokens", [1, 11])
def test_rows_with_outliers_keep_what_is_beside_them(isa, format, tokens):
    x, weight = rows(tokens, 512), packed(format, 40, 512)
    x[::2, 37] = 90.0
    x[:, 500] = -70.0
    twin, actual = (run_one(lambda ops, x, w: ops.linear(x, w.w), x, {"w": weight}, each) for each in (None, isa))
    exact_products = x.astype(np.float64) @ weight.dequantize().astype(np.float64).T
    assert relative_error(actual, twin) < (1e-3 if format.endswith("K") else 2e-6)
    scale = np.abs(weight.dequantize()).max() * np.sqrt(512)
    assert np.abs(actual - exact_products).max() < 0.01 * scale  # one code for all would be off by up to 0.1


def extreme(format: str, outputs: int) -> StoredTensor:
    """Matrices of 256 columns whose codes are the least and the largest, with scales of 1: all of a row, and mixed."""
    entry, random = FORMATS[format], np.random.default_rng(outputs)
    blocks = np.ones((outputs, 256 // entry.block_size), entry.layout)
    least, largest = (-128, 127) if format == "Q8_0" else (0, 255)
    for field in (name for name in entry.layout.names if not name.startswith("scale")):
        blocks[field] = random.choice([least, largest], blocks[field].shape)
        blocks[field][0], blocks[field][1] = least, largest
    return StoredTensor("w", format, (outputs, 256), blocks.reshape(-1).view(np.uint8))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("format", ["Q4_0", "Q5_0", "Q6_K", "Q8_0"])
@pytest.mark.parametrize(("tokens", "outputs"), [(4, 64), (21, 35)])
def test_the_largest_codes_are_multiplied_exactly(isa, format, tokens, outputs):
    """Sums of products come near the most that 16 bits hold; they are whole, so that those in float32 are exact."""
    weight, x = extreme(format, outputs), np.random.default_rng(tokens).choice([-127, 127], (tokens, 256))
    x[0], x[1] = -127, 127
    twin, actual = (
        run_one(lambda ops, x, w: ops.linear(x, w.w), x.astype(np.float32), {"w": weight}, each) for each in (None, isa)
    )
    assert np.array_equal(actual, x @ weight.dequantize().astype(int).T)
    assert np.array_equal(actual, twin)
