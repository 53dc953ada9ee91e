"""Inside a compiled function of JAX the selections, masses and sums give what NumPy's give."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

jax = pytest.importorskip("jax")

from fabula.arrays import jax as functions  # noqa: E402  # needs jax
from fabula.arrays import numpy as host  # noqa: E402
from fabula.arrays.random import gumbel, noise_of_bits, row_key, token_bits  # noqa: E402

INFINITY = float("inf")
MASSES = np.array([[0.1], [0.5], [0.9], [-1.0]], np.float32)
COUNTS = np.array([[1], [3], [2], [1]], np.int32)


def scores_of(kind, vocabulary):
    """Float["4 V"] of each difficulty."""
    x = np.random.default_rng(2).normal(0, 3, (4, vocabulary)).astype(np.float32)
    x = np.round(x) if kind == "with ties" else x  # some of them -0.0
    x = x * np.float32(30) if kind == "steep" else x
    if kind == "with holes":
        x[1, 3::2] = -INFINITY
    return x


@jax.jit
def selected(x, masses, counts):
    chances = functions.softmax(x)
    return (
        (*functions.top_k(x, 5), *functions.top_k(x, min(20, x.shape[-1]))),
        (functions.kth_value(x, 4), functions.kth_value(x, counts)),
        functions.top_mass(x, masses, counts),
        functions.mass_reach(-x, chances, masses),
        functions.argmax(x),
        functions.survivors(x)[0],
    )


@pytest.mark.parametrize("vocabulary", [7, 4000])
@pytest.mark.parametrize("kind", ["ordinary", "with ties", "steep", "with holes"])
def test_selections_are_those_of_numpy(kind, vocabulary):
    x = scores_of(kind, vocabulary)
    top, kth, kept, reach, best, tokens = selected(x, MASSES, COUNTS)
    expected = (*host.top_k(x, 5), *host.top_k(x, min(20, vocabulary)))
    for got, right in zip(top, expected, strict=True):
        np.testing.assert_array_equal(got, right)
    for got, right in zip(kth, (host.kth_value(x, 4), host.kth_value(x, COUNTS)), strict=True):
        np.testing.assert_array_equal(got, right)
    finite = x > -INFINITY
    np.testing.assert_array_equal(np.asarray(kept) & finite, host.top_mass(x, MASSES, COUNTS) & finite)
    np.testing.assert_array_equal(reach, host.mass_reach(-x, np.asarray(jax.nn.softmax(x)), MASSES))
    np.testing.assert_array_equal(best, host.argmax(x))
    assert tokens.shape == x.shape


def test_the_first_of_the_best_or_of_what_is_no_number():
    x = np.array([[1, 5, 5, 2], [1, np.nan, 9, np.nan], [-INFINITY] * 4, [-0.0, 0.0, -1, 0.0]], np.float32)
    scale = np.float32(3.7)
    assert jax.jit(lambda x, scale: functions.argmax(x * scale))(x, scale).tolist() == [1, 1, 0, 0]
    assert jax.jit(partial(functions.argmax, axis=0))(x).tolist() == host.argmax(x, axis=0).tolist()


def test_a_tail_is_added_up_as_in_float64():
    """Where the limit falls between two tokens of a large vocabulary is not left to float32."""
    x = np.random.default_rng(0).normal(0, 1, (2, 60_000)).astype(np.float32)
    tail = np.array([[0.05], [0.37]], np.float32)
    kept = jax.jit(functions.top_mass)(x, tail, 1)
    assert np.count_nonzero(np.asarray(kept) != host.top_mass(x, tail, 1)) <= 2  # chances differ by a rounding


def test_running_sums_lose_nothing_to_rounding():
    x = np.random.default_rng(0).uniform(0, 1, (2, 5000)).astype(np.float32)
    x[:, 0] = 1e6
    np.testing.assert_array_equal(jax.jit(functions.cumulative_sum)(x), host.cumulative_sum(x))


def test_random_bits_are_those_of_numpy():
    seeds = [np.array(words, np.int32) for words in ([7, -5], [0, 2**31 - 1])]
    streams, positions = np.array([0, 3], np.int32), np.array([11, 500], np.int32)
    tokens = np.arange(64, dtype=np.int32)[None]

    @jax.jit
    def traced(low, high, streams, positions, tokens):
        bits = token_bits(functions, row_key(functions, (low, high), streams), positions, tokens)
        return bits, noise_of_bits(functions, bits)

    bits, noise = traced(*seeds, streams, positions, tokens)
    np.testing.assert_array_equal(bits, token_bits(host, row_key(host, seeds, streams), positions, tokens))
    np.testing.assert_allclose(noise, gumbel(host, seeds, streams, positions, tokens), rtol=1e-5, atol=1e-6)


def test_what_is_set_is_what_numpy_sets():
    x, columns = scores_of("ordinary", 9), np.array([[0, 3], [8, 8], [2, 1], [5, 4]], np.int32)
    chosen = np.array([[True, False], [False, True], [False, False], [True, True]])
    set_there = jax.jit(functions.scatter_where)(x, columns, chosen, -1.0)
    np.testing.assert_array_equal(set_there, host.scatter_where(x, columns, chosen, -1.0))
    added = jax.jit(functions.scatter_add)(x, columns, x[:, :2])
    np.testing.assert_allclose(added, host.scatter_add(x, columns, x[:, :2]), rtol=1e-6)
    assert jax.jit(lambda y: y if functions.surely_none(y > 99) else y + 1)(x)[0, 0] == x[0, 0] + 1


def test_a_loop_goes_on_as_long_as_its_condition_holds():
    state = (functions.asarray(1, "int32"), functions.zeros((2,), "float32"))
    got = functions.while_loop(lambda s: s[0] < 100, lambda s: (s[0] * 2, s[1] + 1), state)
    assert (int(got[0]), np.asarray(got[1]).tolist()) == (128, [7, 7])


def test_wide_types_become_what_jax_has():
    assert functions.asarray(np.array([1, 2]), "int64").dtype == np.int32
    assert functions.asarray(np.array([1.5]), "float64").dtype == np.float32
