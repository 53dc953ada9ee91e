"""Bursts: many steps of the same rows in one call of the model, where nobody needs a token before the last one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Protocol

from fabula.cache.blocks import BLOCK
from fabula.decoding.closed.beam_found import Made, replayed
from fabula.decoding.closed.beams import BeamForm, ClosedBeams, ClosedGroup, close_beams
from fabula.decoding.closed.contrastive import ClosedText, ClosedTexts, ContrastiveForm, close_texts, move_of
from fabula.decoding.closed.record import Gained
from fabula.decoding.closed.rows import ClosedRow, ClosedRows, Form, close
from fabula.decoding.layer_contrast import LayerContrast
from fabula.decoding.recipe import Recipe
from fabula.decoding.sample import SAMPLE
from fabula.decoding.strategy import FinishReason, Move
from fabula.engine.burst_texts import BurstOfTexts, are_texts, counts_of, first_rows, kept_of_text, text_of
from fabula.engine.group import Group
from fabula.engine.recording import kept_of_burst, steps_of_burst
from fabula.engine.request import Kept, Step
from fabula.engine.row import Row
from fabula.engine.scheduler import Plan, Scheduler
from fabula.ops.protocol import Batch

__all__ = ["LONGEST", "Burst", "BurstOfBeams", "Bursts", "HasBurst", "HasBurstOfBeams", "Prepared"]

LONGEST = 64  # steps: new requests, and whoever wants to cancel one, wait so long

# What a group did in many steps, which is computed and to be committed, and what is kept of a search's turns.
Chosen = tuple[Group, list[Step] | Move, Sequence[Kept]]
Prepared = Callable[[Batch, Any], list[Chosen]]  # of the first step's batch and the cache; groups that did nothing lack


class HasBurst(Protocol):
    """A model that can run many steps by itself; `takes_burst` of recipes may say that it cannot for some."""

    def burst(self, batch: Batch, cache: Any, form: Form, rows: ClosedRows) -> Sequence[Gained]:
        """What each row got, as `decoding.closed.loop.decode` finds it; the batch is the first step's.

        The cache then holds, of each row and of what is computed after its negative prompt, one position for each of
        its new tokens, beginning with the batch's.
        """


class HasBurstOfBeams(Protocol):
    """A model that can run many turns of beam search by itself."""

    def burst_beams(self, batch: Batch, cache: Any, form: BeamForm, beams: ClosedBeams) -> Sequence[Made]:
        """What each group chose from, as `decode_beams` finds it; the batch is the first step's.

        The cache then holds, in the blocks of the batch's row r from that of its first position on, what belongs there
        of the row that the moves put in r's place: positions of before too, and one for each move. So it does of what
        is computed after negative prompts, behind each beam.
        """


class Burst(Protocol):
    """`HasBurst.burst` of a model."""

    def __call__(self, batch: Batch, cache: Any, form: Form, rows: ClosedRows) -> Sequence[Gained]: ...


class BurstOfBeams(Protocol):
    """`HasBurstOfBeams.burst_beams` of a model."""

    def __call__(self, batch: Batch, cache: Any, form: BeamForm, beams: ClosedBeams) -> Sequence[Made]: ...


class Bursts:
    """Finds out which plans can be a burst, and prepares and runs it."""

    def __init__(self, model: Any) -> None:
        self.model = model  # perhaps a weak proxy, whose methods would hold what it stands for
        self._refused: Plan | None = None  # which has been looked at
        self._paused = False

    @property
    def burst(self) -> Burst | None:
        """The model's, if it has one."""
        return getattr(self.model, "burst", None)

    @property
    def burst_beams(self) -> BurstOfBeams | None:
        """The model's for beam search, if it has one."""
        return getattr(self.model, "burst_beams", None)

    @property
    def burst_texts(self) -> BurstOfTexts | None:
        """The model's for contrastive search, if it has one."""
        return getattr(self.model, "burst_texts", None)

    def forget(self) -> None:
        """Nothing is held of the rows that went on."""
        self._refused, self._paused = None, False

    def prepare(self, plan: Plan, scheduler: Scheduler) -> Prepared | None:
        """The plan's rows many steps further, their blocks reserved; None where the plan is one step."""
        paused, self._paused = self._paused, False
        if paused or plan is self._refused or any(group.rows[0].scored_from is not None for group in plan.groups):
            return None
        self._refused = plan
        if not plan.groups or len(plan.groups) < len(scheduler.running) or not all(map(_is_closed, plan.groups)):
            return None
        if _is_awaited(plan, scheduler):
            return None
        if self.burst is not None and _are_rows(plan) and self._takes(plan.groups):
            return self._rows(plan, scheduler)
        if are_texts(plan):
            return None if self.burst_texts is None else self._texts(plan, scheduler)
        if self.burst_beams is not None and _are_beams(plan) and self._records(plan.groups):
            return self._beams(plan, scheduler)
        return None

    def _takes(self, groups: Sequence[Group]) -> bool:
        """Whether the model takes the groups' rows, each of which chooses by itself."""
        strategies = [group.request.recipe.strategy for group in groups]
        return all(one == SAMPLE or isinstance(one, LayerContrast) for one in strategies) and self._accepts(groups)

    def _records(self, groups: Sequence[Group]) -> bool:
        """Whether the model can keep what is wanted of the groups' turns."""
        return not any(group.request.recipe.record.keeps for group in groups) or self._accepts(groups)

    def _accepts(self, groups: Sequence[Group]) -> bool:
        """Whether the model says nothing against the groups' recipes."""
        takes: Callable[[list[Recipe]], bool] = getattr(self.model, "takes_burst", lambda recipes: True)
        return takes([group.request.recipe for group in groups])

    def _rows(self, plan: Plan, scheduler: Scheduler) -> Prepared | None:
        for rooms in _halved([_room(group) for group in plan.groups]):
            rows = [_closed_row(group, group.rows[0], room) for group, room in zip(plan.groups, rooms, strict=True)]
            closed = close(rows, hurried=bool(scheduler.waiting))
            if closed is None:
                return None
            if _has_lists(closed[0]) and any(len(row.tokens) == row.prompt_length for row in rows):
                self._refused = None
                return None
            each = [room for group, room in zip(plan.groups, rooms, strict=True) for _ in group.members]
            if scheduler.reserve_ahead(plan, each):
                self._refused = None
                return partial(self._run_rows, plan.groups, *closed)
        return None

    def _beams(self, plan: Plan, scheduler: Scheduler) -> Prepared | None:
        turns = [_room(group) - 1 for group in plan.groups]  # the one that reaches the limit is the host's
        for rooms in _halved(turns) if min(turns) > 0 else ():
            groups = [_closed_group(group, room) for group, room in zip(plan.groups, rooms, strict=True)]
            closed = close_beams(groups, LONGEST, hurried=bool(scheduler.waiting))
            if closed is None:
                return None
            each = [room for group, room in zip(plan.groups, rooms, strict=True) for _ in group.members]
            if scheduler.reserve_ahead(plan, each):
                self._refused = None
                return partial(self._run_beams, plan.groups, *closed)
        return None

    def _texts(self, plan: Plan, scheduler: Scheduler) -> Prepared | None:
        for rooms in _halved([_room(group) + 1 for group in plan.groups]):  # in turns, of which the first is underway
            rows = [_closed_row(group, group.rows[0], room) for group, room in zip(plan.groups, rooms, strict=True)]
            texts = [text_of(group, row) for group, row in zip(plan.groups, rows, strict=True)]
            closed = close_texts(texts, hurried=bool(scheduler.waiting))
            if closed is None:
                return None
            counts = [counts_of(group, room) for group, room in zip(plan.groups, rooms, strict=True)]
            if scheduler.reserve_ahead(plan, [count for own in counts for count in own]):
                self._refused = None
                return partial(self._run_texts, plan.groups, texts, *closed)
        return None

    def _run_rows(self, groups: list[Group], form: Form, rows: ClosedRows, batch: Batch, cache: Any) -> list[Chosen]:
        """What each row got; where one got nothing the next step is no burst: an ordinary step says why."""
        assert self.burst is not None
        gained = self.burst(batch, cache, form, rows)
        for group, new in zip(groups, gained, strict=True):
            for row in group.members:
                row.advance(len(new))
        self._paused = not all(map(len, gained))
        each = zip(groups, gained, strict=True)
        return [(group, steps_of_burst(group.request.recipe.record, new), ()) for group, new in each if len(new)]

    def _run_beams(
        self, groups: list[Group], form: BeamForm, beams: ClosedBeams, batch: Batch, cache: Any
    ) -> list[Chosen]:
        """What each group did; where one did nothing the next step is no burst: an ordinary step says why."""
        assert self.burst_beams is not None
        made = self.burst_beams(batch, cache, form, beams)
        moves = [(group, own, _replayed(group, own)) for group, own in zip(groups, made, strict=True)]
        self._paused = any(move is None for _, _, move in moves)
        return [
            (group, move, kept_of_burst(group.request.recipe.record, move.scores, own.turns))
            for group, own, move in moves
            if move is not None
        ]

    def _run_texts(
        self,
        groups: list[Group],
        texts: list[ClosedText],
        form: ContrastiveForm,
        closed: ClosedTexts,
        batch: Batch,
        cache: Any,
    ) -> list[Chosen]:
        """What each text was settled to go on with; where there is nothing the next step is no burst."""
        assert self.burst_texts is not None
        settled = self.burst_texts(first_rows(batch, groups, form), cache, form, closed)
        self._paused = not all(map(len, settled))
        each = zip(groups, texts, settled, strict=True)
        return [(group, move_of(text, own), kept_of_text(group, own)) for group, text, own in each if len(own)]


