"""The loop of closed rows chooses as the strategy does, with numbers apart from the form that it is compiled for."""

from __future__ import annotations

import numpy as np
import pytest

from fabula.context import Context
from fabula.decoding.closed import ClosedRow, close, decode, map_arrays, new_tokens, padded
from fabula.decoding.recipe import Limits, Recipe
from fabula.decoding.sample import SAMPLE
from fabula.decoding.strategy import Draw, Turn
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
)
from fabula.processors.rows import stack
from fabula.watermark.green_list import WatermarkLogitsProcessor

VOCABULARY = 30
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


def recipe_of(processors, sampled, most=20, eos=(7,)):
    return Recipe(LogitsProcessorList(processors), Limits(most, frozenset(eos)), sampled)


def closed_row(tokens, processors=(), sampled=True, room=8, seed=3, stream=0, hidden=0, eos=(7,)):
    tokens = np.array(tokens, np.int32)
    return ClosedRow(tokens, len(tokens), hidden, room, seed, stream, recipe_of(processors, sampled, eos=eos))


def logits_of(tokens, positions):
    """Float["R V"]: what stands for a model; it knows the last token and where it is."""
    seeds = zip(tokens.tolist(), positions.tolist(), strict=True)
    rows = [np.random.default_rng(pair).normal(0, 2, VOCABULARY) for pair in seeds]
    return np.array(rows, np.float32)


def forward_of(xp):
    def forward(last, positions, count):
        return xp.asarray(logits_of(xp.to_host(last), xp.to_host(positions)), "float32"), count + 1

    return forward


def run(xp, form, rows):
    here = map_arrays(rows, lambda part: xp.asarray(part, str(part.dtype)))
    tokens, lengths, turns = decode(forward_of(xp), 0, form, here)
    return [part.tolist() for part in new_tokens(rows, xp.to_host(tokens), xp.to_host(lengths))], turns


def one_by_one(xp, row):
    """A row's new tokens, a turn of the strategy each."""
    tokens, recipe = row.tokens.tolist(), row.recipe
    while len(tokens) < len(row.tokens) + row.room:
        logits = logits_of(np.array(tokens[-1:]), np.array([len(tokens) - 1]))
        seen = np.array([tokens[row.hidden :]], np.int32)
        parts = (seen, np.array([seen.shape[1]], np.int32), np.array([row.prompt_length - row.hidden], np.int32))
        context = Context(*(xp.asarray(part, "int32") for part in parts))
        draw = Draw.of([row.seed], [row.stream], [len(tokens)], [recipe.sampled])
        turn = Turn(xp.asarray(logits, "float32"), stack([recipe.processors]), context, draw)
        tokens.append(int(xp.to_host(SAMPLE.choose(turn).tokens)[0]))
        if tokens[-1] in recipe.limits.eos:
            break
    return tokens[len(row.tokens) :]


def rows_of(sampled=True):
    generator = np.random.default_rng(5)
    rows = [
        closed_row(generator.integers(8, VOCABULARY, 3 + place), chain, sampled, 4 + place, 3, place)
        for place, chain in enumerate(CHAINS)
    ]
    return [*rows, closed_row([9, 10, 11, 12], CHAINS[1], not sampled, hidden=2)]


@pytest.mark.parametrize("sampled", [False, True])
def test_rows_go_on_as_they_do_one_by_one(xp, sampled):
    rows = rows_of(sampled)
    expected = [one_by_one(xp, row) for row in rows]
    found, _ = run(xp, *close(rows))
    assert found == expected
    for row, alone in zip(rows, expected, strict=True):
        assert run(xp, *close([row]))[0] == [alone]


def test_padded_rows_and_columns_change_nothing(xp):
    form, rows = close(rows_of())
    found, _ = run(xp, form, rows)
    wider = padded(rows, 16, 64)
    assert wider.tokens.shape == (16, 64) and wider.ends.shape[1] == 1
    assert run(xp, form, wider)[0][: len(found)] == found


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


def test_a_processor_that_needs_the_host_closes_no_loop():
    assert close([closed_row([1], [WatermarkLogitsProcessor(VOCABULARY)])]) is None
    assert close([closed_row([1], [PrefixConstrainedLogitsProcessor(lambda batch, ids: [1])])]) is None
    assert close([closed_row([1], [lambda ids, scores: scores])]) is None

    class Subclass(TemperatureLogitsWarper):
        def process(self, scores, context):
            return scores

    assert close([closed_row([1], [Subclass(2.0)])]) is None


def test_a_row_without_a_finite_score_ends_before_it(xp):
    def forward(last, positions, state):
        values = np.where(xp.to_host(positions)[:, None] >= 4, np.nan, logits_of(*map(xp.to_host, (last, positions))))
        return xp.asarray(values, "float32"), state

    for sampled in (False, True):
        form, rows = close([closed_row([8] * length, sampled=sampled, room=6, eos=()) for length in (3, 1, 7)])
        here = map_arrays(rows, lambda part: xp.asarray(part, str(part.dtype)))
        tokens, lengths, _ = decode(forward, 0, form, here)
        found = new_tokens(rows, xp.to_host(tokens), xp.to_host(lengths))
        assert [len(part) for part in found] == [2, 4, 0]
