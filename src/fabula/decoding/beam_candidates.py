"""Which continuations of a group of beams are looked at: the best ones or, in sampling, ones drawn without replacement.

The step on scores is pure: G groups (searches that step together) of W beams over a vocabulary of V, so that it runs
the same inside a compiled loop as from Python. Where all W beams of a group are still one text, as at the first step,
the scores may hold one row for them: [G 1 V].
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fabula import arrays
from fabula.decoding.sample import noise_of
from fabula.decoding.strategy import Draw, Turn
from fabula.errors import NumericalError

__all__ = [
    "PURPOSE_BEAMS",
    "SPARE",
    "Candidates",
    "best_candidates",
    "candidates_to_keep",
    "drawn_candidates",
    "found",
    "log_scores",
    "noisy_candidates",
    "shares",
]

SPARE = np.float32(-1e9)  # what a beam starts with that only fills a place: any real one is better
PURPOSE_BEAMS = 1 << 16  # of random bits; plus the beam's number, so that each beam has noise of its own


@dataclass(frozen=True, slots=True)
class Candidates:
    """Continuations on the host, in the order in which they were chosen. None of them is at -inf."""

    values: np.ndarray  # Float32["K"]: the beam's score and the token's
    rows: np.ndarray  # Int["K"]: the beam that is continued
    tokens: np.ndarray  # Int["K"]

    def __len__(self) -> int:
        return len(self.values)

    def at(self, places: Any) -> Candidates:
        """Those at some places."""
        return Candidates(self.values[places], self.rows[places], self.tokens[places])

    def possible(self) -> Candidates:
        """Those above -inf."""
        possible = self.values > -np.inf
        return self if possible.all() else self.at(possible)

    def join(self, others: Candidates) -> Candidates:
        """These, then the others."""
        pairs = ((self.values, others.values), (self.rows, others.rows), (self.tokens, others.tokens))
        return Candidates(*(np.concatenate(pair) for pair in pairs))

    def fill(self, count: int) -> Candidates:
        """As many as there are beams: where they are too few, the first again, far below the others."""
        if len(self) >= count:
            return self.at(slice(count))
        filled = self.at(np.concatenate([np.arange(len(self)), np.zeros(count - len(self), np.int64)]))
        filled.values[len(self) :] += SPARE
        return filled


def candidates_to_keep(beams: int, end_tokens: int) -> int:
    """So many that, whatever of them end with an end token, enough are left for every beam."""
    return max(2, 1 + end_tokens) * beams


def log_scores(turn: Turn, diverse: Any = None) -> Any:
    """Float32["R V"]: the log-softmax of the rows' logits, as their processors make it.

    `diverse` Float["G V"] is taken off before the processors, a row of it for each of G groups' rows.
    """
    xp = arrays.of(turn.logits)
    log_probabilities = xp.log_softmax(xp.astype(turn.logits, "float32"))
    if diverse is None:
        return turn.processed(log_probabilities)
    shape = log_probabilities.shape
    grouped = xp.reshape(log_probabilities, (diverse.shape[0], -1, shape[-1]))
    return turn.processed(xp.reshape(grouped - diverse[:, None, :], tuple(shape)))


def shares(scores: Any, groups: int, beams: int) -> list[Any]:
    """Float["W V"] of each group, from scores Float["G*W V"] or, where a group's beams are one text, Float["G V"]."""
    xp, each = arrays.of(scores), scores.shape[0] // groups
    parts = [scores[first : first + each] for first in range(0, groups * each, each)]
    return parts if each == beams else [xp.broadcast_to(part, (beams, part.shape[-1])) for part in parts]


def best_candidates(xp: Any, scores: Any, running: Any, count: int) -> tuple[Any, Any, Any]:
    """The `count` best continuations of each group: values Float["G K"], beams Int["G K"], tokens Int["G K"].

    scores Float["G W V"] (or ["G 1 V"]) are the tokens', running Float["G W"] the beams'. Best first; of equal ones
    the lower beam's, then the lower token. K is at most W * V.
    """
    vocabulary = scores.shape[-1]
    sums = xp.reshape(scores + running[:, :, None], (running.shape[0], -1))
    values, places = xp.top_k(sums, min(count, sums.shape[-1]))
    return values + _poison(xp, scores)[:, 0], places // vocabulary, places % vocabulary


