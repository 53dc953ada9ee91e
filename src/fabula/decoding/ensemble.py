"""An assistant that has a say: where it drafted, tokens come from a mixture of its distribution and the model's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from fabula import arrays
from fabula.decoding.sample import check_chosen, choose_tokens
from fabula.decoding.strategy import Choice, Turn
from fabula.taps import NO_TAPS, Taps

__all__ = ["Ensemble"]


@dataclass(frozen=True, slots=True)
class Ensemble:
    """Greedy search or sampling from `weight` * the model's distribution + (1 - `weight`) * the assistant's.

    So it is at each position that has a draft, whether the draft stands or not; behind the last draft the model chooses
    alone (arXiv:2604.07622, static ensemble verification). Both distributions are those after the row's processors.
    """

    weight: float  # of the model, in (0, 1)
    taps: Taps = NO_TAPS
    reads_guesses: ClassVar[bool] = True

    def choose(self, turn: Turn) -> Choice:
        """The tokens of R rows, and the model's own scores. Raises NumericalError where those have no finite number."""
        xp = arrays.of(turn.logits)
        scores = turn.processed(xp.astype(turn.logits, "float32"))
        mixed = self.mixed(scores, turn.guesses)
        tokens = choose_tokens(xp, mixed, turn.draw)
        check_chosen(xp, mixed, tokens)
        return Choice(tokens, scores)

    def mixed(self, scores: Any, guesses: Sequence[Any]) -> Any:
        """Float32["R V"]: the mixture's log-probabilities in rows that have a guess Float["V'"], else the scores."""
        xp = arrays.of(scores)
        drafted = [place for place, guess in enumerate(guesses) if guess is not None]
        if not drafted:
            return scores
        rows = xp.asarray(drafted, "int32", like=scores)
        own = xp.softmax(xp.take(scores, rows))
        other = xp.softmax(_together([guesses[place] for place in drafted], scores))
        mixture = self.weight * own + (1 - self.weight) * other
        some = mixture > 0
        return xp.set_rows(scores, rows, xp.where(some, xp.log(xp.where(some, mixture, 1.0)), -float("inf")))


def _together(guesses: Sequence[Any], like: Any) -> Any:
    """Float32["N V"] in the framework and on the device of Float["R V"]; what a smaller vocabulary lacks is -inf."""
    xp, vocabulary, rows = arrays.of(like), like.shape[1], []
    for guess in guesses:
        other = arrays.of(guess)
        there = guess if other is xp else xp.asarray(other.to_host(guess), "float32", like=like)
        row = xp.asarray(there[:vocabulary], "float32", like=like)
        short = vocabulary - row.shape[0]
        rows.append(xp.concat([row, xp.full([short], -float("inf"), "float32", like=like)]) if short else row)
    return xp.concat([row[None] for row in rows], axis=0)
