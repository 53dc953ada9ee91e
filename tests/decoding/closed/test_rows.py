"""The loop of closed rows chooses as the strategy does, with numbers apart from the form that it is compiled for."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from importlib import import_module

import numpy as np
import pytest

from fabula.arrays import numpy as host
from fabula.context import Context
from fabula.decoding.closed.loop import decode
from fabula.decoding.closed.record import gained_of
from fabula.decoding.closed.rows import ClosedRow, close, leaves_of, padded
from fabula.decoding.layer_contrast import LayerContrast
from fabula.decoding.recipe import Limits, Recipe
from fabula.decoding.sample import SAMPLE
from fabula.decoding.strategy import Draw, Tapped, Turn
from fabula.processors import (
    EtaLogitsWarper,
    ExponentialDecayLengthPenalty,
    ForcedEOSTokenLogitsProcessor,
    LogitsProcessorList,
    MinLengthLogitsProcessor,
    MinPLogitsWarper,
    NoBadWordsLogitsProcessor,
    NoRepeatNGramLogitsProcessor,
    PrefixConstrainedLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    SequenceBiasLogitsProcessor,
    SuppressTokensLogitsProcessor,
    TemperatureLogitsWarper,
    TopHLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
    TypicalLogitsWarper,
    UnbatchedClassifierFreeGuidanceLogitsProcessor,
)
from fabula.processors.rows import stack
from fabula.watermark.green_list import WatermarkLogitsProcessor

VOCABULARY = 30
TABLE = np.random.default_rng(0).normal(0, 2, (997, VOCABULARY)).astype(np.float32)
CHAINS = [
    [],
    [RepetitionPenaltyLogitsProcessor(1.3), TemperatureLogitsWarper(0.7)],
    [RepetitionPenaltyLogitsProcessor(1.1), TemperatureLogitsWarper(1.7), TopKLogitsWarper(5)],
    [TopKLogitsWarper(12), TopPLogitsWarper(0.7, min_tokens_to_keep=2)],
    [NoRepeatNGramLogitsProcessor(2), MinPLogitsWarper(0.2, min_tokens_to_keep=3)],
    [SequenceBiasLogitsProcessor({(4,): 2.0, (5, 6): -3.0}), EtaLogitsWarper(0.1)],
    [NoBadWordsLogitsProcessor([[1], [2, 3]]), TypicalLogitsWarper(0.6)],
    [MinLengthLogitsProcessor(9, [7]), ForcedEOSTokenLogitsProcessor(12, [7]), TopHLogitsWarper(0.5)],
    [ExponentialDecayLengthPenalty((2, 1.5), [7], 3), SuppressTokensLogitsProcessor([8, 9])],
]


@pytest.fixture(params=["numpy", "torch", "jax", "tensorflow"])
def xp(request):
    """The array functions of one framework; JAX and TensorFlow compile the loop."""
    pytest.importorskip(request.param)
    return import_module(f"fabula.arrays.{request.param}")


def recipe_of(processors, sampled, most=20, eos=(7,)):
    return Recipe(LogitsProcessorList(processors), Limits(most, frozenset(eos)), sampled)


def closed_row(
    tokens, processors=(), sampled=True, room=8, seed=3, stream=0, hidden=0, eos=(7,), negative=None, strategy=SAMPLE
):
    tokens, negative = (None if one is None else np.array(one, np.int32) for one in (tokens, negative))
    recipe = replace(recipe_of(processors, sampled, eos=eos), strategy=strategy)
    return ClosedRow(tokens, len(tokens), hidden, room, seed, stream, recipe, negative)


def logits_of(tokens, positions):
    """Float["R V"]: what stands for a model; it knows the last token and where it is."""
    return TABLE[(tokens * 31 + positions) % len(TABLE)]


def forward_of(xp, table=TABLE, layers=()):
    """After layer n it says what it would say n positions later."""

    def forward(last, positions, count):
        known = xp.asarray(table, "float32", like=last)
        heads = [xp.take(known, (last * 31 + positions + layer) % len(table)) for layer in (0, *layers)]
        return heads if layers else heads[0], count + 1

    return forward


def compiled(xp, function):
    """A function of arrays as its framework compiles it."""
    name = xp.__name__.rpartition(".")[2]
    if name == "jax":
        return import_module("jax").jit(function)
    if name == "tensorflow":
        return import_module("tensorflow").function(function, jit_compile=True)
    return function


def run(xp, form, rows, table=TABLE):
    """The rows' new tokens, and how many turns it took."""
    parts, rebuild = leaves_of(rows)

    def loop(count, *leaves):
        end = decode(forward_of(xp, table, form.layers), count, form, rebuild(leaves))
        return end.tokens, end.lengths, end.model

    leaves = [xp.asarray(part, str(part.dtype)) for part in parts]
    tokens, lengths, turns = compiled(xp, loop)(xp.asarray(0, "int32"), *leaves)
    new = gained_of(rows, xp.to_host(tokens), xp.to_host(lengths), (), len(rows.lengths))
    return [part.tokens.tolist() for part in new], int(turns)


