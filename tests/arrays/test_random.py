"""The generator gives the published words, the same on every framework, and its noise is Gumbel's."""

from __future__ import annotations

import numpy as np
import pytest

from fabula.arrays import numpy as reference
from fabula.arrays import random
from fabula.errors import ArgumentError

# The published known answers of threefry2x32 with 20 rounds (Random123, kat_vectors): counter, key, words.
KNOWN_ANSWERS = [
    ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
    ((0xFFFFFFFF, 0xFFFFFFFF), (0xFFFFFFFF, 0xFFFFFFFF), (0x1CB996FC, 0xBB002BE7)),
    ((0x243F6A88, 0x85A308D3), (0x13198A2E, 0x03707344), (0xC4923A9C, 0x483DF7A0)),
]


def words(xp, values):
    """A pair of one-element arrays of words."""
    return tuple(xp.asarray(np.array([value], dtype=np.uint32).view(np.int32), "int32") for value in values)


def rows(xp, count, seed=7):
    """Seeds, streams and positions of some rows."""
    low, high = random.split_seed(seed)
    numbers = np.arange(count, dtype=np.int32)
    pair = tuple(xp.asarray(np.full(count, word, dtype=np.int32), "int32") for word in (low, high))
    return pair, xp.asarray(numbers, "int32"), xp.asarray(numbers * 5 + 3, "int32")


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN_ANSWERS)
def test_threefry_gives_the_published_words(xp, counter, key, expected):
    first, second = random.threefry(xp, words(xp, key), words(xp, counter))
    got = [int(xp.to_host(word).view(np.uint32)[0]) for word in (first, second)]
    assert got == list(expected)


def test_bits_are_the_same_on_every_framework(xp):
    seed, stream, position = rows(xp, 5, seed=0xFEDCBA9876543210)
    bits = random.token_bits(xp, random.row_key(xp, seed, stream), position, xp.arange(300)[None, :])
    twin_seed, twin_stream, twin_position = rows(reference, 5, seed=0xFEDCBA9876543210)
    twin_key = random.row_key(reference, twin_seed, twin_stream)
    twin = random.token_bits(reference, twin_key, twin_position, reference.arange(300)[None, :])
    assert np.array_equal(xp.to_host(bits), twin)


def test_the_keying_is_the_documented_one(xp):
    seed = 0x0123456789ABCDEF
    low, high = random.split_seed(seed)
    key = random.threefry(xp, words(xp, (low & 0xFFFFFFFF, high)), words(xp, (11, random.PURPOSE_TOKEN)))
    expected = random.threefry(xp, key, words(xp, (42, 1234)))[0]
    pair = words(xp, (low & 0xFFFFFFFF, high))
    row = random.row_key(xp, pair, xp.asarray([11], "int32"))
    bits = random.token_bits(xp, row, xp.asarray([42], "int32"), xp.asarray([[1234]], "int32"))
    assert int(bits[0, 0]) == int(expected[0])


def test_noise_of_chosen_tokens_is_a_part_of_the_noise_of_all(xp):
    seed, stream, position = rows(xp, 4)
    everything = xp.to_host(random.gumbel(xp, seed, stream, position, xp.arange(1000)[None, :]))
    chosen = np.array([[3, 999, 3, 17]] * 4, dtype=np.int32)
    some = xp.to_host(random.gumbel(xp, seed, stream, position, xp.asarray(chosen, "int32")))
    assert np.array_equal(some, np.take_along_axis(everything, chosen, axis=-1))


def test_noise_is_finite_at_the_extreme_words(xp):
    bits = xp.asarray(np.array([[0, -1, 0x7FFFFFFF, -0x80000000]], dtype=np.int32), "int32")
    noise = xp.to_host(random.noise_of_bits(xp, bits))
    assert noise.dtype == np.float32
    assert np.isfinite(noise).all()
    assert noise[0, 1] == noise.max()


def test_noise_has_the_mean_variance_and_quantiles_of_a_gumbel_variable():
    seed, stream, position = rows(reference, 4)
    noise = random.gumbel(reference, seed, stream, position, reference.arange(50_000)[None, :]).astype(np.float64)
    assert abs(noise.mean() - np.euler_gamma) < 0.02
    assert abs(noise.var() - np.pi**2 / 6) < 0.03
    fractions = np.array([0.01, 0.1, 0.5, 0.9, 0.99])
    below = [(noise < -np.log(-np.log(fraction))).mean() for fraction in fractions]
    assert np.abs(below - fractions).max() < 0.005


@pytest.mark.parametrize("change", ["seed", "stream", "position", "purpose", "token"])
def test_every_part_of_the_key_changes_the_bits(change):
    arguments = {"seed": 7, "stream": 1, "position": 2, "purpose": 0, "token": 3}

    def bits(seed, stream, position, purpose, token):
        pair = tuple(np.array([word], dtype=np.int32) for word in random.split_seed(seed))
        key = random.row_key(reference, pair, np.array([stream], dtype=np.int32), purpose)
        where = np.array([position], dtype=np.int32), np.array([[token]], dtype=np.int32)
        return int(random.token_bits(reference, key, *where)[0, 0])

    assert bits(**arguments) != bits(**{**arguments, change: arguments[change] + 1})


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_a_seed_outside_64_bits_is_refused(seed):
    with pytest.raises(ArgumentError, match="seed"):
        random.split_seed(seed)


def test_bits_that_are_made_in_place_are_the_same():
    draws = np.random.default_rng(9)
    low, high, position = (draws.integers(-(2**31), 2**31, 3).astype(np.int32) for _ in range(3))
    for tokens in (np.arange(10_000, dtype=np.int32)[None], draws.integers(0, 2**31, (3, 70)).astype(np.int32)):
        expected = random.token_bits(reference, (low, high), position, tokens)
        assert (random.token_bits_in_place((low, high), position, tokens) == expected).all()
