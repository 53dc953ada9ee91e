"""Bursts of beam search give what its turns give one by one, and leave the rows as if they had taken them."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fabula.cache.blocks import BLOCK
from fabula.decoding.beam_rows import Ranking
from fabula.decoding.beam_search import BeamSearch
from fabula.decoding.constrained_beams import ConstrainedBeamSearch
from fabula.decoding.constraints import DisjunctiveConstraint, PhrasalConstraint
from fabula.decoding.diverse_beams import DiverseBeamSearch
from fabula.decoding.recipe import Limits, Recipe, Record
from fabula.decoding.sample import SAMPLE
from fabula.engine.request import Request
from fabula.errors import NumericalError
from fabula.processors import (
    LogitsProcessor,
    LogitsProcessorList,
    MinNewTokensLengthLogitsProcessor,
    NoRepeatNGramLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    UnbatchedClassifierFreeGuidanceLogitsProcessor,
)
from tests.engine.burst_model import BurstModel, Stepping
from tests.engine.test_burst import Gathered
from tests.engine.test_engine import engine_of, idle

ENDS = [(), (3,), (3, 7, 11, 12, 13)]
NOTHING = Record()
RECORDS = [NOTHING, NOTHING, Record(scores=True), Record(logits=True), Record(scores=True, logits=True)]
FORCED = [
    (),
    (),
    (PhrasalConstraint([5, 6]), DisjunctiveConstraint([[5, 8], [9, 10, 11]])),
    (PhrasalConstraint([20, 21, 22]),),
    (PhrasalConstraint([30]), PhrasalConstraint([31]), DisjunctiveConstraint([[3], [32, 33]])),
]
CHAINS = [
    ([], False),
    ([RepetitionPenaltyLogitsProcessor(1.7)], False),
    ([NoRepeatNGramLogitsProcessor(2)], False),
    ([], True),
    ([TemperatureLogitsWarper(0.7), TopKLogitsWarper(14)], True),
]


class Searched(Gathered):
    """A sink that keeps what a search found, with its scores and the beams that it came by."""

    def __init__(self, rows, streams=False):
        super().__init__(rows, streams)
        self.scores = []
        self.turns = []

    def found(self, row, hypothesis):
        self.scores.append((hypothesis.score, hypothesis.rows.tolist()))

    def turned(self, kept):
        parts = (kept.scores, kept.logits)
        self.turns.append([None if part is None else np.float32(part).tolist() for part in parts])

    @property
    def everything(self):
        return self.tokens, self.reasons, self.scores, self.turns, self.error


def request(
    length,
    new=10,
    beams=3,
    chain=0,
    eos=(),
    ranking=None,
    least=0,
    streams=False,
    record=NOTHING,
    groups=1,
    forced=(),
    guided=0,
    **limits,
):
    """A search with a prompt of its own for each length; `guided`: the length of its negative prompt."""
    prompt = np.random.default_rng(length).integers(0, 50, length).astype(np.int32)
    processors, sampled = CHAINS[chain]
    processors = LogitsProcessorList(processors)
    if least:
        processors.append(MinNewTokensLengthLogitsProcessor(length, least, list(eos)))
    if guided:
        processors.insert(0, UnbatchedClassifierFreeGuidanceLogitsProcessor(1.5, None))
    ranking = Ranking(*(ranking or ()), most_new=new)
    search = BeamSearch(beams, min(2, beams), ranking, len(eos))
    if groups > 1:
        search = DiverseBeamSearch(groups * beams, groups, 0.3 * groups, 2, ranking, len(eos), padding=1)
    if forced:
        search = ConstrainedBeamSearch(beams, forced, min(2, beams), ranking, len(eos))
    recipe = Recipe(processors, Limits(length + new, frozenset(eos), **limits), sampled, record, search)
    negative = np.arange(guided, dtype=np.int32) if guided else None
    return Request(prompt, recipe, Searched(search.results, streams), 7, length, negative=negative)


def run(model, requests, **options):
    engine = engine_of(model, **options)
    engine.run(requests)
    idle(engine)
    return [one.sink.everything for one in requests]


@settings(max_examples=30, deadline=None)
@given(
    searches=st.lists(
        st.fixed_dictionaries(
            {
                "length": st.integers(1, 70),
                "new": st.integers(2, 40),
                "beams": st.sampled_from([3, 3, 4]),
                "chain": st.integers(0, len(CHAINS) - 1),
                "eos": st.sampled_from(ENDS),
                "ranking": st.sampled_from([(1.0, False), (0.3, True), (2.0, "never"), (-1.0, False), (-0.5, "never")]),
                "least": st.integers(0, 4),
                "groups": st.sampled_from([1, 1, 2]),
                "forced": st.sampled_from(FORCED),
                "record": st.sampled_from(RECORDS),
                "guided": st.sampled_from([0, 0, 1, 5, 40]),
            }
        ),
        min_size=1,
        max_size=3,
        unique_by=lambda one: one["length"],
    ),
    alike=st.booleans(),
    step_tokens=st.sampled_from([17, 512]),
    blocks=st.integers(32, 60),  # eight rows of 110 positions, which share fewer blocks after a burst than step by step
    framework=st.sampled_from(["numpy", "torch"]),
)
@example(  # a group that a loop has ended, beside one that goes on step by step
    searches=[{"length": 1, "new": 5, "eos": (3,), "ranking": (0.3, True), "groups": 2, "record": Record(scores=True)}],
    alike=False,
    step_tokens=17,
    blocks=32,
    framework="torch",
)
@example(  # a burst between two single turns, whose processors look at the rows' texts
    searches=[
        {"length": 1, "new": 2, "ranking": (1.0, False)},
        {"length": 25, "new": 7, "ranking": (1.0, False), "chain": 1, "forced": FORCED[2]},
        {"length": 6, "new": 2, "ranking": (1.0, False)},
    ],
    alike=False,
    step_tokens=17,
    blocks=32,
    framework="numpy",
)
def test_results_are_those_of_single_turns(searches, alike, step_tokens, blocks, framework):
    if framework == "torch":
        pytest.importorskip("torch")
    if alike:  # so that they can go on together
        searches = [
            {**one, **{name: searches[0][name] for name in ("beams", "chain", "eos", "groups", "forced")}}
            for one in searches
        ]
        searches = [{**one, "guided": one.get("guided") if searches[0].get("guided") else 0} for one in searches]
    options = {"step_tokens": step_tokens, "max_positions": 2 * blocks * BLOCK}
    expected = run(Stepping(framework=framework), [request(**one) for one in searches], **options)
    assert run(BurstModel(framework=framework), [request(**one) for one in searches], **options) == expected


def test_a_search_takes_two_steps_and_few_bursts():
    model = BurstModel()
    one = request(40, new=150)
    run(model, [one])
    assert model.steps == 2 and model.bursts == [[64], [64], [20]], "the prompt and the last turn are steps"
    assert len(one.sink.tokens[0]) == 150


@pytest.mark.parametrize("parts", [{}, {"groups": 2}, {"forced": FORCED[2]}, {"chain": 4}])
def test_guided_searches_go_on_in_bursts(parts):
    def build(*guided):
        return [request(40, new=90, guided=guided[0], **parts), request(4, new=70, guided=guided[1], **parts)]

    model, expected = BurstModel(), run(Stepping(), build(5, 61))
    assert run(model, build(5, 61)) == expected and model.bursts[0] == [64, 64]
    plain = run(Stepping(), build(0, 0))
    assert plain[0] != expected[0] and plain[1] != expected[1], "guidance counts"


def test_searches_with_other_numbers_go_on_together():
    model = BurstModel()
    run(model, [request(4, new=30), request(5, new=20, ranking=(0.1, True)), request(33, new=40, least=2, eos=())])
    assert model.bursts[0] == [28, 18, 38]


@pytest.mark.parametrize("groups", [1, 2])
def test_a_search_that_ends_early_leaves_the_others_alone(groups):
    model = BurstModel()
    short = request(4, 40, eos=ENDS[2], ranking=(1.0, True), groups=groups)
    long = request(5, 40, eos=ENDS[2], least=39, groups=groups)
    run(model, [short, long])
    assert short.sink.reasons == ["stop"] * 2 and model.bursts[0][0] < model.bursts[0][1] == 38


class Own(LogitsProcessor):
    """A processor of the caller's own."""

    def process(self, scores, context):
        return scores


