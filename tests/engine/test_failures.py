"""Whatever raises, wherever it raises: its own request fails with that error, and no other row notices."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest

from fabula.decoding.beam_search import BeamSearch
from fabula.decoding.prompt_lookup import PromptLookup
from fabula.decoding.recipe import Limits, Recipe, Record
from fabula.engine.engine import Engine
from fabula.engine.request import Kept, Request
from fabula.ops.protocol import NO_TAPS
from fabula.processors import LogitsProcessorList
from fabula.testing.hash_model import HashModel
from tests.engine.test_engine import Collected, engine_of, greedy, idle, request


class Full(Collected):
    """A sink that takes a search's results too, and counts its calls."""

    def __init__(self, rows=1, raises_at=None):
        super().__init__(rows)
        self.calls, self.raises_at = 0, raises_at

    def count(self):
        self.calls += 1
        if self.calls == self.raises_at:
            raise ValueError("the sink is full")

    def put(self, row, step):
        super().put(row, step)
        self.count()

    def end(self, row, reason):
        super().end(row, reason)
        self.count()

    def found(self, row, hypothesis):
        self.count()


def with_recipe(one, **changes):
    return replace(one, recipe=replace(one.recipe, **changes))


@pytest.mark.parametrize("search", [None, BeamSearch(3, 2)])
def test_what_a_sink_raises_is_never_lost(search):
    def ask(raises_at):
        one = request([1, 2], new=4)
        one = with_recipe(one, strategy=search) if search is not None else one
        return replace(one, sink=Full(one.results, raises_at))

    whole = ask(None)
    engine_of(HashModel()).run([whole])
    assert whole.sink.error is None
    for call in range(1, whole.sink.calls + 1):
        one, other, engine = ask(call), request([3, 4]), engine_of(HashModel())
        engine.run([one, other])
        assert isinstance(one.sink.error, ValueError), f"call {call} of {whole.sink.calls}"
        assert other.sink.error is None and len(other.sink.tokens[0]) == 10
        idle(engine)


@pytest.mark.parametrize("method", ["propose", "judged", "forget"])
def test_a_drafter_that_raises_fails_its_own_request(method):
    class Broken:
        """Drafts by lookup until one of its methods fails."""

        propose, judged, forget = PromptLookup(3).propose, PromptLookup(3).judged, PromptLookup(3).forget

    drafter = Broken()
    setattr(drafter, method, lambda *arguments: 1 / 0)
    drafted, other = with_recipe(request([1, 2, 3] * 9, new=30), drafter=drafter), request([3, 4], new=30)
    engine = engine_of(HashModel(3))
    engine.run([drafted, other])
    assert isinstance(drafted.sink.error, ZeroDivisionError)
    assert other.sink.tokens[0] == greedy(HashModel(3), [3, 4], 30)
    idle(engine)


def test_a_sink_is_told_before_its_ticket_is_done():
    told = []

    class Watching(Collected):
        """A sink that looks at its ticket."""

        def end(self, row, reason):
            told.append(ticket.done)

        def fail(self, error):
            told.append(ticket.done)

    engine = engine_of(HashModel())
    for cancelled in (False, True):
        ticket = engine.submit(replace(request([1, 2], new=2), sink=Watching()))
        ticket.cancelled = cancelled
        while not ticket.done:
            engine.step()
    assert told == [False, False]
    idle(engine)


def test_a_criterion_that_raises_once_is_not_asked_again():
    asked = []

    def criterion(ids, prompt_length):
        asked.append(len(ids))
        if len(asked) == 3:
            raise ValueError("once")
        return False

    searching = with_recipe(request([1, 2], ends=(criterion,)), strategy=BeamSearch(3))
    searching = replace(searching, sink=Full())
    other, engine = request([3, 4]), engine_of(HashModel())
    engine.run([searching, other])
    assert isinstance(searching.sink.error, ValueError) and len(asked) == 3
    assert len(other.sink.tokens[0]) == 10
    idle(engine)


def test_a_tokenizer_that_raises_where_a_row_begins_fails_its_own_request():
    broken = request([1, 2], stop_strings=("a",), pieces=lambda: 1 / 0)
    other, engine = request([3, 4]), engine_of(HashModel())
    engine.run([broken, other])
    assert isinstance(broken.sink.error, ZeroDivisionError) and len(other.sink.tokens[0]) == 10
    idle(engine)


