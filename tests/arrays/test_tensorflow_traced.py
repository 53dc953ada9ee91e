"""Inside a compiled function of TensorFlow the selections give what NumPy's give."""

from __future__ import annotations

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow")

from fabula.arrays import numpy as host  # noqa: E402
from fabula.arrays import tensorflow as functions  # noqa: E402  # needs tensorflow
from fabula.arrays.random import gumbel, noise_of_bits, row_key, token_bits  # noqa: E402

INFINITY = float("inf")


def scores_of(kind: str, vocabulary: int) -> np.ndarray:
    """Float["4 V"] with a row of each difficulty."""
    x = np.random.default_rng(2).normal(0, 3, (4, vocabulary)).astype(np.float32)
    x = np.round(x) + np.float32(0) if kind == "with ties" else x
    x = x * np.float32(30) if kind == "steep" else x
    if kind == "with holes":
        x[1, 3::2] = -INFINITY
    return x


@pytest.mark.parametrize("vocabulary", [7, 4000])
def test_selections_are_those_of_numpy(vocabulary):
    masses, counts = np.array([[0.1], [0.5], [0.9], [-1.0]], np.float32), np.array([[1], [3], [2], [1]], np.int32)

    @tf.function(jit_compile=True)
    def traced(x):
        chances = functions.softmax(x)
        return (
            functions.top_k(x, 5),
            functions.kth_value(x, 4),
            functions.kth_value(x, counts),
            functions.top_mass(x, masses, counts),
            functions.mass_reach(-x, chances, masses),
            functions.argmax(x),
            functions.survivors(x)[0],
        )

    for kind in ("ordinary", "with ties", "steep", "with holes"):
        x = scores_of(kind, vocabulary)
        top, kth, each, kept, reach, best, tokens = traced(tf.constant(x))
        for got, expected in zip(top, host.top_k(x, 5), strict=True):
            np.testing.assert_array_equal(got, expected)
        np.testing.assert_array_equal(kth, host.kth_value(x, 4))
        np.testing.assert_array_equal(each, host.kth_value(x, counts))
        finite = x > -INFINITY
        np.testing.assert_array_equal(kept.numpy() & finite, host.top_mass(x, masses, counts) & finite)
        np.testing.assert_array_equal(reach, host.mass_reach(-x, host.softmax(x), masses))
        np.testing.assert_array_equal(best, host.argmax(x))
        assert tokens.shape == x.shape


def test_random_bits_are_those_of_numpy():
    seeds = [np.array(words, np.int32) for words in ([7, -5], [0, 2**31 - 1])]
    streams, positions = np.array([0, 3], np.int32), np.array([11, 500], np.int32)
    tokens = np.arange(64, dtype=np.int32)[None]

    @tf.function(jit_compile=True)
    def traced(low, high, streams, positions, tokens):
        key = row_key(functions, (low, high), streams)
        bits = token_bits(functions, key, positions, tokens)
        return bits, noise_of_bits(functions, bits)

    bits, noise = traced(*map(tf.constant, (*seeds, streams, positions, tokens)))
    np.testing.assert_array_equal(bits, token_bits(host, row_key(host, seeds, streams), positions, tokens))
    np.testing.assert_allclose(noise, gumbel(host, seeds, streams, positions, tokens), rtol=1e-5, atol=1e-6)


def test_what_is_set_is_what_numpy_sets():
    x, columns = scores_of("ordinary", 9), np.array([[0, 3], [8, 8], [2, 1], [5, 4]], np.int32)
    chosen = np.array([[True, False], [False, True], [False, False], [True, True]])

    @tf.function(jit_compile=True)
    def traced(x, columns, chosen):
        return functions.scatter_where(x, columns, chosen, -1.0), functions.scatter_add(x, columns, x[:, :2])

    set_there, added = traced(*map(tf.constant, (x, columns, chosen)))
    np.testing.assert_array_equal(set_there, host.scatter_where(x, columns, chosen, -1.0))
    np.testing.assert_allclose(added, host.scatter_add(x, columns, x[:, :2]), rtol=1e-6)


def test_a_score_that_is_no_number_is_the_greatest():
    x = np.array([[1.0, np.nan, 3.0]], np.float32)
    assert functions.argmax(tf.constant(x)).numpy().tolist() == [1]
    assert tf.function(functions.argmax, jit_compile=True)(tf.constant(x)).numpy().tolist() == [1]


def test_whole_numbers_are_int32_but_for_those_that_need_more():
    like = tf.zeros(1)
    assert functions.asarray(np.array([1, 2]), "int64", like=like).dtype == tf.int32
    assert functions.asarray(np.array([1 << 40]), "int64", like=like).dtype == tf.int64
