"""The generator and its shuffles are torch's, for every seed and size, in whole, in part, and for one value."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from fabula.watermark.twister import draws, in_front, is_in_front, permutation

torch = pytest.importorskip("torch")

SIZES = [1, 2, 3, 4, 5, 7, 16, 100, 623, 624, 625, 1000, 4099, 49152]
SEEDS = [0, 1, 15485863, 2**31 - 1, 2**32 - 1, 2**32, 2**63 - 1, 2**64 - 1, 15485863 * 49151]


def theirs(seed, size):
    return torch.randperm(size, generator=torch.Generator().manual_seed(seed)).numpy()


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("size", SIZES)
def test_a_permutation_is_that_of_torch(seed, size):
    expected = theirs(seed, size)
    assert np.array_equal(permutation(seed, size), expected)
    for count in {0, 1, size // 4, size - 1, size}:
        assert np.array_equal(permutation(seed, size, count), expected[:count])


def test_permutations_of_many_seeds_and_sizes_are_those_of_torch():
    numbers = np.random.default_rng(0)
    for _ in range(300):
        size, seed = int(numbers.integers(1, 700)), int(numbers.integers(0, 2**63))
        expected = theirs(seed, size)
        count = int(size * numbers.random())
        front = np.isin(np.arange(size), expected[:count])
        assert np.array_equal(permutation(seed, size), expected)
        assert np.array_equal(in_front(seed, size, count), front)
        for value in numbers.integers(0, size, 10).tolist():
            assert is_in_front(seed, size, count, value) == front[value]


@pytest.mark.parametrize("size", [49152, 151936, 262144])
@pytest.mark.parametrize("ratio", [0.1, 0.25, 0.5, 0.9])
def test_the_front_of_a_large_vocabulary_is_that_of_torch(size, ratio):
    expected = np.zeros(size, dtype=bool)
    expected[theirs(15485863 * 31, size)[: int(size * ratio)]] = True
    assert np.array_equal(in_front(15485863 * 31, size, int(size * ratio)), expected)


def test_the_table_of_selfhash_is_that_of_torch():
    expected = theirs(15485863, 1_000_003)
    assert np.array_equal(permutation(15485863, 1_000_003), expected)
    assert np.array_equal(permutation(15485863, 1_000_003, 2**18), expected[: 2**18])


@pytest.mark.parametrize("seed", [0, 7, 2**40 + 1])
def test_coin_flips_are_those_of_torch(seed):
    flips = torch.randint(0, 2, (70_000,), generator=torch.Generator().manual_seed(seed)).numpy()
    assert np.array_equal(draws(seed, 70_000) & 1, flips)


def test_threads_do_not_disturb_each_other():
    expected = [draws(seed, 5000) for seed in range(8)]
    wrong = []

    def work(seed):
        for _ in range(50):
            if not np.array_equal(draws(seed, 5000), expected[seed]):
                wrong.append(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
