"""One turn of closed beams: what a subgroup of them chooses from, and what becomes of it.

The beams of a search are one subgroup or, in diverse beam search, several that choose one after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

from fabula.arrays.random import row_key
from fabula.context import Context
from fabula.decoding.beam_candidates import PURPOSE_BEAMS, best_candidates, noisy_candidates
from fabula.decoding.closed import ClosedRows
from fabula.decoding.closed_beams import BeamForm, ClosedBeams, Found
from fabula.decoding.sample import keyed_noise
from fabula.processors.columns import Process, process_of
from fabula.processors.diversity import count_tokens

__all__ = ["Part", "Subgroup", "Turn", "subgroup_of"]


class Turn(NamedTuple):
    """G groups between two moves. What has ended stays as it is, and is computed once more as it was."""

    tokens: Any  # Int["R L"]
    lengths: Any  # Int["R"]
    last: Any  # Int["R"]: what the model computes next
    position: Any  # Int["R"]: where
    scores: Any  # Float32["G W"]
    pool: Any  # Float32["G W"]
    over: Any  # Bool["G N"]: subgroups whose search has ended
    ended: Any  # Bool["G"]
    found: Found
    model: Any  # the model's state


class Part(NamedTuple):
    """What G groups' subgroups of one number, S beams each, do in a turn."""

    values: Any  # Float["G K"]: of the candidates; -inf where the subgroup was over
    beams: Any  # Int["G K"]: which of its beams each continues
    tokens: Any  # Int["G K"]
    origins: Any  # Int["G S"]: which of its beams each of its next beams continues; its own where it is over
    chosen: Any  # Int["G S"]: and with what
    scores: Any  # Float32["G S"]: of its next beams, falling
    pool: Any  # Float32["G S"]: with the scores of those that ended
    over: Any  # Bool["G"]: whether nothing better is to come
    sound: Any  # Bool["G"]: whether there are candidates for all beams, and no NaN; else the turn is the host's


@dataclass(frozen=True, slots=True)
class Subgroup:
    """The subgroup of one number in each of G groups."""

    xp: Any
    form: BeamForm
    beams: ClosedBeams
    number: int
    rows: Any  # Int["G*S"]: its rows of all; None: they are all
    process: Process  # of its rows
    noise_at: Callable[[Any], Callable[[Any], Any]] | None  # as `_noise` has it

    def advance(self, turn: Turn, scores: Any, before: Sequence[Part]) -> Part:
        """What it does after the log-softmax Float["R V"], and after those before it in this turn."""
        xp, was = self.xp, turn.over[:, self.number]
        values, beams, tokens = self._candidates(turn, scores, before)
        stops = xp.any(tokens[:, :, None] == self.beams.rows.ends[:: self.form.beams][:, None, :])
        found, places = xp.top_k(xp.where(stops, -float("inf"), values), self.form.size)
        pool = self._pooled(turn, values, stops)
        over = was | self._is_over(turn, (found if self.form.subgroups == 1 else values)[:, 0], pool[:, -1])
        own = xp.arange(self.form.size, like=was)[None, :]
        origins, chosen = (xp.astype(xp.take_along_axis(part, places), "int32") for part in (beams, tokens))
        return Part(
            values=xp.where(was[:, None], -float("inf"), values),
            beams=beams,
            tokens=tokens,
            origins=xp.where(over[:, None], own, origins),
            chosen=xp.where(was[:, None], self.beams.padding[:, None], chosen),
            scores=xp.where(over[:, None], self._of(turn.scores), found),
            pool=xp.where(was[:, None], self._of(turn.pool), pool),
            over=over,
            sound=was | (found[:, -1] > -float("inf")),
        )

    def _of(self, beams: Any) -> Any:
        """["G S"] of ["G W"]."""
        size = self.form.size
        return beams[:, self.number * size : (self.number + 1) * size]

    def _candidates(self, turn: Turn, scores: Any, before: Sequence[Part]) -> tuple[Any, Any, Any]:
        """As the search has them: values Float["G K"], beams Int["G K"], tokens Int["G K"]."""
        xp, running = self.xp, self._of(turn.scores)
        shape = (*running.shape, scores.shape[-1])
        own = share(xp, scores, self.rows)
        if before:
            counts = count_tokens(xp, xp.concat([part.chosen for part in before]), scores)
            own = xp.reshape(own, shape) - (counts * self.beams.diversity[:, None])[:, None, :]
            own = xp.reshape(own, (-1, shape[-1]))
        parts = (turn.tokens, turn.lengths, self.beams.rows.prompt_lengths)
        own = xp.reshape(self.process(own, Context(*(share(xp, part, self.rows) for part in parts))), shape)
        if self.noise_at is None:
            return best_candidates(xp, own, running, self.form.kept)
        return noisy_candidates(xp, own, running, self.form.kept, self.noise_at(turn.position + 1))

    def _now(self, turn: Turn, divisors: Any) -> Any:
        """Float32["G 1"] of ["G T"]: that of this turn."""
        now = self.xp.minimum(turn.found.turns, divisors.shape[1] - 1)
        return self.xp.take_along_axis(divisors, now[:, None])

    def _pooled(self, turn: Turn, values: Any, stops: Any) -> Any:
        """Float32["G S"]: the best scores of sequences that have ended, with those that do now."""
        xp, size = self.xp, self.form.size
        ended = xp.where(stops[:, :size], values[:, :size] / self._now(turn, self.beams.divisors), -float("inf"))
        return xp.top_k(xp.concat([self._of(turn.pool), ended]), size)[0]

    def _is_over(self, turn: Turn, best: Any, worst: Any) -> Any:
        """Bool["G"]: as Pool.closed_to says it, with the best running sum and the worst score in the pool."""
        bound = best / self._now(turn, self.beams.bounds)[:, 0]
        return (worst > -float("inf")) & (self.beams.hasty | ~(bound > worst))


def subgroup_of(xp: Any, form: BeamForm, beams: ClosedBeams, number: int) -> Subgroup:
    """The subgroup of this number."""
    rows = None
    if form.subgroups > 1:
        firsts = xp.arange(beams.hasty.shape[0], like=beams.rows.lengths) * form.beams + number * form.size
        rows = xp.reshape(firsts[:, None] + xp.arange(form.size, like=firsts)[None, :], (-1,))
    numbers = [{name: share(xp, value, rows) for name, value in own.items()} for own in beams.rows.numbers]
    process = process_of(form.chain.columns, numbers)
    return Subgroup(xp, form, beams, number, rows, process, _noise(xp, form, beams.rows))


def share(xp: Any, values: Any, rows: Any) -> Any:
    """The rows' own of values ["R ..."]; a Python number is everybody's."""
    return values if rows is None or isinstance(values, (bool, int, float)) else xp.take(values, rows)


def _noise(xp: Any, form: BeamForm, rows: ClosedRows) -> Callable[[Any], Callable[[Any], Any]] | None:
    """From positions Int["R"] to the noise of tokens, as `drawn_candidates` has it; None where no group draws."""
    if not form.chain.draws:
        return None
    beams = xp.arange(rows.lengths.shape[0], like=rows.lengths) % form.beams
    keys = row_key(xp, (rows.seed_low, rows.seed_high), rows.stream, PURPOSE_BEAMS + beams)
    return lambda position: partial(keyed_noise, xp, keys, position)
