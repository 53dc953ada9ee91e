"""Transition scores: what each token of a sequence scored when it was chosen, along the beams that led to it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fabula import arrays
from fabula.errors import ArgumentError

__all__ = ["compute_transition_scores"]


def compute_transition_scores(
    sequences: Any,
    scores: Sequence[Any],
    beam_indices: Any = None,
    normalize_logits: bool = False,
    ends: Any = None,
    fill: int | None = None,
) -> Any:
    """Float["R S"]: the scores of the last S tokens of R sequences Int["R L"], from one Float["B V"] a step.

    beam_indices Int["R S'"] says from which of the B rows each token came, and -1 where the sequence had ended (its
    score is then 0); without it, row r's tokens come from row r. normalize_logits takes the log-softmax first. With
    `ends`, end tokens as Int["E"], scores after a sequence's first end token are 0 too; with `fill`, the
    padding, only where nothing else is behind it: a call may have let the sequence go on.
    """
    if not len(scores):
        raise ArgumentError("`scores` must hold one array a step, got none. Generate with output_scores=True.")
    xp = arrays.of(scores[0])
    parents = xp.arange(scores[0].shape[0], like=scores[0])[:, None] if beam_indices is None else beam_indices
    steps = len(scores) if beam_indices is None else int(xp.to_host(xp.max(xp.sum(beam_indices >= 0))))
    parents = xp.broadcast_to(parents[:, :steps], (sequences.shape[0], steps))
    tokens = xp.astype(sequences[:, sequences.shape[1] - steps :], "int32")
    columns = [
        _scored(xp, step_scores, parents[:, step], tokens[:, step], normalize_logits)
        for step, step_scores in enumerate(scores[:steps])
    ]
    found = xp.where(parents < 0, 0.0, xp.concat([column[:, None] for column in columns]))
    return found if ends is None else xp.where(_after_end(xp, tokens, ends, fill), 0.0, found)


def _scored(xp: Any, scores: Any, parents: Any, tokens: Any, normalize: bool) -> Any:
    """Float["R"]: scores Float["B V"] at rows `parents` and columns `tokens`, Int["R"] both."""
    chosen = xp.take(scores, xp.astype(xp.maximum(parents, 0), "int32"))
    found = xp.take_along_axis(chosen, tokens[:, None])[:, 0]
    return found - xp.logsumexp(chosen) if normalize else found


def _after_end(xp: Any, tokens: Any, ends: Any, fill: int | None) -> Any:
    """Bool["R S"]: places after the first end token of a row, if all of them hold `fill` where that is given."""
    is_end = xp.any(tokens[:, :, None] == ends[None, None, :])
    after = xp.cumulative_sum(is_end) - xp.astype(is_end, "int32") > 0
    return after if fill is None else after & ~xp.any(after & (tokens != fill))[:, None]