def _is_closed(group: Group) -> bool:
    """Whether the group's rows need nobody to go on, and nobody waits for each of its tokens."""
    request, row = group.request, group.rows[0]
    return row.vectors is None and request.recipe.is_closed and not getattr(request.sink, "streams", True)


def _has_lists(form: Form) -> bool:
    """Whether a processor has lists, which a row's first turn by itself looks through for what is no token."""
    return any(column.looked_through for column in form.columns)


def _are_rows(plan: Plan) -> bool:
    """Whether each group is a row that computes its last token, there and after a negative prompt, and chooses."""
    whole = len(plan.work) == sum(len(group.members) for group in plan.groups)
    ready = len(plan.ready) == len(plan.groups) and not plan.copies
    return whole and ready and all(count == 1 for _, count in plan.work)


def _is_awaited(plan: Plan, scheduler: Scheduler) -> bool:
    """Whether other sequences wait for a prompt, of one token, that the plan computes: then they go on together."""
    return any(
        group.leader in plan.groups and group.leader.rows[0].computed < group.rows[0].length
        for group in scheduler.waiting
        if group.leader is not None
    )


def _are_beams(plan: Plan) -> bool:
    """Whether each group is a search behind its first turn, whose rows compute their last tokens and choose."""
    underway = all(group.carry is not None for group in plan.groups)
    return underway and len(plan.ready) == len(plan.groups) and all(count == 1 for _, count in plan.work)