def one_by_one(xp, row):
    """A row's new tokens, each chosen as the strategy does."""
    tokens, recipe = row.tokens.tolist(), row.recipe
    while len(tokens) < len(row.tokens) + row.room:
        last, new = tokens[-1:], len(tokens) - len(row.tokens)
        logits = logits_of(np.array(last), np.array([len(tokens) - 1]))
        early = {
            layer: logits_of(np.array(last), len(tokens) - 1 + layer) for layer in recipe.strategy.taps.layer_logits
        }
        negative = None
        if row.negative is not None:
            negative = logits_of(np.array(last if new else row.negative[-1:]), len(row.negative) - 1 + new)
        seen = np.array([tokens[row.hidden :]], np.int32)
        parts = (seen, np.array([seen.shape[1]], np.int32), np.array([row.prompt_length - row.hidden], np.int32))
        context = Context(*(xp.asarray(part, "int32") for part in parts), unconditional=negative)
        draw = Draw.of([row.seed], [row.stream], [len(tokens)], [recipe.sampled])
        turn = Turn(
            logits, stack([recipe.processors]), partial(lambda known: known, context), draw, Tapped((), None, early)
        )
        tokens.append(int(xp.to_host(recipe.strategy.choose(turn).tokens)[0]))
        if tokens[-1] in recipe.limits.eos:
            break
    return tokens[len(row.tokens) :]


def rows_of():
    generator = np.random.default_rng(5)
    rows = [
        closed_row(generator.integers(8, VOCABULARY, 3 + place), chain, place % 3 > 0, 4 + place, 3, place)
        for place, chain in enumerate(CHAINS)
    ]
    return [*rows, closed_row([9, 10, 11, 12], CHAINS[1], hidden=2)]


def test_rows_go_on_as_they_do_one_by_one(xp):
    rows = rows_of()
    expected = [one_by_one(host, row) for row in rows]
    assert run(xp, *close(rows))[0] == expected
    for row, alone in list(zip(rows, expected, strict=True))[:2]:
        assert run(xp, *close([row]))[0] == [alone]


def guided_rows_of(strategy=SAMPLE):
    """Rows whose negative prompts are shorter, longer and as long."""
    chains = [[UnbatchedClassifierFreeGuidanceLogitsProcessor(scale, None)] for scale in (1.5, 3.0, 0.4)]
    chains[1].append(TemperatureLogitsWarper(1.5))
    negatives = ([4], [1, 2, 3, 4, 5, 6, 7, 8, 9], [8, 9, 3])
    return [
        closed_row([8 + place, 9, 10], chain, place == 1, 5 + place, negative=negative, strategy=strategy)
        for place, (chain, negative) in enumerate(zip(chains, negatives, strict=True))
    ]


@pytest.mark.parametrize("strategy", [SAMPLE, LayerContrast((3, 5))])
def test_guided_rows_go_on_as_they_do_one_by_one(xp, strategy):
    rows = guided_rows_of(strategy)
    form, closed = close(rows)
    assert form.each == 2 and closed.last.shape == closed.position.shape == (6,)
    wider = padded(closed, 4, 32)
    assert wider.last.shape == (8,) and wider.lengths.shape == (4,)
    assert run(xp, form, wider)[0][:3] == [one_by_one(host, row) for row in rows]


def test_contrasted_rows_go_on_as_they_do_one_by_one(xp):
    chains = ([], [RepetitionPenaltyLogitsProcessor(1.3)], [TemperatureLogitsWarper(2.0), TopKLogitsWarper(5)])
    rows = [
        closed_row([8 + place, 9], chain, place == 2, 5 + place, eos=(), strategy=LayerContrast((3, 5, 11)))
        for place, chain in enumerate(chains)
    ]
    assert run(xp, *close(rows))[0] == [one_by_one(host, row) for row in rows]


def test_a_contrasted_row_ends_where_its_processors_forbid_what_is_likely(xp):
    logits = TABLE[9 * 31 + 1]
    likely = np.flatnonzero(logits >= logits.max() + np.log(0.1)).tolist()
    forbidding = closed_row([8, 9], [SuppressTokensLogitsProcessor(likely)], False, strategy=LayerContrast((3,)))
    assert run(xp, *close([forbidding]))[0] == [[]] and one_by_one(host, forbidding), "the host would go on"


