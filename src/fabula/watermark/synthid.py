"""The SynthID-Text watermark: a tournament between likely tokens, whose winners a keyed hash decides."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np

from fabula import arrays
from fabula.context import Context
from fabula.errors import ArgumentError
from fabula.processors.arguments import token_ids, whole
from fabula.processors.processor import LogitsProcessor
from fabula.processors.temperature import LARGEST, type_of
from fabula.watermark.ngram_hashes import (
    MULTIPLIER,
    accumulate,
    places,
    repeated,
    sampling_table,
    window_hashes,
)

__all__ = ["SynthIDTextWatermarkLogitsProcessor"]

LOWEST = float(np.finfo(np.float32).min)
LARGEST_TABLE = 2**24


class SynthIDTextWatermarkLogitsProcessor(LogitsProcessor):
    """Favours tokens with g-values of 1 at each depth, so that they show no more than chance to whoever lacks the keys.

    Dathathri et al. 2024, "Scalable watermarking for identifying large language model outputs". The context of a token
    is the `ngram_len - 1` new tokens before it (zeros stand before the first); a context that occurred among the last
    `context_history_size` ones is not marked again. All of this is read from the row itself: `process` has no state, so
    that forks, drafts and pauses change nothing. keys: one for each depth. device: taken for the sake of code written
    for transformers; nothing depends on it. Raises ArgumentError for values out of range.
    """

    def __init__(
        self,
        ngram_len: int,
        keys: Sequence[int],
        sampling_table_size: int,
        sampling_table_seed: int,
        context_history_size: int,
        device: Any = None,
        skip_first_ngram_calls: bool = False,
        debug_mode: bool = False,
    ) -> None:
        self.ngram_len = whole("ngram_len", ngram_len, 1)
        self.keys = np.array(token_ids("keys", list(keys)), dtype=np.int64)
        if not len(self.keys):
            raise ArgumentError("`keys` must hold an int for each depth, got none. Give about 30 secret ones.")
        if not whole("sampling_table_size", sampling_table_size, 1) <= LARGEST_TABLE:
            raise ArgumentError(
                f"`sampling_table_size` must be at most 2**24, got {sampling_table_size}. 2**16 is usual."
            )
        self.sampling_table = sampling_table(whole("sampling_table_seed", sampling_table_seed, 0), sampling_table_size)
        self.sampling_table_seed = sampling_table_seed
        self.context_history_size = whole("context_history_size", context_history_size, 1)
        self.skip_first_ngram_calls = bool(skip_first_ngram_calls)
        self.debug_mode = bool(debug_mode)
        self.device = device
        self.reads_host = bool(sampling_table_size & (sampling_table_size - 1))  # else 32 bits of each hash do
        self._shown: Any = None  # Int["R N"]: the new tokens that __call__ was shown; `process` does not look at it

    def process(self, scores: Any, context: Context) -> Any:
        """Float["R V"]: marked scores, the logarithms of probabilities; a token that cannot come has -inf."""
        return self._process(scores, context, lowest=-float("inf"))

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        """As `process`, on the calls of one generation: the prompts are what the first call shows.

        A call with another number of rows begins another generation. A token that cannot come has, as in transformers,
        the lowest number of the scores' type in a row that is marked.
        """
        if input_ids.ndim != 2:
            raise ArgumentError(f"`input_ids` must be of shape (batch_size, input_len), got {tuple(input_ids.shape)}.")
        xp = arrays.of(input_ids)
        tokens = xp.astype(input_ids, "int32")
        fresh = self._shown is None or self._shown.shape[0] != tokens.shape[0]
        self._shown = tokens[:, :0] if fresh else xp.concat([self._shown, tokens[:, -1:]], axis=1)
        rows, length = self._shown.shape
        lengths, nothing = (xp.full((rows,), count, "int32", like=tokens) for count in (length, 0))
        lowest = -LARGEST[type_of(scores)]
        return self._process(scores, Context(self._shown, lengths, nothing), lowest)

    def stack_key(self) -> Hashable:
        return (
            self.ngram_len,
            tuple(self.keys.tolist()),
            len(self.sampling_table),
            self.sampling_table_seed,
            self.context_history_size,
            self.skip_first_ngram_calls,
            self.debug_mode,
        )

    def _process(self, scores: Any, context: Context, lowest: float) -> Any:
        xp = arrays.of(scores)
        scores = xp.zeros_like(scores) + 1.0 if self.debug_mode else scores
        last, marked = self._last_contexts(xp, context)
        if xp.surely_none(marked):
            return scores
        marked_scores = xp.astype(self._marked(xp, scores, last), type_of(scores))
        return xp.where(marked[:, None], xp.maximum(marked_scores, lowest), scores)

    def _last_contexts(self, xp: Any, context: Context) -> tuple[list[Any], Any]:
        """The ngram_len - 1 tokens, Int["R"] each, that rows end in, and which rows are to be marked, Bool["R"].

        Contexts are one another's equals where their tokens are: hashes of others are too in one of 2^64 cases.
        """
        before, starts, ends = self.ngram_len - 1, context.prompt_lengths[:, None], context.lengths[:, None]
        places = xp.arange(context.tokens.shape[1] + 1, like=context.tokens)[None, :]
        new = xp.where(places[:, :-1] >= starts, context.tokens, 0)
        padded = xp.concat([xp.zeros((new.shape[0], before), "int32", like=new), new])
        first = starts + (before if self.skip_first_ngram_calls else 0)  # earlier contexts are not remembered
        again = (places >= xp.maximum(ends - self.context_history_size, first)) & (places < ends)
        last = []
        for back in range(before, 0, -1):
            behind = padded[:, before - back : before - back + places.shape[1]]  # what came so far before each place
            own = xp.take_along_axis(behind, ends)
            again = again & (behind == own)
            last.append(own[:, 0])
        return last, (ends >= first)[:, 0] & ~xp.any(again)

    def _marked(self, xp: Any, scores: Any, last: Sequence[Any]) -> Any:
        """Float["R V"]: the logarithms of the probabilities after the tournament, of tokens that have one."""
        tokens, values = xp.survivors(scores)
        g_at = self._g_values_at(xp, tokens, last)
        chances = xp.softmax(xp.astype(values, "float64"))
        for depth in range(len(self.keys)):
            won = g_at(depth)
            mass = xp.sum(xp.where(won, chances, 0.0), keepdims=True)
            chances = chances * (1.0 + xp.astype(won, "float64") - mass)
        chances = xp.maximum(chances, 0.0)  # a mass may be rounded to more than 1
        logs = xp.astype(xp.log(chances), "float32")
        if tokens.shape[-1] == scores.shape[-1]:
            return logs
        width = scores.shape[-1]
        nothing = xp.full((scores.shape[0], width + 1), -float("inf"), "float32", like=scores)
        columns = xp.where(values > -float("inf"), tokens, width)  # short rows end in tokens that do not count
        return xp.scatter_set(nothing, columns, logs)[:, :width]

    def _g_values_at(self, xp: Any, tokens: Any, last: Sequence[Any]) -> Callable[[int], Any]:
        """depth -> Bool["R K"]: the g-values of tokens Int["R K"] after contexts, whose tokens are Int["R"] each."""
        table = xp.asarray(self.sampling_table, "bool", like=tokens)
        find = _by_whole_hashes if self.reads_host else _by_low_bits
        places_at = find(xp, tokens, last, self.keys, len(self.sampling_table))
        return lambda depth: xp.reshape(xp.take(table, xp.reshape(places_at(depth), (-1,))), tokens.shape)

    # What detectors and people with arrays of their own ask for, by the names of transformers.

    def update_scores(self, scores: Any, g_values: Any) -> Any:
        """Float["R V"]: the scores after a tournament with g-values Int["R V D"]."""
        xp = arrays.of(scores)
        chances = xp.softmax(scores)
        for depth in range(g_values.shape[-1]):
            won = xp.astype(g_values[:, :, depth], "float32")
            chances = chances * (1 + won - xp.sum(won * chances, keepdims=True))
        return xp.maximum(xp.log(xp.maximum(chances, 0.0)), LOWEST)

    def compute_ngram_keys(self, ngrams: Any) -> Any:
        """Int64["B N D"]: the hash of n-grams Int["B N ngram_len"] with each key."""
        if ngrams.ndim != 3 or ngrams.shape[2] != self.ngram_len:
            raise ArgumentError(
                f"`ngrams` must be of shape (batch_size, num_ngrams, {self.ngram_len}), got {tuple(ngrams.shape)}."
            )
        xp = arrays.of(ngrams)
        host = xp.to_host(ngrams)
        words = accumulate(np.ones(host.shape[:2], dtype=np.uint64), host)
        keyed = accumulate(words[..., None], self.keys[None, None, :, None])
        return xp.asarray(keyed.view(np.int64), "int64", like=ngrams)

    def sample_g_values(self, ngram_keys: Any) -> Any:
        """Int64["B N D"]: 0 or 1 for each hash."""
        xp = arrays.of(ngram_keys)
        found = self.sampling_table[xp.to_host(ngram_keys) % len(self.sampling_table)]
        return xp.asarray(found.astype(np.int64), "int64", like=ngram_keys)

    def compute_g_values(self, input_ids: Any) -> Any:
        """Int64["B L-ngram_len+1 D"]: the g-values of every n-gram of texts Int["B L"]."""
        xp = arrays.of(input_ids)
        windows = np.lib.stride_tricks.sliding_window_view(_texts(xp, input_ids), self.ngram_len, axis=1)
        return self.sample_g_values(self.compute_ngram_keys(xp.asarray(windows.copy(), "int64", like=input_ids)))

    def compute_context_repetition_mask(self, input_ids: Any) -> Any:
        """Bool["B L-ngram_len+1"]: n-grams of texts Int["B L"] whose context is not a repeated one."""
        xp = arrays.of(input_ids)
        masks = [
            ~repeated(window_hashes(row[:-1], self.ngram_len - 1), self.context_history_size)
            for row in _texts(xp, input_ids)
        ]
        return xp.asarray(np.array(masks), "bool", like=input_ids)

    def compute_eos_token_mask(self, input_ids: Any, eos_token_id: int | Sequence[int]) -> Any:
        """Bool["B L"]: tokens of texts Int["B L"] before the first end token."""
        xp = arrays.of(input_ids)
        ended = np.isin(_texts(xp, input_ids), token_ids("eos_token_id", eos_token_id))
        return xp.asarray(np.cumsum(ended, axis=1) == 0, "bool", like=input_ids)

    def expected_mean_g_value(self, vocab_size: int, coinflip_prob: float = 0.5) -> float:
        """The mean g-value of one depth where the model finds all tokens equally likely."""
        return coinflip_prob + coinflip_prob * (1 - coinflip_prob) * (1 - 1 / vocab_size)


def _by_low_bits(xp: Any, tokens: Any, last: Sequence[Any], keys: np.ndarray, size: int) -> Callable[[int], Any]:
    """depth -> Int["R K"]: places in a table of 2^n, for which 32 bits do, where the tokens are."""
    factor = MULTIPLIER % (1 << 32)  # below 2^31; sums and products wrap at 32 bits
    words = xp.zeros_like(tokens[:, 0]) + 1
    for token in [*last, 0]:  # another last one adds its id * MULTIPLIER^2
        words = (words + token) * factor + 1
    own = xp.asarray(keys.astype(np.int32), "int32", like=tokens)
    offsets = (words[:, None] + own[None, :]) * factor + 1
    terms = tokens * (MULTIPLIER * MULTIPLIER % size)
    return lambda depth: (terms + offsets[:, depth : depth + 1]) & (size - 1)


def _by_whole_hashes(xp: Any, tokens: Any, last: Sequence[Any], keys: np.ndarray, size: int) -> Callable[[int], Any]:
    """depth -> Int["R K"]: places in a table of any size, by way of the host."""
    contexts = [xp.to_host(token)[:, None] for token in last]
    context = np.concatenate([np.zeros((tokens.shape[0], 0), np.int32), *contexts], axis=1)
    hashes = accumulate(np.ones(len(context), dtype=np.uint64), context)
    words = accumulate(hashes[:, None], xp.to_host(tokens)[..., None])

    def places_at(depth: int) -> Any:
        keyed = accumulate(words, keys[None, None, depth : depth + 1])
        return xp.asarray(places(keyed, size), "int32", like=tokens)

    return places_at


def _texts(xp: Any, input_ids: Any) -> np.ndarray:
    """Texts Int["B L"] on the host."""
    if input_ids.ndim != 2:
        raise ArgumentError(f"`input_ids` must be of shape (batch_size, input_len), got {tuple(input_ids.shape)}.")
    return xp.to_host(input_ids)
