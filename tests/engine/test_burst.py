"""A burst gives the same texts as its steps one by one, and happens only where nobody can tell the difference."""

from dataclasses import replace
from itertools import chain as flat

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fabula.decoding.layer_contrast import LayerContrast
from fabula.decoding.recipe import Limits, Recipe, Record
from fabula.decoding.sample import SAMPLE
from fabula.engine.engine import Engine
from fabula.engine.request import Request
from fabula.errors import ArgumentError, NumericalError
from fabula.processors import (
    LogitsProcessor,
    LogitsProcessorList,
    MinNewTokensLengthLogitsProcessor,
    MinPLogitsWarper,
    NoBadWordsLogitsProcessor,
    NoRepeatNGramLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    SequenceBiasLogitsProcessor,
    SuppressTokensLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
    UnbatchedClassifierFreeGuidanceLogitsProcessor,
)
from fabula.testing.hash_model import HashModel
from tests.engine.burst_model import BurstModel, Stepping

CHAINS = [
    ([], False),
    ([RepetitionPenaltyLogitsProcessor(1.7)], False),
    ([NoRepeatNGramLogitsProcessor(2)], False),
    ([], True),
    ([TemperatureLogitsWarper(0.7), TopKLogitsWarper(9)], True),
    ([TemperatureLogitsWarper(1.3), TopPLogitsWarper(0.8)], True),
    ([RepetitionPenaltyLogitsProcessor(1.2), TemperatureLogitsWarper(2.0), MinPLogitsWarper(0.05)], True),
    ([SuppressTokensLogitsProcessor([1, 2, 3]), TopKLogitsWarper(40)], True),
]
CONTRAST = LayerContrast((1, 4))


NOTHING = Record()


class Gathered:
    """A sink that wants everything in the end; `streams`: or each token at once."""

    def __init__(self, rows=1, streams=False):
        self.tokens = [[] for _ in range(rows)]
        self.steps = [[] for _ in range(rows)]
        self.reasons = [None] * rows
        self.error = None
        self.streams = streams

    def put(self, row, step):
        self.tokens[row].append(step.token)
        self.steps[row].append(step)

    def end(self, row, reason):
        assert self.reasons[row] is None
        self.reasons[row] = reason

    def fail(self, error):
        self.error = error

    def kept(self, row, kept):
        self.past = kept

    def scored(self, prompt):
        self.prompt = prompt

    @property
    def everything(self):
        return self.tokens, self.reasons


def request(
    prompt,
    new=10,
    rows=1,
    chain=0,
    eos=(),
    seed=7,
    least=0,
    streams=False,
    record=NOTHING,
    scale=0,
    way=SAMPLE,
    **limits,
):
    """`scale`: that of its guidance in tenths, and the length of its negative prompt; 0: it has none."""
    processors, sampled = CHAINS[chain]
    processors = LogitsProcessorList(processors)
    negative = None
    if scale:
        negative = np.arange(1, 1 + scale, dtype=np.int32)
        processors.insert(0, UnbatchedClassifierFreeGuidanceLogitsProcessor(scale / 10, None))
    if least:
        processors.append(MinNewTokensLengthLogitsProcessor(len(prompt), least, list(eos)))
    recipe = Recipe(processors, Limits(len(prompt) + new, frozenset(eos), **limits), sampled, record, way)
    return Request(np.array(prompt, np.int32), recipe, Gathered(rows, streams), seed, 0, rows, negative=negative)


def run(model, requests, **options):
    engine = Engine(model, **{"max_positions": 4096, **options})
    engine.run(requests)
    engine.pool.check([])
    return engine


def hold_same(rows, stepped, burst, **options):
    """Random prompts of these lengths, with what else is asked of each, get the same texts from both models."""

    def asked(place, length, **wishes):
        return request(np.random.default_rng(place).integers(0, 50, length).tolist(), **wishes)

    found = []
    for model in (stepped, burst):
        requests = [asked(place, **row) for place, row in enumerate(rows)]
        run(model, requests, **options)
        found.append([one.sink.everything for one in requests])
    assert found[0] == found[1]


ROW = {
    "length": st.integers(1, 70),
    "new": st.integers(1, 40),
    "rows": st.integers(1, 3),
    "chain": st.integers(0, len(CHAINS) - 1),
    "eos": st.sampled_from([(), (3,), (3, 7, 11)]),
}


