"""The loop of closed beams makes the turns that the search makes one by one, and ends before the one that ends it."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module

import numpy as np
import pytest

pytest.importorskip("torch")

from fabula.arrays import numpy as host
from fabula.decoding.beam_rows import Ranking
from fabula.decoding.beam_search import BeamSearch
from fabula.decoding.closed.beam_found import Made, made_by, replayed
from fabula.decoding.closed.beam_loop import decode_beams
from fabula.decoding.closed.beams import ClosedGroup, beam_leaves_of, close_beams, over_of, padded_beams
from fabula.decoding.constrained_beams import ConstrainedBeamSearch
from fabula.decoding.constraints import DisjunctiveConstraint, PhrasalConstraint
from fabula.decoding.diverse_beams import DiverseBeamSearch
from fabula.decoding.recipe import Record
from fabula.processors import (
    NoRepeatNGramLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
)
from tests.decoding.closed.test_rows import TABLE, VOCABULARY, closed_row, compiled, forward_of, logits_of
from tests.decoding.searching import drive

EOS = (7, 8, 9)
NEW = 20
NOTHING = Record()
RANKINGS = [Ranking(), Ranking(0.3, True), Ranking(2.0, "never", NEW), Ranking(-1.0), Ranking(-0.5, "never", NEW)]
CHAINS = {
    "best": ([RepetitionPenaltyLogitsProcessor(1.3), NoRepeatNGramLogitsProcessor(2)], None),
    "drawn": ([TemperatureLogitsWarper(1.5), TopKLogitsWarper(11)], 3),
    "diverse": ([RepetitionPenaltyLogitsProcessor(1.3), NoRepeatNGramLogitsProcessor(2)], None),
    "constrained": ([RepetitionPenaltyLogitsProcessor(1.3), NoRepeatNGramLogitsProcessor(3)], None),
}
CONSTRAINTS = [
    (PhrasalConstraint([14, 3, 14]), DisjunctiveConstraint([[14, 4], [21, 5, 6]]), PhrasalConstraint([21])),
    (PhrasalConstraint([11]),),
    (PhrasalConstraint([12, 13]), PhrasalConstraint([12, 13])),
    (DisjunctiveConstraint([[1, 2, 3], [1, 4], [5]]), PhrasalConstraint([2, 2])),
    (PhrasalConstraint([7]), PhrasalConstraint([25, 26, 27, 28])),  # the first ends a text: it is never forced
]


@pytest.fixture(params=["numpy", "torch", "jax", "tensorflow"])
def xp(request):
    """The array functions of one framework; JAX and TensorFlow compile the loop."""
    pytest.importorskip(request.param)
    return import_module(f"fabula.arrays.{request.param}")


def driven(search, prompt, chain, seed, eos=EOS):
    """The search one turn after another."""
    return drive(
        search,
        lambda rows: logits_of(rows[:, -1], rows.shape[1] - 1),
        prompt,
        max_new=NEW,
        eos=eos,
        processors=chain,
        seed=seed,
    )


def begun(search, prompt, first, chain, seed, eos=EOS, room=NEW - 2, record=NOTHING):
    """The search after its first turn, on the host; the one that reaches the limit is not the loop's."""
    rows = [
        closed_row([*prompt, token], chain, seed is not None, room, seed or 0, eos=eos)
        for token in first.tokens.tolist()
    ]
    how = {"strategy": search, "record": record}
    rows = [replace(row, prompt_length=len(prompt), recipe=replace(row.recipe, **how)) for row in rows]
    return ClosedGroup(rows, first.carry)


def run(xp, form, beams, table=TABLE):
    """What each group chose from."""
    leaves, rebuild = beam_leaves_of(beams)

    def loop(rows, *leaves):
        forward = forward_of(xp, table)
        return decode_beams(forward, lambda count, parents: count, rows, form, rebuild(leaves), vocabulary=VOCABULARY)

    given = [xp.asarray(part, str(part.dtype)) for part in leaves]
    found, _ = compiled(xp, loop)(xp.asarray(0, "int32"), *given)
    return made_by(form, found.on_host(xp.to_host), len(beams.hasty))


