"""The loop: admit, plan, compute, choose, commit; any number of threads may run requests on one engine."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from fabula import arrays
from fabula.cache.blocks import BlockPool, blocks_for
from fabula.engine.batch import build_batch
from fabula.engine.choose import Chooser
from fabula.engine.interrupt import DeferredInterrupt
from fabula.engine.request import FinishReason, Request, Step
from fabula.engine.row import Row
from fabula.engine.scheduler import Scheduler
from fabula.errors import CancelledError, OutOfMemoryError
from fabula.ops.protocol import NO_TAPS, Batch, Forward, Taps


class Storage(Protocol):
    """Where keys and values lie, in blocks."""

    blocks: int
    nbytes: int

    def copy(self, sources: Sequence[int], targets: Sequence[int]) -> None: ...

    def grow(self, blocks: int) -> None: ...


class Model(Protocol):
    """All that the engine knows of a model; it may also have a `sampler` (decoding/plain_rows.py)."""

    def new_cache(self, blocks: int) -> Storage: ...

    def step(self, batch: Batch, cache: Any, taps: Taps = NO_TAPS) -> Forward: ...


@dataclass(eq=False, slots=True)
class Ticket:
    """A request in the engine."""

    request: Request
    started: float = field(default_factory=time.monotonic)
    rows: list[Row] = field(default_factory=list)  # those that have not ended
    cancelled: bool = False
    done: bool = False


class Engine:
    """Rows of all requests, advanced together; see `Scheduler` for who goes when.

    `max_positions` bounds the cache, in positions over all rows; rows beyond it wait, or are computed again later.
    """

    def __init__(self, model: Model, *, max_positions: int, step_tokens: int = 512, max_rows: int = 256) -> None:
        self.model = model
        self.max_blocks = blocks_for(max_positions)
        self.storage = model.new_cache(min(16, self.max_blocks))
        self.pool = BlockPool(self.storage.blocks)
        self.scheduler = Scheduler(self.pool, self._grow, tokens=step_tokens, rows=max_rows)
        self.chooser = Chooser(getattr(model, "sampler", None))
        self.inbox: deque[Ticket] = deque()
        self.tickets: dict[int, Ticket] = {}  # by id(request)
        self.turn = threading.Condition()
        self.stepping = False
        self._stepper: int | None = None  # the thread that steps

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
                    for ticket in tickets:
                        ticket.cancelled |= interrupt.pending
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

    def step(self) -> None:
        """Admits what has arrived, computes one batch, and hands out the tokens that were chosen."""
        self._admit()
        try:
            plan = self.scheduler.plan()
        except OutOfMemoryError as error:
            self._fail(self.scheduler.running[0].request, error)
            return
        if not plan.work:
            return
        if plan.copies:
            self.storage.copy(*(list(blocks) for blocks in zip(*plan.copies, strict=True)))
        batch, choosing = build_batch(plan.work)
        try:
            forward = self.model.step(batch, self.storage)
        except Exception as error:
            for request in {id(row.request): row.request for row, _ in plan.work}.values():
                self._fail(request, error)
            return
        for row, count in plan.work:
            row.computed += count
        for row, step in self._choose(choosing, forward.logits):
            self._commit(row, step)

    def _choose(self, rows: list[Row], logits: Any) -> list[tuple[Row, Step]]:
        """The rows' next tokens. Where a request's processors raise, that request fails, and no other."""
        if not rows:
            return []
        try:
            return list(zip(rows, self.chooser.choose(rows, logits), strict=True))
        except Exception as error:
            requests = {id(row.request): row.request for row in rows}
            if len(requests) == 1:
                self._fail(rows[0].request, error)
                return []
        xp, chosen = arrays.of(logits), []
        for request in requests.values():
            places = np.array([index for index, row in enumerate(rows) if row.request is request], np.int32)
            part = xp.take(logits, xp.asarray(places, "int32", like=logits))
            chosen += self._choose([rows[index] for index in places], part)
        return chosen

    def _admit(self) -> None:
        while self.inbox:
            ticket = self.inbox.popleft()
            request = ticket.request
            self.tickets[id(request)] = ticket
            leader = Row(request, 0, self.pool)
            ticket.rows = [leader, *(Row(request, index, self.pool, leader) for index in range(1, request.rows))]
            for row in ticket.rows:
                self.scheduler.add(row)
        for ticket in [ticket for ticket in self.tickets.values() if ticket.cancelled]:
            self._fail(ticket.request, CancelledError("the run was cancelled"))

    def _commit(self, row: Row, step: Step) -> None:
        """The row's next token: appended, delivered, and perhaps its last."""
        ticket = self.tickets.get(id(row.request))
        if ticket is None or row not in ticket.rows:
            return  # its request failed earlier in this step
        row.append(step.token)
        try:
            row.request.sink.put(row.index, step)
            reason = self._reason_to_end(row, ticket, step.token)
            if reason is not None:
                self._end(row, ticket, reason)
        except Exception as error:
            self._fail(row.request, error)

    def _reason_to_end(self, row: Row, ticket: Ticket, token: int) -> FinishReason | None:
        limits = row.request.recipe.limits
        if token in limits.eos or row.completes_stop_string(token):
            return "stop"
        if any(ends(row.tokens[: row.length], row.prompt_length) for ends in limits.ends):
            return "stop"
        if row.length >= limits.max_length:
            return "length"
        if limits.max_time is not None and time.monotonic() - ticket.started > limits.max_time:
            return "time"
        return None

    def _end(self, row: Row, ticket: Ticket, reason: FinishReason) -> None:
        self.scheduler.remove(row)
        ticket.rows.remove(row)
        if not ticket.rows:
            self._close(ticket)
        row.request.sink.end(row.index, reason)

    def _fail(self, request: Request, error: BaseException) -> None:
        ticket = self.tickets.get(id(request))
        if ticket is None:
            return
        for row in ticket.rows:
            self.scheduler.remove(row)
        ticket.rows = []
        self._close(ticket)
        request.sink.fail(error)

    def _close(self, ticket: Ticket) -> None:
        ticket.done = True
        del self.tickets[id(ticket.request)]

    def _grow(self, blocks: int) -> bool:
        """More cache, at least doubling it, up to the bound."""
        wanted = min(max(self.pool.blocks + blocks, 2 * self.pool.blocks), self.max_blocks)
        if wanted <= self.pool.blocks:
            return False
        try:
            self.storage.grow(wanted)
        except OutOfMemoryError:  # what is planned stands; younger rows make room instead
            return False
        self.pool.grow(wanted)
        return True