@settings(max_examples=25, deadline=None)
@given(
    rows=st.lists(st.fixed_dictionaries({**ROW, "least": st.integers(0, 4)}), min_size=1, max_size=5),
    step_tokens=st.sampled_from([17, 512]),
    max_rows=st.integers(1, 8),
    blocks=st.integers(6, 40),
    framework=st.sampled_from(["numpy", "torch"]),
)
def test_texts_are_those_of_single_steps(rows, step_tokens, max_rows, blocks, framework):
    if framework == "torch":
        pytest.importorskip("torch")
    options = {"step_tokens": step_tokens, "max_rows": max_rows, "max_positions": blocks * 32}
    hold_same(rows, HashModel(), BurstModel(framework=framework), **options)


@settings(max_examples=20, deadline=None)
@given(
    rows=st.lists(st.fixed_dictionaries({**ROW, "scale": st.sampled_from([1, 7, 15, 33])}), min_size=1, max_size=4),
    way=st.sampled_from([SAMPLE, CONTRAST]),
    guided=st.sampled_from(["none", "all", "first"]),
    step_tokens=st.sampled_from([17, 512]),
    max_rows=st.integers(2, 8),
    blocks=st.integers(12, 60),
)
def test_guided_and_contrasted_texts_are_those_of_single_steps(rows, way, guided, step_tokens, max_rows, blocks):
    for place, row in enumerate(rows):
        row["way"] = way
        row["scale"] *= guided == "all" or (guided == "first" and place == 0)
    options = {"step_tokens": step_tokens, "max_rows": max_rows, "max_positions": blocks * 32}
    hold_same(rows, Stepping(), BurstModel(), **options)


def test_guided_rows_go_on_in_bursts():
    model = BurstModel()
    requests = [request([1, 2, 3], new=130, scale=15), request([1, 2, 3, 4], new=20, scale=33, chain=3, rows=2)]
    run(model, requests)
    assert model.bursts == [[64, 18, 19], [64]]
    assert model.steps == 2, "the prompts, and a copy of the block that the second one's rows shared"


def test_contrasted_rows_go_on_in_bursts_and_alone_where_nothing_likely_is_allowed():
    model = BurstModel()
    run(model, [request([1, 2, 3], new=60, way=CONTRAST)])
    assert model.bursts == [[59]]
    narrow = LogitsProcessorList([SuppressTokensLogitsProcessor(list(range(47)))])
    found = []
    for each in (BurstModel(), Stepping()):
        one = request([1, 2, 3], new=60, way=CONTRAST)
        one.recipe.processors.extend(narrow)
        run(each, [one])
        found.append((one.sink.everything, each.steps))
    assert found[0][0] == found[1][0] and 3 < found[0][1] < found[1][1]


def test_rows_that_choose_in_different_ways_share_steps_and_no_burst():
    model = BurstModel()
    run(model, [request([1, 2], way=CONTRAST), request([3, 4])])
    run(model, [request([1, 2], scale=15), request([3, 4])])
    assert not model.bursts


@pytest.mark.parametrize("scale", [0, 15])
@pytest.mark.parametrize("framework", ["numpy", "torch"])
def test_what_is_kept_of_each_step_is_what_single_steps_keep(framework, scale):
    if framework == "torch":
        pytest.importorskip("torch")
    records = [
        Record(log_probabilities=2, scores=True, logits=True),
        Record(scores=True),
        Record(log_probabilities=0),
        NOTHING,
        Record(log_probabilities=70, logits=True),
    ]
    found = []
    for kind in (Stepping, BurstModel):
        requests = [
            request([1 + place, 2], 30 + place, 1 + place % 2, place + 1, (3,), scale=scale, record=record)
            for place, record in enumerate(records)
        ]
        model = kind(framework=framework)
        run(model, requests)
        found.append([one.sink for one in requests])
    assert model.bursts
    for record, single, burst in zip(records, *found, strict=True):
        assert single.everything == burst.everything
        for one, other in zip(flat.from_iterable(single.steps), flat.from_iterable(burst.steps), strict=True):
            hold_step(one, other)
            assert (other.log_probability is None) == (record.log_probabilities is None)
            assert len(other.top) == min(record.log_probabilities or 0, model.vocabulary)
            assert (other.kept is not None) == record.keeps


def hold_step(one, other):
    """The same tokens and numbers."""
    assert [token for token, _ in one.top] == [token for token, _ in other.top]
    numbers = [(one.log_probability, other.log_probability)] if one.log_probability is not None else []
    numbers += [(mine, yours) for (_, mine), (_, yours) in zip(one.top, other.top, strict=True)]
    if one.kept is not None:
        for name in ("scores", "logits"):
            mine, yours = getattr(one.kept, name), getattr(other.kept, name)
            assert (mine is None) == (yours is None)
            numbers += [] if mine is None else [(mine, yours)]
    for mine, yours in numbers:
        np.testing.assert_allclose(np.asarray(mine), np.asarray(yours), rtol=0, atol=1e-5)


