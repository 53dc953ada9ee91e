"""Which green list a context has: the two seeding schemes, from token ids to seeds and from seeds to green tokens."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from fabula.watermark.twister import in_front, is_in_front, permutation

__all__ = ["SCHEMES", "GreenLists"]

SCHEMES = ("lefthash", "selfhash")
TABLE_SIZE = 1_000_003
USUAL_IDS = 2**18  # token ids below this need only the front of the table


@dataclass(frozen=True, slots=True)
class GreenLists:
    """The green lists of one key: a list for each context, the first `count` tokens of a shuffled vocabulary.

    lefthash (Kirchenbauer et al. 2023, alg. 2): the context's last token seeds the shuffle. selfhash (alg. 3): the
    smallest product of the candidate's hash with that of any of the last `width` tokens, the candidate included.
    """

    vocabulary: int
    count: int  # green tokens of a list
    key: int
    scheme: str  # one of SCHEMES
    width: int  # tokens of context

    def greens_after(self, token: int) -> np.ndarray:
        """Bool["V"]: the green tokens after a token, by lefthash."""
        seed = self.key * token % (2**64 - 1)
        packed = _green_bits(seed & 0xFFFFFFFF, self.vocabulary, self.count)
        return np.unpackbits(packed, count=self.vocabulary).view(bool)

    def in_their_own(self, contexts: np.ndarray, candidates: np.ndarray) -> np.ndarray:
        """Bool["R C"]: candidates Int["R C"] in the list that they seed after contexts Int["R W-1"], by selfhash."""
        seeds = self._seeds(contexts, candidates)
        found = [
            0 <= token < self.vocabulary and _is_green(seed, self.vocabulary, self.count, token)
            for seed, token in zip(seeds.reshape(-1).tolist(), candidates.reshape(-1).tolist(), strict=True)
        ]
        return np.array(found, dtype=bool).reshape(candidates.shape)

    def _seeds(self, contexts: np.ndarray, candidates: np.ndarray) -> np.ndarray:
        """Int64["R C"]: the low 32 bits of the seeds; products wrap at 64 bits, as torch's do."""
        highest = max(int(contexts.max(initial=0)), int(candidates.max(initial=0)))
        table = _hash_table(self.key, USUAL_IDS if highest < USUAL_IDS else TABLE_SIZE)
        own = table[candidates % TABLE_SIZE]
        others = table[contexts % TABLE_SIZE]
        scaled = np.array([self.key % 2**64], dtype=np.uint64).view(np.int64) * own
        products = np.concatenate([(scaled * own)[..., None], scaled[..., None] * others[:, None, :]], axis=-1)
        smallest = products.min(axis=-1)
        return (smallest - (smallest < 0)) & 0xFFFFFFFF  # the seed is taken modulo 2**64 - 1


@lru_cache(maxsize=512)
def _green_bits(seed: int, vocabulary: int, count: int) -> np.ndarray:
    """A green list, eight tokens a byte: 512 lists of 150,000 tokens take 10 MB."""
    return np.packbits(in_front(seed, vocabulary, count))


@lru_cache(maxsize=65536)
def _is_green(seed: int, vocabulary: int, count: int, token: int) -> bool:
    return is_in_front(seed, vocabulary, count, token)


@lru_cache(maxsize=4)
def _hash_table(key: int, count: int) -> np.ndarray:
    """Int64["C"]: the hashes of token ids below `count`."""
    return permutation(key, TABLE_SIZE, count) + 1
