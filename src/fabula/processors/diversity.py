"""Hamming diversity: a group of beams avoids the tokens that earlier groups chose at the same step."""

from __future__ import annotations

from typing import Any

from fabula import arrays
from fabula.errors import ArgumentError
from fabula.processors.arguments import above_zero, whole

__all__ = ["HammingDiversityLogitsProcessor", "count_tokens"]


def count_tokens(xp: Any, tokens: Any, like: Any) -> Any:
    """Float32["G V"]: how often each token of the vocabulary of `like` ["R V"] is in each row of tokens Int["G N"]."""
    zeros = xp.zeros((tokens.shape[0], like.shape[-1]), "float32", like=like)
    columns = xp.asarray(tokens, "int32", like=like)
    return xp.scatter_add(zeros, columns, xp.full(columns.shape, 1.0, "float32", like=like))


class HammingDiversityLogitsProcessor:
    """Takes `diversity_penalty` off a token's score for each beam of an earlier group that chose it now.

    For a loop of one's own; diverse beam search does the same by itself. Vijayakumar et al. 2016, section 3.
    """

    def __init__(self, diversity_penalty: float, num_beams: int, num_beam_groups: int) -> None:
        self.diversity_penalty = above_zero("diversity_penalty", diversity_penalty, "Leave it out for no diversity.")
        self.num_beams = whole("num_beams", num_beams, 2)
        self.num_beam_groups = whole("num_beam_groups", num_beam_groups, 2)
        if num_beam_groups > num_beams:
            raise ArgumentError(
                f"`num_beam_groups` must be at most `num_beams`={num_beams}, got {num_beam_groups}. Raise num_beams."
            )

    def __call__(self, input_ids: Any, scores: Any, current_tokens: Any, beam_group_idx: int) -> Any:
        """Float["B*W V"]: the scores of one group's W beams of each of B prompts.

        current_tokens Int["B*num_beams"] holds what the groups before `beam_group_idx` chose at this step.
        """
        if beam_group_idx == 0:
            return scores
        xp = arrays.of(scores)
        size = self.num_beams // self.num_beam_groups
        earlier = xp.to_host(current_tokens).reshape(-1, self.num_beams)[:, : beam_group_idx * size]
        counts = count_tokens(xp, earlier, scores)
        return scores - xp.repeat(counts, scores.shape[0] // len(earlier)) * self.diversity_penalty