def test_a_closed_row_takes_two_steps_and_few_bursts():
    model = BurstModel()
    one = request([1, 2, 3], new=130)
    run(model, [one])
    assert model.steps == 2 and model.bursts == [[64], [64]], "the prompt and the last token are steps"
    assert len(one.sink.tokens[0]) == 130


def test_sequences_of_a_prompt_of_one_token_go_on_together():
    model = BurstModel()
    run(model, [request([3], new=30, rows=3), request([4], new=20)])
    assert list(map(len, model.bursts)) == [4], "the prompts are a step, by which the others begin too"


def test_a_row_that_ends_early_leaves_the_others_alone():
    model = BurstModel()
    long, short = request([1, 2, 3], new=60), request([4, 5], new=20)
    run(model, [long, short])
    assert model.bursts[0] == [59, 19] and short.sink.reasons == ["length"]


@pytest.mark.parametrize(
    "open_one",
    [
        {"streams": True},
        {"max_time": 1000.0},
        {"ends": (lambda tokens, prompt: False,)},
    ],
)
def test_there_is_no_burst_where_somebody_looks_at_each_token(open_one):
    model = BurstModel()
    run(model, [request([1, 2], new=9), request([3, 4], new=9, **open_one)])
    assert not model.bursts


def test_there_is_no_burst_with_a_processor_of_the_callers_own():
    class Own(LogitsProcessor):
        def process(self, scores, context):
            return scores

    model, one = BurstModel(), request([1, 2])
    one.recipe.processors.append(Own())
    run(model, [one])
    assert not model.bursts and len(one.sink.tokens[0]) == 10


def test_a_row_whose_logits_are_no_numbers_fails_alone_after_the_tokens_before_them():
    good, bad = request([1, 2, 3], new=40), request([4, 5], new=40)
    run(HashModel(), [good, bad])
    expected, unlucky = good.sink.everything, bad.sink.tokens[0][20]
    again = [request([1, 2, 3], new=40), request([4, 5], new=40)]
    model = BurstModel()
    model.unlucky = unlucky
    if unlucky in expected[0][0]:
        pytest.skip("the good row says the unlucky token, too")
    run(model, again)
    assert isinstance(again[1].sink.error, NumericalError)
    assert again[1].sink.tokens[0] == bad.sink.tokens[0][: bad.sink.tokens[0].index(unlucky) + 1]
    assert again[0].sink.everything == expected


def test_what_a_burst_computed_can_be_gone_on_from():
    model, one = BurstModel(), request([1, 2, 3], new=50, record=Record(past=True))
    engine = Engine(model, max_positions=4096)
    engine.run([one])
    past = one.sink.past
    assert model.bursts and past.computed == 52
    stored = engine.storage.tokens[past.table.blocks].reshape(-1)
    assert stored[: past.computed].tolist() == past.tokens[: past.computed].tolist()


def test_lists_are_looked_through_before_a_burst():
    requests = request([5]), request([6], new=12), request([7])
    words = LogitsProcessorList([NoBadWordsLogitsProcessor([[3], [4, 5]]), SequenceBiasLogitsProcessor({(9,): 1.0})])
    requests = [replace(one, recipe=replace(one.recipe, processors=words)) for one in requests]
    model = BurstModel()
    run(model, requests)
    assert model.steps == 1 and len(model.bursts) == 1, "a prompt's only token could be a burst's first"
    stepped = [replace(one, sink=Gathered(one.rows)) for one in requests]
    run(Stepping(), stepped)
    assert [one.sink.tokens for one in requests] == [one.sink.tokens for one in stepped]
    wrong = replace(requests[0], sink=Gathered())
    outside = LogitsProcessorList([NoBadWordsLogitsProcessor([[3], [4, 50]])])
    run(BurstModel(), [replace(wrong, recipe=replace(wrong.recipe, processors=outside))])
    assert isinstance(wrong.sink.error, ArgumentError)


@pytest.mark.parametrize("length", [1, 40])
def test_rows_whose_prompts_are_scored_go_on_in_bursts(length):
    def build():
        return [request(range(length), 70, record=Record(1, prompt=True)), request([9], 60)]

    model, expected, found = BurstModel(), build(), build()
    run(Stepping(), expected)
    run(model, found)
    assert model.bursts[0] == [64, 59] and model.steps == 1, "the first tokens are of a step"
    assert [one.sink.everything for one in found] == [one.sink.everything for one in expected]
    assert found[0].sink.steps == expected[0].sink.steps
    prompts = [one.sink.prompt for one in (found[0], expected[0])]
    assert len(prompts[0].log_probabilities) == length - 1 and prompts[0].top == prompts[1].top
    assert (prompts[0].log_probabilities == prompts[1].log_probabilities).all()
