"""Searches that take their turns together: nobody's text changes, nobody else fails, and it is one turn."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fabula.cache.blocks import BLOCK
from fabula.decoding.beam_search import BeamSearch
from fabula.decoding.constrained_beams import ConstrainedBeamSearch
from fabula.decoding.constraints import DisjunctiveConstraint, PhrasalConstraint
from fabula.decoding.contrastive import ContrastiveSearch
from fabula.decoding.diverse_beams import DiverseBeamSearch
from fabula.decoding.recipe import Limits, Recipe, Record
from fabula.decoding.sample import SAMPLE
from fabula.engine.request import Request
from fabula.processors import LogitsProcessorList, RepetitionPenaltyLogitsProcessor, TopKLogitsWarper
from tests.engine.test_engine import Collected, engine_of, idle
from tests.engine.test_strategies_in_engine import Tapped

FORCED = (PhrasalConstraint([5, 6]), DisjunctiveConstraint([[9], [8, 4]]))
STRATEGIES = {
    "plain": SAMPLE,
    "beams": BeamSearch(3, 2, end_tokens=1),
    "more beams": BeamSearch(4, 1, end_tokens=1),
    "groups": DiverseBeamSearch(4, 2, 0.8, 2, end_tokens=1),
    "forced": ConstrainedBeamSearch(3, FORCED, end_tokens=1),
    "contrastive": ContrastiveSearch(3, 0.6),
}


class Everything(Collected):
    """A sink that keeps what a search gives, and what its turns were chosen from."""

    def __init__(self, rows):
        super().__init__(rows)
        self.turns, self.scores = [], []

    def found(self, row, hypothesis):
        self.scores.append((hypothesis.score, None if hypothesis.rows is None else hypothesis.rows.tolist()))

    def turned(self, kept):
        self.turns.append((kept.scores.tolist(), kept.logits.tolist()))


def request(mode, length, new=8, *, sampled=False, number=0, recorded=False, processors=None, eos=(3,)):
    chain = [RepetitionPenaltyLogitsProcessor(1.1 + 0.1 * (number % 2)), *([TopKLogitsWarper(20)] if sampled else [])]
    prompt = np.random.default_rng([length, number]).integers(0, 50, length).astype(np.int32)
    recipe = Recipe(
        LogitsProcessorList(chain if processors is None else processors),
        Limits(length + new, frozenset(eos)),
        sampled,
        Record(scores=True, logits=True) if recorded and mode != "plain" else Record(),
        STRATEGIES[mode],
    )
    one = Request(prompt, recipe, None, seed=5, stream=number)
    return replace(one, sink=Everything(one.results))


def facts(one):
    sink = one.sink
    return sink.tokens, sink.reasons, sink.scores, sink.turns, sink.error


@settings(max_examples=40, deadline=None)
@given(
    jobs=st.lists(
        st.tuples(
            st.sampled_from([*STRATEGIES, "beams", "beams"]),
            st.sampled_from([4, 4, 31, 40]),
            st.integers(1, 12),
            st.booleans(),
            st.booleans(),
        ),
        min_size=2,
        max_size=6,
    ),
    step_tokens=st.sampled_from([7, 64, 512]),
    max_rows=st.integers(5, 30),
    blocks=st.integers(16, 60),
)
def test_company_chunks_and_preemption_change_no_search(jobs, step_tokens, max_rows, blocks):
    def build():
        return [
            request(mode, length, new, sampled=sampled and "beams" in mode, number=number, recorded=recorded)
            for number, (mode, length, new, sampled, recorded) in enumerate(jobs)
        ]

    alone, together = build(), build()
    for one in alone:
        engine_of(Tapped()).run([one])
        assert one.sink.error is None
    engine = engine_of(Tapped(), step_tokens=step_tokens, max_rows=max_rows, max_positions=blocks * BLOCK)
    engine.run(together)
    assert [facts(one) for one in together] == [facts(one) for one in alone]
    idle(engine)


@dataclass(frozen=True, slots=True)
class Counted(BeamSearch):
    """Beam search that says with how many sequences it is asked."""

    asked: tuple = ()

    def advance(self, turn, underway):
        self.asked[0].append(len(underway))
        return BeamSearch.advance(self, turn, underway)


def test_equal_searches_at_the_same_point_take_one_turn():
    turns = []
    count = Counted(2, end_tokens=1, asked=(Turns(turns),))
    several = [request("beams", 5, 6, number=number, eos=()) for number in range(3)]
    other = replace(count, num_beams=3)
    together = [with_strategy(one, count) for one in several]
    unlike = with_strategy(request("beams", 5, 6, number=3, eos=()), other)
    drawn = with_strategy(request("beams", 5, 6, number=4, eos=(), sampled=True), count)
    engine_of(Tapped()).run([*together, unlike, drawn])
    assert turns == [3, 1, 1] * 6  # those that draw, and those of other beams, take turns of their own


def test_one_call_of_the_processors_serves_all_sequences():
    class Seen(RepetitionPenaltyLogitsProcessor):
        """Says how many rows it is given."""

        def process(self, scores, context):
            rows.append(len(scores))
            return super().process(scores, context)

    rows, shared = [], LogitsProcessorList([Seen(1.2)])
    several = [request("beams", 5, 6, number=number, processors=shared, eos=()) for number in range(3)]
    engine_of(Tapped()).run(several)
    assert rows == [3] + [9] * 5


class Turns(list):
    """A list that stands for itself where searches are compared."""

    __hash__ = object.__hash__

    def __init__(self, turns):
        self.append = turns.append


def with_strategy(one, strategy):
    one = replace(one, recipe=replace(one.recipe, strategy=strategy))
    return replace(one, sink=Everything(one.results))


class Failing(RepetitionPenaltyLogitsProcessor):
    """Raises once a row is so long."""

    def __init__(self, length):
        super().__init__(1.2)
        self.length = length

    def process(self, scores, context):
        if (context.lengths > self.length).any():
            raise ValueError("too long")
        return super().process(scores, context)


@pytest.mark.parametrize("mode", [mode for mode in STRATEGIES if mode != "plain"])
def test_a_processor_that_raises_fails_its_own_search_only(mode):
    def build():
        return [request(mode, 5, 9, number=number, eos=()) for number in range(3)]

    alone, together = build(), build()
    engine_of(Tapped()).run(alone)
    broken = request(mode, 5, 9, number=3, processors=[Failing(8)], eos=())
    engine = engine_of(Tapped())
    engine.run([together[0], broken, *together[1:]])
    assert isinstance(broken.sink.error, ValueError)
    assert [facts(one) for one in together] == [facts(one) for one in alone]
    idle(engine)


@pytest.mark.parametrize("mode", [mode for mode in STRATEGIES if mode != "plain"])
def test_logits_without_a_number_fail_their_own_search_only(mode):
    class Lost(Tapped):
        """No number comes after a text that began with 49."""

        def next_logits(self, tokens):
            logits = super().next_logits(tokens)
            return logits * np.float32("nan") if tokens[0] == 49 and len(tokens) > 7 else logits

    several = [request(mode, 5, 9, number=number, eos=()) for number in range(3)]
    for one in several:
        one.prompt[0] = 1
    lost = request(mode, 5, 9, number=3, eos=())
    lost.prompt[0] = 49
    engine = engine_of(Lost())
    engine.run([*several, lost])
    assert type(lost.sink.error).__name__ == "NumericalError"
    assert [one.sink.error for one in several] == [None] * 3
    assert all(sink.reasons[0] == "length" for sink in (one.sink for one in several))
    idle(engine)