class Leaves(Collected):
    """A sink that raises what is no Exception at its fifth token."""

    def __init__(self, error):
        super().__init__()
        self.leaves_with = error

    def put(self, row, step):
        super().put(row, step)
        if len(self.tokens[0]) == 5:
            raise self.leaves_with


def test_a_step_that_is_broken_off_is_taken_again():
    model = HashModel()
    engine = engine_of(model)
    leaving = replace(request([1, 2], new=50), sink=Leaves(KeyboardInterrupt()))
    others = [request([i, i + 1] * 20, new=60, rows=2) for i in range(3)]
    tickets = [engine.submit(other) for other in others]
    with pytest.raises(KeyboardInterrupt):
        engine.run([leaving])
    while not all(ticket.done for ticket in tickets):
        engine.step()
        assert model.steps < 500, "nothing goes on"
    assert [other.sink.tokens for other in others] == [[greedy(model, o.prompt.tolist(), 60)] * 2 for o in others]
    idle(engine)


def test_a_copy_that_fails_leaves_no_row_with_less_than_it_counts():
    model = HashModel()
    engine = engine_of(model)
    requests = [request(list(range(40)), rows=3, sampled=True), request([5, 6])]
    expected = [request(list(range(40)), rows=3, sampled=True), request([5, 6])]
    engine_of(HashModel()).run(expected)
    tickets, copy = [engine.submit(one) for one in requests], engine.storage.copy
    engine.storage.copy = lambda sources, targets: 1 / 0
    with pytest.raises(ZeroDivisionError):
        while not all(ticket.done for ticket in tickets):
            engine.step()
    engine.storage.copy = copy
    while not all(ticket.done for ticket in tickets):
        engine.step()
    assert [one.sink.tokens for one in requests] == [one.sink.tokens for one in expected]
    idle(engine)


class Recording(HashModel):
    """A model of one layer whose hidden states are zero."""

    layers = (0,)

    def step(self, batch, cache, taps=NO_TAPS):
        forward = super().step(batch, cache, taps)
        states = np.zeros((len(forward.logits), 2), np.float32)
        return replace(forward, hidden=states, hidden_states={0: states}) if taps.hidden_states else forward


def test_a_prompt_that_needs_a_step_of_its_own_is_not_passed_by_for_ever():
    model = Recording()
    engine = Engine(model, max_positions=4096, step_tokens=16)
    prompt = list(range(40))
    recipe = Recipe(LogitsProcessorList(), Limits(44), record=Record(hidden_states=True))
    large = Request(np.array(prompt, np.int32), recipe, Collected())
    engine.submit(request([1], new=12))
    engine.submit(large)
    for number in range(200):  # there is always a younger row that chooses
        if number % 6 == 0:
            engine.submit(request([2, number % 50], new=12))
        engine.step()
    assert large.sink.tokens[0] == greedy(HashModel(), prompt, 4)


def test_the_same_plan_serves_while_others_wait():
    engine = engine_of(HashModel(), max_rows=1)
    for prompt in ([1, 2], [3, 4]):
        engine.submit(request(prompt))
    engine.step()
    engine.step()
    plan = engine.scheduler.plan()
    assert engine.scheduler.waiting and engine.scheduler.plan() is plan


def test_what_is_kept_of_some_rows_is_kept_of_all_kinds():
    kinds = ("hidden_states", "attentions", "cross_attentions")
    kept = Kept(**{kind: [(f"{kind} {row}",) for row in range(3)] for kind in kinds}).of(np.array([2]))
    assert {kind: getattr(kept, kind) for kind in kinds} == {kind: [(f"{kind} 2",)] for kind in kinds}


def test_what_a_callback_exits_with_reaches_its_own_call_whoever_steps():
    model = HashModel()
    engine = engine_of(model)
    working = [request([i, i + 1], new=30) for i in range(3)]
    leaving = [replace(request([9, i], new=30), sink=Leaves(SystemExit(i))) for i in range(3)]
    threads = [threading.Thread(target=engine.run, args=([one],), daemon=True) for one in [*leaving, *working]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    assert [one.sink.error.code for one in leaving] == [0, 1, 2]
    assert [one.sink.tokens[0] for one in working] == [greedy(model, [i, i + 1], 30) for i in range(3)]
    idle(engine)