@dataclass(frozen=True, slots=True)
class Other(BeamSearch):
    """Beam search that somebody has changed."""


def changed(one, **parts):
    return replace(one, recipe=replace(one.recipe, **parts))


@pytest.mark.parametrize(
    "other",
    [
        lambda: request(5, streams=True),
        lambda: request(5, max_time=1000.0),
        lambda: request(5, ends=(lambda tokens, prompt: False,)),
        lambda: request(5, beams=4),
        lambda: request(5, chain=3),
        lambda: request(5, forced=FORCED[2]),
        lambda: changed(request(5), processors=LogitsProcessorList([Own()])),
        lambda: changed(request(5), strategy=Other(3, 2)),
        lambda: changed(request(5), strategy=DiverseBeamSearch(3, 3, 0.5, 2)),
        lambda: replace(changed(request(5), strategy=SAMPLE), rows=2),
        lambda: request(5, guided=2),
    ],
)
def test_there_is_no_burst_beside_what_is_another_loop_or_the_hosts(other):
    model = BurstModel()
    first, second = request(4), other()
    run(model, [first, second])
    assert not model.bursts and first.sink.error is None and second.sink.error is None


@pytest.mark.parametrize("parts", [{}, {"groups": 2}, {"forced": FORCED[2]}])
def test_what_is_recorded_is_recorded_in_bursts(parts):
    model, record = BurstModel(), Record(scores=True, logits=True)
    eos = ENDS[2]
    recorded, other = request(4, 30, eos=eos, record=record, **parts), request(5, 20, eos=eos, **parts)
    expected = run(Stepping(), [request(4, 30, eos=eos, record=record, **parts), request(5, 20, eos=eos, **parts)])
    assert run(model, [recorded, other]) == expected
    assert len(model.bursts[0]) == 2 and len(recorded.sink.turns) > 3 and not other.sink.turns


