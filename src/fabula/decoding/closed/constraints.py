"""What constrained beam search does with a turn's candidates, as array functions.

Those that bring a constraint forward stand beside the best, and all are taken from their banks in turn. The moves are
those of `ConstrainedBeamSearch`, whose twin this is inside a compiled loop; ConstraintListState says what a step
forward is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from fabula.decoding.constrained_beams import BANK
from fabula.decoding.constraint_tries import ClosedConstraints

__all__ = ["Continued", "Forcing", "Progress", "Pushed"]

NEVER = 1 << 22  # the rank of what is no step forward


class Progress(NamedTuple):
    """How far W beams of each of G groups are, as in ClosedConstraints."""

    nodes: Any  # Int["G W"]
    queues: Any  # Int["G W E"]


class Continued(NamedTuple):
    """Continuations of G groups' beams."""

    values: Any  # Float32["G M"]: the beam's score and the token's; -inf where there is none
    beams: Any  # Int["G M"]
    tokens: Any  # Int["G M"]

    def at(self, xp: Any, places: Any) -> Continued:
        """Those at places Int["G N"] of each group."""
        return Continued(*(xp.take_along_axis(part, places) for part in self))


class After(NamedTuple):
    """How far continuations are."""

    nodes: Any  # Int["G M"]
    met: Any  # Int["G M"]: so many constraints are
    owners: Any  # Int["G M"]: the constraint whose place in the queue changes; -1: none
    waits: Any  # Int["G M"]: where it waits then; -1: it does not


class Pushed(NamedTuple):
    """What a turn makes of G groups."""

    running: Continued  # ["G W"]: the next beams
    progress: Progress  # theirs
    sums: Any  # Float32["G W E"]: what each beam's text scores with each edge's token