def drawn_candidates(xp: Any, scores: Any, running: Any, count: int, draw: Draw) -> tuple[Any, Any, Any]:
    """As `best_candidates`, but drawn without replacement from the softmax over all continuations of a group.

    The `count` highest of score plus Gumbel noise are such draws, in their order (Kool et al. 2019, "Stochastic beams
    and where to find them", section 2.3). `draw` holds a row for each group or beam; a group takes its first row's.
    """
    groups, rows, _ = scores.shape
    firsts = np.repeat(np.arange(groups) * (len(draw.position) // groups), rows)
    beams = np.tile(np.arange(rows, dtype=np.int32), groups)

    def noise(tokens: Any) -> Any:
        return noise_of(xp, draw.select(firsts), tokens, purpose=beams + np.int32(PURPOSE_BEAMS))

    return noisy_candidates(xp, scores, running, count, noise)


def noisy_candidates(
    xp: Any, scores: Any, running: Any, count: int, noise: Callable[[Any], Any]
) -> tuple[Any, Any, Any]:
    """As `drawn_candidates`; noise gives each beam's Gumbel noise Float["G*W K"] of tokens Int["G*W K"]."""
    groups, rows, vocabulary = scores.shape
    tokens, values = xp.survivors(xp.reshape(scores, (groups * rows, vocabulary)))
    noisy = values + noise(tokens)
    ranks, values, tokens = (xp.reshape(part, (groups, rows, -1)) for part in (noisy, values, tokens))
    return _merged(xp, ranks, values + _poison(xp, scores), tokens, running, count)


def _poison(xp: Any, scores: Any) -> Any:
    """Float["G 1 1"]: NaN for a group with NaN among its scores, else 0: wherever NaN is sorted to, it shows."""
    highest = xp.max(scores)
    return xp.sum(xp.where(xp.isnan(highest), highest, xp.zeros_like(highest)))[:, None, None]


def _merged(xp: Any, ranks: Any, values: Any, tokens: Any, running: Any, count: int) -> tuple[Any, Any, Any]:
    """The `count` of highest rank of each group, from k continuations of every beam, ["G W k"] or ["G 1 k"]."""
    groups, beams = running.shape
    each = tokens.shape[-1]
    shape = (groups, beams, each)
    _, places = xp.top_k(xp.reshape(ranks + running[:, :, None], (groups, -1)), min(count, beams * each))
    values = xp.reshape(values + running[:, :, None], (groups, -1))
    tokens = xp.reshape(xp.broadcast_to(tokens, shape), (groups, -1))
    return xp.take_along_axis(values, places), places // each, xp.take_along_axis(tokens, places)


def found(scores: Any, running: Sequence[np.ndarray], count: int, draw: Draw) -> list[Candidates]:
    """The candidates of G searches, from scores Float["G*W V"] or, at the first turn, Float["G V"].

    running: Float["W"] of each. Drawn where `draw.sampled` holds, which it does for all or none, else the best. Only
    they go to the host. Raises NumericalError.
    """
    if arrays.on_host(scores):  # where NumPy takes the fewest steps
        scores = arrays.of(scores).to_host(scores)
    xp = arrays.of(scores)
    beams = xp.asarray(np.stack(running), "float32", like=scores)
    scores = xp.reshape(scores, (len(running), -1, scores.shape[-1]))
    if draw.sampled[0]:
        kept = drawn_candidates(xp, scores, beams, count, draw)
    else:
        kept = best_candidates(xp, scores, beams, count)
    every = [xp.to_host(part) for part in kept]
    all_possible = bool((every[0] > -np.inf).all())
    return [Candidates(*group) if all_possible else _checked(*group) for group in zip(*every, strict=True)]


def _checked(values: np.ndarray, rows: np.ndarray, tokens: np.ndarray) -> Candidates:
    """A group's candidates that are above -inf, of which there must be one, and none at NaN."""
    candidates = Candidates(values, rows, tokens).possible()
    if np.isnan(values).any() or not len(candidates):
        reason = "NaN" if np.isnan(values).any() else "-inf only"
        raise NumericalError(
            f"`scores` must hold a finite number for some beam, and no NaN, got {reason}. Look for a processor that "
            "removes every token, or for NaN in the model's logits; remove_invalid_values=True goes on regardless."
        )
    return candidates