def search_of(way, ranking, place):
    if way == "diverse":
        return DiverseBeamSearch(4, 2, 0.5 + place, 2, ranking, len(EOS), padding=5)
    if way == "constrained":
        return ConstrainedBeamSearch(3, CONSTRAINTS[place], 2, ranking, len(EOS))
    return BeamSearch(3, 2, ranking, len(EOS))


def beams_of(move):
    """Those of each subgroup, and the results that they have; a subgroup that is over has no beams."""
    running = ClosedGroup([], move.carry).subgroups
    over = over_of(move.carry)
    beams = [[] if done else [one.tokens.tolist(), one.rows.tolist()] for one, done in zip(running, over, strict=True)]
    return over, beams, [results_of(one.pool.kept) for one in running]


def lineage(moves):
    """Int["W N"]: what the rows of the last of these moves were continued with."""
    tokens = np.zeros((len(moves[0].tokens), 0), np.int32)
    for move in moves:
        tokens = np.column_stack([tokens[move.parents], move.tokens])
    return tokens


def results_of(hypotheses):
    return [(one.tokens.tolist(), one.rows.tolist(), one.reason, pytest.approx(one.score)) for one in hypotheses]


def ends(row, token):
    return "stop" if token in EOS else None


@pytest.mark.parametrize("way", CHAINS)
def test_turns_are_those_one_by_one(xp, way):
    chain, seed = CHAINS[way]
    searches = [search_of(way, ranking, place) for place, ranking in enumerate(RANKINGS)]
    prompts = [np.random.default_rng(length).integers(10, VOCABULARY, length).tolist() for length in (3, 4, 6, 2, 5)]
    expected = [driven(search, prompt, chain, seed) for search, prompt in zip(searches, prompts, strict=True)]
    assert len({len(one.moves) for one in expected}) > 1, "some end early"
    groups = [
        begun(search, prompt, one.moves[0], chain, seed)
        for search, prompt, one in zip(searches, prompts, expected, strict=True)
    ]
    form, beams = close_beams(groups, 32)
    every = run(xp, form, padded_beams(beams, 8, 40))
    assert len({all(made.over) for made in every}) == 2, "some end early, the others at their limit"
    for search, one, made in zip(searches, expected, every[:5], strict=True):
        same = one.moves[1:] if all(made.over) else one.moves[1:-1]  # a turn at the limit is not the loop's
        move = replayed(search, one.moves[0].carry, ends, made)
        assert len(made.turns) == len(same) and all(made.over) == (len(one.moves) < NEW)
        assert move.settled == tuple(token for each in same for token in each.settled)
        if all(made.over):
            assert results_of(move.finished) == results_of(one.results)
        else:
            assert beams_of(move) == beams_of(same[-1])
            scores = [[part.scores for part in ClosedGroup([], own.carry).subgroups] for own in (move, same[-1])]
            np.testing.assert_allclose(*scores, rtol=2e-6)
            assert (move.tokens == lineage(same)).all()
    assert not any(made.turns for made in every[5:]), "padding has no turns"
    if way == "diverse":
        assert any(not len(own) for made in every for turn in made.turns for own in turn.candidates), (
            "one is over before another"
        )