def test_there_is_no_burst_of_what_a_model_does_not_keep():
    class Forgetful(BurstModel):
        def takes_burst(self, recipes):
            return not any(recipe.record.keeps for recipe in recipes)

    model = Forgetful()
    run(model, [request(4, record=Record(scores=True))])
    assert not model.bursts
    run(model, [request(4)])
    assert model.bursts


def test_forced_searches_with_other_phrases_go_on_together():
    def build():
        return [request(4, new=30, forced=FORCED[2], eos=ENDS[2]), request(5, new=20, forced=FORCED[3], eos=ENDS[2])]

    model = BurstModel()
    assert run(model, build()) == run(Stepping(), build())
    assert model.bursts[0] == [28, 18]


def test_rows_that_cannot_be_filled_are_the_hosts():
    few = [TopKLogitsWarper(1)]
    expected, found = ([changed(request(4), processors=LogitsProcessorList(few))] for _ in range(2))
    assert run(BurstModel(), found) == run(Stepping(), expected)


def test_logits_that_are_no_numbers_fail_their_search_only():
    def build():
        return [request(length, 30) for length in (4, 5)]

    expected = build()
    run(Stepping(), expected)
    good, bad = ({token for text in one.sink.tokens for token in text} for one in expected)
    model, again = BurstModel(), build()
    model.unlucky = min(bad - good)
    run(model, again)
    errors = [one.sink.error for one in again]
    assert isinstance(errors[1], NumericalError)


def test_a_search_that_ends_in_a_burst_takes_no_step_more():
    model, one = BurstModel(), request(4, 40, eos=ENDS[2], ranking=(1.0, True))
    run(model, [one])
    assert one.sink.reasons == ["stop"] * 2 and model.steps == 1 and len(model.bursts) == 1


@pytest.mark.parametrize("groups", [1, 2])
def test_a_device_that_ends_before_the_end_changes_nothing(groups):
    class Hasty(BurstModel):
        def burst_beams(self, batch, cache, form, beams):
            return super().burst_beams(batch, cache, form, replace(beams, hasty=np.ones_like(beams.hasty)))

    def build():
        return [request(length, 60, eos=ENDS[2], groups=groups, ranking=(2.0, "never")) for length in (9, 41)]

    model, expected = Hasty(), run(Stepping(), build())
    engine, again = engine_of(model), build()
    engine.run(again)
    assert [one.sink.everything for one in again] == expected
    assert model.steps > 3, "the host makes the turns that end nothing"
    idle(engine)


@pytest.mark.parametrize("groups", [1, 2])
def test_a_device_that_goes_on_behind_the_end_changes_nothing(groups):
    class Endless(BurstModel):
        def burst_beams(self, batch, cache, form, beams):
            endless = {"bounds": np.full_like(beams.bounds, np.inf), "hasty": np.zeros_like(beams.hasty)}
            return super().burst_beams(batch, cache, form, replace(beams, **endless))

    def build():
        first = request(9, 60, eos=ENDS[2], ranking=(1.0, True), groups=groups)
        return [first, request(41, 60, eos=ENDS[2], least=59, groups=groups)]

    model, expected = Endless(), run(Stepping(), build())
    engine = engine_of(model)
    for again in (build(), build()):  # the second finds prompts that are in the cache
        engine.run(again)
        assert [one.sink.everything for one in again] == expected
    assert model.bursts[0][0] > max(map(len, expected[0][0])), "it went on"
    idle(engine)


def test_what_bursts_computed_can_be_gone_on_from():
    model, one = BurstModel(), request(40, new=50, record=Record(past=True))
    pasts = []
    one.sink.kept = lambda row, kept: pasts.append(kept)
    engine = engine_of(model)
    engine.run([one])
    assert model.bursts and len(pasts) == 2
    for past, tokens in zip(pasts, one.sink.tokens, strict=True):
        stored = engine.storage.tokens[past.table.blocks].reshape(-1)
        assert past.computed == 89 and past.tokens.tolist() == [*one.prompt.tolist(), *tokens]
        assert stored[: past.computed].tolist() == past.tokens[: past.computed].tolist()