def _room(group: Group) -> int:
    return group.request.recipe.limits.max_length - group.rows[0].length


def _halved(rooms: list[int]) -> Iterator[list[int]]:
    """The rooms, none above LONGEST, then what half of the longest leaves of them, and so on, while it is a burst."""
    most = min(LONGEST, max(rooms))
    while most > 1:
        yield [min(room, most) for room in rooms]
        most //= 2


def _closed_row(group: Group, row: Row, room: int) -> ClosedRow:
    """A row of the group; the stream is a search's first row's, which its draws are keyed by."""
    request, tokens = group.request, row.tokens[: row.length]
    negative = None if row.negative is None else row.negative.tokens[: row.negative.length]
    place = (row.prompt_length, row.blind, room, request.seed, group.rows[0].stream)
    return ClosedRow(tokens, *place, request.recipe, negative)


def _closed_group(group: Group, room: int) -> ClosedGroup:
    return ClosedGroup([_closed_row(group, row, room) for row in group.rows], group.carry)


def _replayed(group: Group, made: Made) -> Move | None:
    """The group's move through turns of which the candidates are known; their limits are its end tokens alone.

    None where there is none, or where a device that rounds otherwise made another.
    """
    if not len(made):
        return None
    search, eos = group.search, group.request.recipe.limits.eos

    def ends(row: int, token: int) -> FinishReason | None:
        return "stop" if token in eos else None

    move = replayed(search, group.carry, ends, made)
    if move is None or move.finished is not None:
        for row in group.members:  # what was written in their blocks is not theirs
            row.forget(row.computed // BLOCK * BLOCK)
    return move