def test_rows_that_choose_in_different_ways_close_no_loop():
    guided, plain = guided_rows_of()[0], closed_row([1, 2])
    assert close([guided, plain]) is None
    assert close([closed_row([1, 2], strategy=LayerContrast((3,))), plain]) is None
    scale = UnbatchedClassifierFreeGuidanceLogitsProcessor(2.5, None)
    assert close([closed_row([5, 6], [scale], False, negative=[7])])[0] == close([guided])[0], "a scale is a number"
    runs_a_model = UnbatchedClassifierFreeGuidanceLogitsProcessor(2.5, lambda input_ids: None)
    assert close([closed_row([1], [runs_a_model])]) is None


def test_padded_rows_and_columns_change_nothing(xp):
    form, rows = close(rows_of()[:2])
    wider = padded(rows, 4, 64)
    assert wider.tokens.shape == (4, 64) and wider.ends.shape[1] == 1
    assert run(xp, form, wider)[0][: len(rows.room)] == run(host, form, rows)[0]


def test_the_loop_ends_with_the_last_row(xp):
    _, turns = run(xp, *close([closed_row([8, 9], sampled=False, room=room, eos=()) for room in (2, 6, 3)]))
    assert turns == 6


def test_a_hurried_loop_ends_with_the_first_row_and_not_with_padding(xp):
    form, rows = close([closed_row([8, 9], room=room, eos=()) for room in (2, 6, 3)], hurried=True)
    found, turns = run(xp, form, padded(rows, 4, 16))
    assert turns == 2 and [len(part) for part in found[:3]] == [2, 2, 2]


def test_numbers_are_no_part_of_the_form():
    def form(temperature, top_k, penalty, seed, sampled=True):
        chain = [
            RepetitionPenaltyLogitsProcessor(penalty),
            TemperatureLogitsWarper(temperature),
            TopKLogitsWarper(top_k),
        ]
        return close([closed_row([1, 2], chain, sampled, seed=seed)] * 2)[0]

    assert form(0.7, 50, 1.1, 1) == form(1.3, 7, 1.9, 2) and hash(form(0.7, 50, 1.1, 1)) == hash(form(1.3, 7, 1.9, 2))
    assert form(0.7, 50, 1.1, 1) != form(0.7, 50, 1.1, 1, sampled=False), "noise is made where rows draw"
    keeps_two = close([closed_row([1, 2], [TopKLogitsWarper(5), TopPLogitsWarper(0.5, min_tokens_to_keep=2)])])[0]
    keeps_one = close([closed_row([1, 2], [TopKLogitsWarper(5), TopPLogitsWarper(0.5)])])[0]
    assert keeps_two != keeps_one, "a number that changes nothing costs nothing"


def test_lists_are_no_part_of_the_form_but_for_their_rounded_sizes():
    def form(words, bias, rows=1):
        chain = [NoBadWordsLogitsProcessor(words), SequenceBiasLogitsProcessor(bias)]
        return close([closed_row([1, 2], chain)] * rows + [closed_row([3])])[0]

    first = form([[1], [2, 3]], {(4,): 2.0})
    assert first == form([[5, 6], [7], [8], [9, 1]], {(6, 5): -1.0, (3,): 2.5}, 3)
    assert hash(first) == hash(form([[2]], {(1,): 1.0}))
    assert first != form([[5, 6, 7]], {(4,): 2.0}), "two tokens before the last"
    assert first != form([[token] for token in range(5)], {(4,): 2.0}), "more than four"


def test_a_processor_that_needs_the_host_closes_no_loop():
    assert close([closed_row([1], [WatermarkLogitsProcessor(VOCABULARY)])]) is None
    assert close([closed_row([1], [PrefixConstrainedLogitsProcessor(lambda batch, ids: [1])])]) is None
    assert close([closed_row([1], [lambda ids, scores: scores])]) is None

    class Subclass(TemperatureLogitsWarper):
        def process(self, scores, context):
            return scores

    assert close([closed_row([1], [Subclass(2.0)])]) is None

    class Biased(SequenceBiasLogitsProcessor):
        def process(self, scores, context):
            return scores

        def stack_key(self):
            return "all alike"

    column = close([closed_row([1], [Biased({(4,): 2.0})])])[0].columns[0]
    assert not column.looked_through and isinstance(column.processor, Biased), (
        "what a subclass does with its lists is its own"
    )


@pytest.mark.parametrize("sampled", [False, True])
def test_a_row_without_a_finite_score_ends_before_it(xp, sampled):
    table = np.where(np.arange(len(TABLE))[:, None] == 8 * 31 + 5, np.nan, TABLE).astype(np.float32)
    table[:, 8] = 99.0
    rows = [closed_row([8] * length, sampled=sampled, room=6, eos=()) for length in (3, 1, 6, 7)]
    assert [len(part) for part in run(xp, *close(rows), table)[0]] == [3, 5, 0, 6]