def test_what_is_recorded_of_each_turn_is_what_it_chose_from(xp):
    chain, seed = CHAINS["diverse"]
    searches = [search_of("diverse", ranking, place) for place, ranking in enumerate(RANKINGS[:3])]
    prompts = [np.random.default_rng(length).integers(10, VOCABULARY, length).tolist() for length in (3, 4, 6)]
    expected = [driven(search, prompt, chain, seed) for search, prompt in zip(searches, prompts, strict=True)]
    records = [Record(scores=True), Record(scores=True, logits=True, log_probabilities=2), NOTHING]
    groups = [
        begun(search, prompt, one.moves[0], chain, seed, record=record)
        for search, prompt, one, record in zip(searches, prompts, expected, records, strict=True)
    ]
    form, beams = close_beams(groups, 32)
    assert form.chain.record == Record(scores=True, logits=True)
    for search, one, made in zip(searches, expected, run(xp, form, padded_beams(beams, 4, 40)), strict=False):
        move = replayed(search, one.moves[0].carry, ends, made)
        assert len(move.scores) == len(made.turns) > 3
        for mine, turn, told, context in zip(move.scores, one.moves[1:], made.turns, one.contexts[1:], strict=False):
            np.testing.assert_allclose(mine, turn.scores, rtol=2e-6, atol=2e-6)
            np.testing.assert_array_equal(told.logits, logits_of(context[:, -1], context.shape[1] - 1))


def test_a_group_ends_before_a_turn_without_enough_candidates_or_with_no_number(xp):
    search, prompts, eos = BeamSearch(3, 2), ([10, 11], [10, 13]), (12,)
    firsts = [driven(search, prompt, [], None, ()).moves[0] for prompt in prompts]
    groups = [begun(search, *pair, [], None, eos) for pair in zip(prompts, firsts, strict=True)]
    table = np.where(np.arange(VOCABULARY) == 12, TABLE, -np.inf)  # only what ends
    reached = [(token * 31 + 2) % len(TABLE) for token in firsts[1].tokens.tolist()]
    table[reached] = np.nan
    assert run(xp, *close_beams(groups, 32), table.astype(np.float32)) == [Made([], [False])] * 2


def test_numbers_are_no_part_of_the_form():
    def form(ranking=RANKINGS[0], penalty=1.1, beams=3, results=1, ends=1, seed=None):
        search, chain = BeamSearch(beams, results, ranking, ends), [RepetitionPenaltyLogitsProcessor(penalty)]
        first = driven(search, [10, 11], chain, seed, ()).moves[0]
        return close_beams([begun(search, [10, 11], first, chain, seed)], 8)[0]

    same = form()
    assert same == form(RANKINGS[2], 1.7, results=2) and hash(same) == hash(form(RANKINGS[1]))
    assert same != form(beams=4) and same != form(ends=3) and same != form(seed=1)


def test_unlike_searches_are_no_loop():
    def group(search, seed=None):
        return begun(search, [10, 11], driven(search, [10, 11], [], seed, ()).moves[0], [], seed)

    plain = group(BeamSearch(4))
    assert close_beams([plain, group(BeamSearch(4, 2, RANKINGS[1]))], 8) is not None
    for other in (
        group(BeamSearch(4, end_tokens=3)),
        group(BeamSearch(4), seed=1),
        group(DiverseBeamSearch(4, 2, 0.5)),
        group(DiverseBeamSearch(4, 1, 0.5)),
    ):
        assert close_beams([plain, other], 8) is None
    pairs = [group(DiverseBeamSearch(4, 2, penalty)) for penalty in (0.5, 2.0)]
    assert close_beams(pairs, 8) is not None
    assert close_beams([pairs[0], group(DiverseBeamSearch(4, 4, 0.5))], 8) is None
    phrases = [group(ConstrainedBeamSearch(4, (PhrasalConstraint(phrase),))) for phrase in ([1, 2], [3])]
    assert close_beams(phrases, 8) is not None
    assert close_beams([phrases[0], plain], 8) is None
    assert close_beams([group(DiverseBeamSearch(4, 2, 0.5), seed=1)], 8) is None


def test_a_hurried_loop_ends_with_the_first_group_and_not_with_padding():
    search, prompt = BeamSearch(2), [10, 11]
    first = driven(search, prompt, [], None, ()).moves[0]
    groups = [begun(search, prompt, first, [], None, eos=(), room=room) for room in (9, 3, 6)]
    form, beams = close_beams(groups, 16, hurried=True)
    assert [len(made.turns) for made in run(host, form, padded_beams(beams, 4, 16))] == [3, 3, 3, 0]
