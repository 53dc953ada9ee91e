"""The loop: admit, plan, compute, choose, commit; any number of threads may run requests on one engine."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

from fabula.cache.blocks import BlockPool, blocks_for
from fabula.cache.stamp import Stamp
from fabula.decoding.strategy import Ends, Hypothesis, Move
from fabula.engine.batch import Builder, batch_of
from fabula.engine.burst import Bursts
from fabula.engine.choose import Chooser, Chosen
from fabula.engine.drafting import accepted, draft, forget, judge
from fabula.engine.group import Group, groups_of
from fabula.engine.interrupt import DeferredInterrupt
from fabula.engine.keeping import Keeper
from fabula.engine.model import Model, window_of
from fabula.engine.prompt_scores import score_prompts
from fabula.engine.request import Kept, PromptScores, Request, Step
from fabula.engine.scheduler import Plan, Scheduler
from fabula.engine.taps import taps_of
from fabula.engine.ticket import Ticket
from fabula.errors import CancelledError, OutOfMemoryError
from fabula.ops.protocol import NO_TAPS, Forward

T = TypeVar("T")


class Engine:
    """Rows of all requests, advanced together; see `Scheduler` for who goes when.

    `max_positions` bounds the cache, in positions over all rows; rows beyond it wait, or are computed again later.
    """

    def __init__(self, model: Model, *, max_positions: int, step_tokens: int = 512, max_rows: int = 256) -> None:
        self.model = model
        self.max_blocks = blocks_for(max_positions)
        self.storage = model.new_cache(min(16, self.max_blocks))
        self.pool = BlockPool(self.storage.blocks, window_of(model))
        self.keeper = Keeper(self.pool)
        self.scheduler = Scheduler(self.pool, self._grow, tokens=step_tokens, rows=max_rows)
        self.bursts = Bursts(model)
        self.builder = Builder()
        self.chooser = Chooser(getattr(model, "sampler", None))
        self.inbox: deque[Ticket] = deque()
        self.tickets: dict[int, Ticket] = {}  # by id(request)
        self._stamp = _stamp_of(model)
        self.turn = threading.Condition()
        self.stepping = False
        self._stepper: int | None = None  # the thread that steps
        self._special = 0  # requests that ask for more than tokens, their scores and logits

    @property
    def _plain(self) -> bool:
        """Whether no request asks for more than tokens, their scores and logits."""
        return not self._special

    @property
    def steps_here(self) -> bool:
        """Whether this thread is inside a step: it runs a caller's own processor, criterion or streamer."""
        return self._stepper == threading.get_ident()

    def submit(self, request: Request) -> Ticket:
        """Queues a request; it advances as soon as somebody steps."""
        ticket = Ticket(request)
        self.inbox.append(ticket)
        return ticket

    def run(self, requests: Iterable[Request]) -> None:
        """Steps until the requests have ended, each in its sink. Ctrl-C ends them within a step and is raised."""
        tickets = [self.submit(request) for request in requests]
        try:
            with DeferredInterrupt() as interrupt:
                while not all(ticket.done for ticket in tickets):
                    for ticket in tickets if interrupt.pending else ():
                        ticket.cancelled = True
                    self._step_or_wait(tickets)
        finally:
            for ticket in tickets:  # left undone by an exception: whoever steps next drops them
                ticket.cancelled = True

    def _step_or_wait(self, tickets: list[Ticket]) -> None:
        """One thread steps, for everybody; the others wait for the step's end."""
        with self.turn:
            if self.stepping:
                self.turn.wait()
                return
            if all(ticket.done for ticket in tickets):
                return
            self.stepping, self._stepper = True, threading.get_ident()
        try:
            self.step()
        finally:
            with self.turn:
                self.stepping, self._stepper = False, None
                self.turn.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """While active no thread steps, so that blocks may be read and written."""
        with self.turn:
            while self.stepping:
                self.turn.wait()
            self.stepping = True
        try:
            yield
        finally:
            with self.turn:
                self.stepping = False
                self.turn.notify_all()

    def reserve(self, blocks: int) -> None:
        """Makes so many blocks free, up to the bound, while this thread is alone. Raises OutOfMemoryError."""
        self.keeper.drain()
        total = min(self.pool.blocks + blocks - len(self.pool.free), self.max_blocks)
        if total > self.pool.blocks:
            self.storage.grow(total)
            self.pool.grow(total)

    def step(self) -> None:
        """Admits what has arrived, computes one batch, and hands out the tokens that were chosen."""
        self._admit()
        if not self._plain:
            self.scheduler.admit()
            draft(list(self.scheduler.running), self.scheduler.tokens - 1, self._fail)
        try:
            plan = self.scheduler.plan()
        except OutOfMemoryError as error:
            self._fail(self.scheduler.running[0].request, error)
            return
        if not plan.work:
            return
        try:
            if not self._advance_far(plan):
                self._advance(plan)
        except BaseException:  # a second Ctrl-C, a copy that failed: what was computed is computed again
            self.scheduler.start_over()
            raise

    def _advance(self, plan: Plan) -> None:
        """Computes a plan, and commits what its groups choose."""
        self._copy(plan)
        built = self.builder.build(plan)
        taps = NO_TAPS if self._plain else taps_of(plan.groups, self.model)
        forward = self._computed(plan, lambda: self.model.step(built.batch, self.storage, taps))
        if forward is None:
            return
        for row, count in plan.work:
            row.advance(count)
        if not self._plain:
            score_prompts(plan, forward.logits, built.spans)
        for group, chosen, kept in self._choose(plan.ready, forward, built.spans):
            self._answer(group, chosen, () if kept is None else (kept,))

    def _advance_far(self, plan: Plan) -> bool:
        """Many steps of a plan at once, if its rows allow that, and commits what they chose."""
        burst = self.bursts.prepare(plan, self.scheduler)
        if burst is None:
            return False
        self._copy(plan)
        for group, chosen, kept in self._computed(plan, lambda: burst(batch_of(plan), self.storage)) or ():
            self._answer(group, chosen, kept)
        return True

    def _copy(self, plan: Plan) -> None:
        if plan.copies:
            self.storage.copy(*(list(blocks) for blocks in zip(*plan.copies, strict=True)))

    def _computed(self, plan: Plan, compute: Callable[[], T]) -> T | None:
        """What the model makes of the plan; None where it raised, and the requests have failed."""
        try:
            return compute()
        except Exception as error:
            for request in {id(group.request): group.request for group in plan.groups}.values():
                self._fail(request, error)
            return None

    def _choose(self, groups: list[Group], forward: Forward, spans: dict[int, tuple[int, int]]) -> list[Chosen]:
        """What the groups do next. Where a request's processors raise, that request fails, and no other."""
        return self.chooser.choose(groups, forward, spans, self._ends, self._fail) if groups else []

    def _ends(self, group: Group) -> Ends:
        return self.tickets[id(group.request)].ends(group)

    def _admit(self) -> None:
        self.keeper.drain()
        if self.inbox:
            self._forget_what_changed()
        while self.inbox:
            ticket = self.inbox.popleft()
            request = ticket.request
            self.tickets[id(request)] = ticket
            self._special += not request.recipe.is_plain
            try:
                ticket.groups = groups_of(request, self.pool)
            except Exception as error:  # a tokenizer of the caller's own, whose text stop strings are looked for in
                self._fail(request, error)
            for group in ticket.groups:
                self.scheduler.add(group)
        for ticket in [ticket for ticket in self.tickets.values() if ticket.cancelled]:
            self._fail(ticket.request, CancelledError("the run was cancelled"))

    def _forget_what_changed(self) -> None:
        """What was computed with other weights than the model's is not found again."""
        now = _stamp_of(self.model)
        if now is None or (self._stamp is not None and self._stamp.stands(now)):
            return
        self._stamp = now
        self.pool.prefixes.clear()
        for group in self.scheduler.running:
            for row in group.members:
                row.salt = None

    def _answer(self, group: Group, chosen: list[Step] | Move, kept: Sequence[Kept]) -> None:
        """Commits what a group chose; what its callbacks raise ends its request, and no other."""
        ticket = self.tickets.get(id(group.request))
        if ticket is None or group not in ticket.groups:
            return  # its request failed earlier in this step
        try:
            if group.rows[0].scored_from is not None:
                self._begin(group)
            if isinstance(chosen, Move):
                self._move(group, ticket, chosen, kept)
            else:
                self._commit(group, ticket, chosen)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # sys.exit() in a callback, too, is its own call's and not the stepping thread's
            self._fail(group.request, error)

    def _commit(self, group: Group, ticket: Ticket, steps: list[Step]) -> None:
        """A row's next tokens: appended and delivered, drafted ones as far as they stand; perhaps its last."""
        row, sink, kept = group.rows[0], group.request.sink, len(steps) - 1
        if row.drafts:
            kept = accepted(row, steps)
            judge(group, kept)
            row.settle(row.length + kept)
        for step in steps[: kept + 1]:
            row.append(step.token)
            sink.put(group.index, step)
            completes = row.stops is not None and row.completes_stop_string(step.token)
            reason = ticket.reason_to_end(row, step.token, completes)
            if reason is not None:
                if group.request.recipe.record.past:
                    sink.kept(group.index, self.keeper.keep(row))
                sink.end(group.index, reason)
                self._end(group, ticket)
                return

    def _move(self, group: Group, ticket: Ticket, move: Move, kept: Sequence[Kept]) -> None:
        """A search's move: its rows change, or its results are delivered."""
        sink = group.request.sink
        for turn in kept if move.recorded is None or len(move.recorded) else ():
            sink.turned(turn if move.recorded is None else turn.of(move.recorded))
        for token in move.settled:
            sink.put(group.index, Step(token))
        group.settled += len(move.settled)
        if move.written is not None:
            group.become_one(move.written)
        if move.finished is None:
            group.carry = move.carry
            (group.move if move.tokens.ndim == 1 else group.descend)(move)
            self.scheduler.moved(group)
            return
        self._deliver(group, move.finished)
        self._end(group, ticket)

    def _deliver(self, group: Group, results: Sequence[Hypothesis]) -> None:
        """A search's results, best first, of which the first is partly shown."""
        sink = group.request.sink
        if group.request.recipe.record.past:
            for place, one in enumerate(self.keeper.keep_results(group, [result.tokens for result in results])):
                sink.kept(place, one)
        for place, hypothesis in enumerate(results):
            sink.found(place, hypothesis)
            shown = group.settled if place == 0 else 0
            for token in hypothesis.tokens[shown:].tolist():
                sink.put(place, Step(token))
            sink.end(place, hypothesis.reason)

    def _begin(self, group: Group) -> None:
        """The first turn of a group that gives what is wanted of the whole prompt."""
        row = group.rows[0]
        row.scored_from, row.at_once = None, False
        if group.request.recipe.record.prompt:
            group.request.sink.scored(PromptScores.of(row.prompt_scores))
            row.prompt_scores = []

    def _end(self, group: Group, ticket: Ticket) -> None:
        self.scheduler.remove(group)
        ticket.groups.remove(group)
        forget(group)
        if not ticket.groups:
            self._close(ticket)

    def _fail(self, request: Request, error: BaseException) -> None:
        ticket = self.tickets.get(id(request))
        if ticket is None:
            return
        for group in ticket.groups:
            self.scheduler.remove(group)
            with suppress(Exception):  # what ended the request came first
                forget(group)
        ticket.groups = []
        try:
            request.sink.fail(error)
        finally:  # who waits for the ticket finds that its sink was told
            self._close(ticket)

    def _close(self, ticket: Ticket) -> None:
        ticket.done = True
        del self.tickets[id(ticket.request)]
        self._special -= not ticket.request.recipe.is_plain
        if not self.tickets:  # nothing of the last step, such as what its rows continued, is held while idle
            self.builder, self.chooser = Builder(), Chooser(getattr(self.model, "sampler", None))
            self.bursts.forget()

    def _grow(self, blocks: int) -> bool:
        """More cache, at least doubling it, up to the bound; then what rows left that have ended."""
        wanted = min(max(self.pool.blocks + blocks, 2 * self.pool.blocks), self.max_blocks)
        if wanted <= self.pool.blocks:
            return self.keeper.reclaim()
        try:
            self.storage.grow(wanted)
        except OutOfMemoryError:  # what is planned stands; younger rows make room instead
            return self.keeper.reclaim()
        self.pool.grow(wanted)
        return True


def _stamp_of(model: Any) -> Stamp | None:
    """The model's weights as they are; None where they never change."""
    stamp: Callable[[], Stamp] | None = getattr(model, "weights_stamp", None)
    return None if stamp is None else stamp()
