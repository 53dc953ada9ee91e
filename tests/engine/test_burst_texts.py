"""Bursts of contrastive search give what its turns give one by one, and leave the rows as if they had taken them."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fabula.cache.blocks import BLOCK
from fabula.decoding.beam_search import BeamSearch
from fabula.decoding.closed import contrastive
from fabula.decoding.contrastive import ContrastiveSearch
from fabula.decoding.recipe import Limits, Recipe, Record
from fabula.decoding.sample import SAMPLE
from fabula.engine.request import Request
from fabula.errors import NumericalError
from fabula.processors import (
    LogitsProcessorList,
    MinNewTokensLengthLogitsProcessor,
    NoRepeatNGramLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    SuppressTokensLogitsProcessor,
    UnbatchedClassifierFreeGuidanceLogitsProcessor,
)
from tests.engine.burst_model import BurstModel, Stepping
from tests.engine.test_burst import Gathered
from tests.engine.test_burst_beams import Own, changed, run
from tests.engine.test_engine import engine_of

ENDS = [(), (3,), (3, 7, 11, 12, 13, 20, 21, 22)]
NOTHING = Record()
CHAINS = [
    [],
    [RepetitionPenaltyLogitsProcessor(1.7)],
    [NoRepeatNGramLogitsProcessor(2)],
    [SuppressTokensLogitsProcessor(range(2, 50))],  # all but two
]


class Found(Gathered):
    """A sink that keeps what a search found."""

    def __init__(self, rows, streams=False):
        super().__init__(rows, streams)
        self.hypothesis, self.turns = None, []

    def found(self, row, hypothesis):
        self.hypothesis = hypothesis.tokens.tolist(), hypothesis.reason

    def turned(self, kept):
        self.turns.append([None if part is None else part.tolist() for part in (kept.scores, kept.logits)])

    @property
    def everything(self):
        return self.tokens, self.reasons, self.hypothesis, self.turns, self.error


def request(
    length,
    new=10,
    alpha=0.6,
    width=4,
    chain=0,
    eos=(),
    least=0,
    streams=False,
    record=NOTHING,
    guided=0,
    **limits,
):
    """A search with a prompt of its own for each length; `guided`: the length of its negative prompt."""
    prompt = np.random.default_rng(length).integers(0, 50, length).astype(np.int32)
    processors = LogitsProcessorList(CHAINS[chain])
    if least:
        processors.append(MinNewTokensLengthLogitsProcessor(length, least, list(eos)))
    if guided:
        processors.append(UnbatchedClassifierFreeGuidanceLogitsProcessor(1.5, None))
    limits = Limits(length + new, frozenset(eos), **limits)
    recipe = Recipe(processors, limits, False, record, ContrastiveSearch(width, alpha))
    negative = np.arange(guided, dtype=np.int32) if guided else None
    return Request(prompt, recipe, Found(1, streams), 7, length, negative=negative)


@settings(max_examples=20, deadline=None)
@given(
    searches=st.lists(
        st.fixed_dictionaries(
            {
                "length": st.integers(1, 70),
                "new": st.integers(1, 30),
                "alpha": st.sampled_from([0.0, 0.3, 0.6, 1.0]),
                "width": st.sampled_from([2, 4, 4]),
                "chain": st.integers(0, len(CHAINS) - 1),
                "eos": st.sampled_from(ENDS),
                "least": st.integers(0, 4),
                "record": st.sampled_from([NOTHING, NOTHING, Record(1, scores=True), Record(logits=True)]),
                "guided": st.sampled_from([1, 5, 40]),
            }
        ),
        min_size=1,
        max_size=3,
        unique_by=lambda one: one["length"],
    ),
    step_tokens=st.sampled_from([17, 512]),
    max_rows=st.sampled_from([5, 256]),
    blocks=st.integers(24, 40),
    framework=st.sampled_from(["numpy", "torch"]),
    guided=st.booleans(),
)
@example(  # a burst before a single turn
    searches=[
        {"length": length, "new": new, "alpha": 0.0, "width": 2, "guided": 3}
        for length, new in ((1, 1), (2, 2), (3, 1))
    ],
    step_tokens=17,
    max_rows=5,
    blocks=24,
    framework="torch",
    guided=False,
)
def test_results_are_those_of_single_turns(searches, step_tokens, max_rows, blocks, framework, guided):
    if framework == "torch":
        pytest.importorskip("torch")
    searches = [{**one, "guided": guided * one["guided"]} for one in searches]
    options = {"step_tokens": step_tokens, "max_rows": max_rows, "max_positions": (1 + guided) * blocks * BLOCK}
    expected = run(Stepping(framework=framework), [request(**one) for one in searches], **options)
    assert run(BurstModel(framework=framework), [request(**one) for one in searches], **options) == expected


def test_a_search_may_read_all_tokens():
    expected = run(Stepping(), [request(5, 6, width=60), request(6, 6)])
    assert run(BurstModel(), [request(5, 6, width=60), request(6, 6)]) == expected


def test_a_search_takes_two_steps_and_few_bursts():
    model, one = BurstModel(), request(40, new=150)
    run(model, [one])
    assert model.steps == 1 and model.bursts == [[64], [64], [22]], "the prompt is a step"
    assert len(one.sink.tokens[0]) == 150


def test_guided_searches_go_on_in_bursts():
    model, found = BurstModel(), [request(40, new=90, guided=5), request(4, new=70, guided=61)]
    expected = run(Stepping(), [request(40, new=90, guided=5), request(4, new=70, guided=61)])
    assert run(model, found) == expected and model.bursts == [[64, 64], [26, 6]]
    plain = run(Stepping(), [request(40, new=90), request(4, new=70)])
    assert plain[0] != expected[0] and plain[1] != expected[1], "guidance counts"


def test_searches_with_other_numbers_go_on_together():
    model = BurstModel()
    run(model, [request(4, new=30), request(5, new=20, alpha=0.1, width=2, chain=1), request(33, new=40, width=3)])
    assert model.bursts == [[30, 20, 40]]


def test_a_search_that_ends_early_leaves_the_others_alone():
    model, short, long = BurstModel(), request(4, 40, eos=ENDS[2]), request(5, 40, eos=ENDS[2], least=39)
    run(model, [short, long])
    assert short.sink.reasons == ["stop"] and model.bursts[0][0] < model.bursts[0][1] == 40


@dataclass(frozen=True, slots=True)
class Other(ContrastiveSearch):
    """Contrastive search that somebody has changed."""


@pytest.mark.parametrize(
    "other",
    [
        lambda: request(5, streams=True),
        lambda: request(5, max_time=1000.0),
        lambda: request(5, ends=(lambda tokens, prompt: False,)),
        lambda: changed(request(5), processors=LogitsProcessorList([Own()])),
        lambda: changed(request(5), strategy=Other(4, 0.6)),
        lambda: changed(request(5), strategy=BeamSearch(4, 1)),
        lambda: replace(changed(request(5), strategy=SAMPLE), rows=1),
        lambda: request(5, guided=2),
    ],
)
def test_there_is_no_burst_beside_what_is_another_loop_or_the_hosts(other):
    model = BurstModel()
    first, second = request(4), other()
    run(model, [first, second])
    assert not model.bursts and first.sink.error is None and second.sink.error is None


def test_there_is_no_burst_where_it_would_take_too_much(monkeypatch):
    monkeypatch.setattr(contrastive, "MOST", 1000)
    model, one = BurstModel(), request(4)
    run(model, [one])
    assert not model.bursts and len(one.sink.tokens[0]) == 10


def test_logits_that_are_no_numbers_fail_their_search_only():
    def build():
        return [request(length, 30, chain=1) for length in (4, 5)]

    expected = build()
    run(Stepping(), expected)
    good, bad = ({token for text in one.sink.tokens for token in text} for one in expected)
    model, again = BurstModel(), build()
    model.unlucky = min(bad - good)
    run(model, again)
    stepping, once_more = Stepping(), build()
    stepping.unlucky = model.unlucky
    run(stepping, once_more)
    assert isinstance(again[1].sink.error, NumericalError) and model.bursts
    assert [one.sink.tokens for one in again] == [one.sink.tokens for one in once_more]


def test_what_bursts_computed_can_be_gone_on_from():
    model, one = BurstModel(), request(40, new=50, record=Record(past=True))
    engine = engine_of(model)
    engine.run([one])
    past = one.sink.past
    stored = engine.storage.tokens[past.table.blocks].reshape(-1)
    assert model.bursts and past.computed == 90 and past.tokens.tolist() == [*one.prompt.tolist(), *one.sink.tokens[0]]
    assert stored[: past.computed].tolist() == past.tokens.tolist()


def test_a_text_is_found_again_by_its_prefix():
    model, one = BurstModel(), request(40, new=50)
    engine = engine_of(model)
    engine.run([one])
    again = replace(request(9), prompt=np.array([*one.prompt, *one.sink.tokens[0]], np.int32))
    again = changed(again, strategy=SAMPLE, limits=Limits(len(again.prompt) + 5))
    computed = model.computed
    engine.run([again])
    assert again.sink.tokens[0] == run(Stepping(), [replace(again, sink=Found(1))])[0][0][0]
    assert model.computed - computed == 90 - 2 * BLOCK, "two blocks of it are in the cache"
