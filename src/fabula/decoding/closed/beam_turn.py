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
from fabula.decoding.closed.beam_found import Found
from fabula.decoding.closed.beams import BeamForm, ClosedBeams
from fabula.decoding.closed.constraints import Continued, Forcing
from fabula.decoding.closed.rows import ClosedRows
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
    progress: Any = ()  # a Progress where texts have constraints


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
    processed: Any  # Float32["G S V"]: the scores of its rows' tokens
    forced: Any = ()  # Float32["G W E"]: as in Pushed.sums, where texts have constraints
    progress: Any = ()  # a Progress, of the next beams


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
    forcing: Forcing | None  # what texts must contain

    def advance(self, turn: Turn, scores: Any, negative: Any | None, before: Sequence[Part]) -> Part:
        """What it does after the log-softmax Float["R V"], and after those before it in this turn.

        `negative`: the logits Float["R V"] after negative prompts, where rows are guided.
        """
        xp, was = self.xp, turn.over[:, self.number]
        every, processed = self._candidates(turn, scores, negative, before)
        stops = xp.any(every.tokens[:, :, None] == self.beams.rows.ends[:: self.form.beams][:, None, :])
        found, places = xp.top_k(xp.where(stops, -float("inf"), every.values), self.form.size)
        running = Continued(found, *every.at(xp, places)[1:])
        progress: Any = turn.progress
        forced: Any = ()
        if self.forcing is not None:
            stops = stops & self.forcing.completes(turn.progress, every, turn.found.turns)
            pushed = self.forcing.push(turn.progress, running, turn.scores, processed, turn.found.turns)
            running, progress, forced = pushed.running, pushed.progress, pushed.sums
        pool = self._pooled(turn, every.values, stops)
        over = was | self._is_over(turn, (every.values if self.form.reckons_with_ended else found)[:, 0], pool[:, -1])
        own = xp.arange(self.form.size, like=was)[None, :]
        return Part(
            values=xp.where(was[:, None], -float("inf"), every.values),
            beams=every.beams,
            tokens=every.tokens,
            origins=xp.where(over[:, None], own, running.beams),
            chosen=xp.where(was[:, None], self.beams.padding[:, None], running.tokens),
            scores=xp.where(over[:, None], self._of(turn.scores), running.values),
            pool=xp.where(was[:, None], self._of(turn.pool), pool),
            over=over,
            sound=was | (found[:, -1] > -float("inf")),
            processed=processed,
            forced=forced,
            progress=progress,
        )

    def _of(self, beams: Any) -> Any:
        """["G S"] of ["G W"]."""
        size = self.form.size
        return beams[:, self.number * size : (self.number + 1) * size]

    def _candidates(
        self, turn: Turn, scores: Any, negative: Any | None, before: Sequence[Part]
    ) -> tuple[Continued, Any]:
        """["G K"]: as the search has them; and the scores Float32["G S V"] that they are found by."""
        xp, running = self.xp, self._of(turn.scores)
        shape = (*running.shape, scores.shape[-1])
        own = share(xp, scores, self.rows)
        if before:
            counts = count_tokens(xp, xp.concat([part.chosen for part in before]), scores)
            own = xp.reshape(own, shape) - (counts * self.beams.diversity[:, None])[:, None, :]
            own = xp.reshape(own, (-1, shape[-1]))
        context = Context(
            share(xp, turn.tokens, self.rows),
            share(xp, turn.lengths, self.rows),
            share(xp, self.beams.rows.prompt_lengths, self.rows),
            unconditional=None if negative is None else share(xp, xp.astype(negative, "float32"), self.rows),
        )
        own = xp.reshape(self.process(own, context), shape)
        if self.noise_at is None:
            found = best_candidates(xp, own, running, self.form.kept)
        else:
            found = noisy_candidates(xp, own, running, self.form.kept, self.noise_at(turn.position + 1))
        return Continued(found[0], *(xp.astype(part, "int32") for part in found[1:])), own

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
    ends = beams.rows.ends[:: form.beams]
    forcing = Forcing(xp, beams.constraints, ends) if beams.constraints else None
    return Subgroup(xp, form, beams, number, rows, process, _noise(xp, form, beams.rows), forcing)


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