@dataclass(frozen=True, slots=True)
class Forcing:
    """The constraints of G groups, and the tokens Int["G N"] that end their texts."""

    xp: Any
    closed: ClosedConstraints
    ends: Any

    def completes(self, before: Progress, every: Continued, turn: Any) -> Any:
        """Bool["G M"]: whether the texts of continuations meet all constraints; turn Int["G"] counts the loop's."""
        return self._after(before, self._ranks(before), every, turn).met == self.closed.counts[:, None]

    def push(self, before: Progress, running: Continued, beams: Any, scores: Any, turn: Any) -> Pushed:
        """The next beams, from the W best continuations that do not end and from those that are a step forward.

        beams Float32["G W"] are the scores of the beams, scores Float32["G W V"] of their tokens.
        """
        xp, shape = self.xp, before.queues.shape
        tokens = xp.broadcast_to(self.closed.tokens[:, None, :], shape)
        sums = beams[:, :, None] + _along(xp, scores, tokens)
        ranks = self._ranks(before)
        ahead = self._ahead(ranks, tokens, sums, running)
        every = Continued(*(xp.concat(list(pair)) for pair in zip(running, ahead, strict=True)))
        after = self._after(before, ranks, every, turn)
        places = _from_banks(xp, every.values, self._banks(after), shape[1])
        chosen, own = every.at(xp, places), After(*(xp.take_along_axis(part, places) for part in after))
        return Pushed(chosen, self._progress(before, chosen.beams, own), sums)

    def _ranks(self, progress: Progress) -> Any:
        """Int["G W E"]: edges that are a step forward in the order in which the search names them; the others NEVER.

        An edge's number is its rank modulo E.
        """
        xp, closed, shape = self.xp, self.closed, progress.queues.shape
        nodes = progress.nodes[:, :, None]
        waits = _along(xp, progress.queues, xp.broadcast_to(closed.owners[:, None, :], shape))
        forward = (closed.parents[:, None, :] == nodes) & ((nodes >= 0) | (waits >= 0))
        ranks = xp.maximum(waits, 0) * shape[-1] + xp.arange(shape[-1], like=nodes)
        return xp.where(forward, ranks, NEVER)

    def _ahead(self, ranks: Any, tokens: Any, sums: Any, running: Continued) -> Continued:
        """["G W*E"]: steps forward in their order, but those that end a text or make one that is there already."""
        xp, (groups, beams, count) = self.xp, ranks.shape
        flat = xp.reshape(ranks, (groups * beams, count))
        order = xp.reshape(xp.top_k(-xp.astype(flat, "float32"), count)[1], ranks.shape)
        ranks, tokens, values = (_along(xp, part, order) for part in (ranks, tokens, sums))
        own = xp.broadcast_to(xp.arange(beams, like=order)[None, :, None], ranks.shape)
        each, places = tokens[:, :, :, None], xp.arange(count, like=order)
        there = (own[:, :, :, None] == running.beams[:, None, None, :]) & (each == running.tokens[:, None, None, :])
        named = (each == tokens[:, :, None, :]) & (places[:, None] > places[None, :])
        refused = xp.any(there) | xp.any(named) | xp.any(each == self.ends[:, None, None, :])
        free = (ranks < NEVER) & (values > -float("inf")) & ~refused
        parts = (xp.where(free, values, -float("inf")), own, tokens)
        return Continued(*(xp.reshape(part, (groups, beams * count)) for part in parts))

    def _after(self, before: Progress, ranks: Any, every: Continued, turn: Any) -> After:
        """A token enters the first edge that it can; where it can none, what was begun waits again, behind all."""
        xp, closed, edges = self.xp, self.closed, ranks.shape[-1]
        matches = closed.tokens[:, None, :] == every.tokens[:, :, None]
        first = -xp.max(-xp.where(matches, _of_beams(xp, ranks, every.beams), NEVER))
        forward, edge = first < NEVER, first % edges
        nodes = xp.take_along_axis(before.nodes, every.beams)
        leaf = forward & xp.take_along_axis(closed.leaves, edge)
        missing = xp.sum(before.queues >= 0) + xp.astype(before.nodes >= 0, "int32")
        owner = xp.take_along_axis(closed.owners, xp.where(forward, edge, xp.maximum(nodes, 0)))
        behind = xp.broadcast_to((turn + edges)[:, None], nodes.shape)
        return After(
            nodes=xp.where(forward & ~leaf, edge, -1),
            met=xp.take_along_axis(closed.counts[:, None] - missing, every.beams) + xp.astype(leaf, "int32"),
            owners=xp.where(forward | (nodes >= 0), owner, -1),
            waits=xp.where(forward, -1, behind),
        )

    def _banks(self, after: After) -> Any:
        """Int["G M"]: as ConstraintListState.get_bank has it."""
        xp = self.xp
        begun = xp.take_along_axis(self.closed.steps, xp.maximum(after.nodes, 0))
        return after.met * self.closed.longest[:, None] + xp.where(after.nodes >= 0, begun, 0)

    def _progress(self, before: Progress, beams: Any, own: After) -> Progress:
        """That of W continuations of beams Int["G W"]."""
        xp, queues = self.xp, _of_beams(self.xp, before.queues, beams)
        changed = own.owners[:, :, None] == xp.arange(queues.shape[-1], like=own.owners)
        return Progress(own.nodes, xp.where(changed, own.waits[:, :, None], queues))


def _from_banks(xp: Any, values: Any, banks: Any, count: int) -> Any:
    """Int["G W"]: the best of each bank, the fullest bank first, then the second best of each, and so on."""
    every = values.shape[1]
    ordered, order = xp.top_k(xp.astype(banks, "float32") * BANK + values, every)
    bank = xp.take_along_axis(banks, order)
    starts = xp.concat([xp.ones_like(bank[:, :1]) > 0, bank[:, 1:] != bank[:, :-1]])
    places = xp.broadcast_to(xp.arange(every, like=bank)[None, :], bank.shape)
    runs = xp.cumulative_sum(starts) - 1
    firsts = xp.scatter_where(xp.zeros_like(bank), runs, starts, places)
    ranks = xp.where(ordered > -float("inf"), places - xp.take_along_axis(firsts, runs), every)
    best = xp.top_k(-xp.astype(ranks, "float32"), count)[1]
    return xp.take_along_axis(order, best)


def _along(xp: Any, x: Any, places: Any) -> Any:
    """["G W N"]: x ["G W M"] at places Int["G W N"] of its last axis."""
    rows = places.shape[0] * places.shape[1]
    flat = xp.take_along_axis(*(xp.reshape(part, (rows, part.shape[-1])) for part in (x, places)))
    return xp.reshape(flat, places.shape)


def _of_beams(xp: Any, x: Any, beams: Any) -> Any:
    """["G M E"]: x ["G W E"] of beams Int["G M"]."""
    groups, each, width = x.shape
    rows = xp.reshape(xp.arange(groups, like=beams)[:, None] * each + beams, (-1,))
    return xp.reshape(xp.take(xp.reshape(x, (groups * each, width)), rows), (groups, beams.shape[1], width))
