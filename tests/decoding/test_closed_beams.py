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
from fabula.decoding.closed_beam_loop import decode_beams
from fabula.decoding.closed_beams import (
    ClosedGroup,
    Found,
    beam_leaves_of,
    close_beams,
    padded_beams,
    turns_of,
)
from fabula.decoding.diverse_beams import DiverseBeamSearch
from fabula.processors import (
    NoRepeatNGramLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
)
from tests.decoding.searching import drive
from tests.decoding.test_closed import TABLE, VOCABULARY, closed_row, compiled, forward_of, logits_of

EOS = (7, 8, 9)
NEW = 20
RANKINGS = [Ranking(), Ranking(0.3, True), Ranking(2.0, "never", NEW), Ranking(-1.0), Ranking(-0.5, "never", NEW)]
CHAINS = {
    "best": ([RepetitionPenaltyLogitsProcessor(1.3), NoRepeatNGramLogitsProcessor(2)], None),
    "drawn": ([TemperatureLogitsWarper(1.5), TopKLogitsWarper(11)], 3),
}


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


def begun(search, prompt, first, chain, seed, eos=EOS, room=NEW - 2):
    """The search after its first turn, on the host; the one that reaches the limit is not the loop's."""
    rows = [
        closed_row([*prompt, token], chain, seed is not None, room, seed or 0, eos=eos)
        for token in first.tokens.tolist()
    ]
    rows = [replace(row, prompt_length=len(prompt), recipe=replace(row.recipe, strategy=search)) for row in rows]
    return ClosedGroup(rows, first.carry)


def run(xp, form, beams, table=TABLE):
    """What each group's turns chose from."""
    leaves, rebuild = beam_leaves_of(beams)

    def loop(rows, *leaves):
        return decode_beams(forward_of(xp, table), lambda rows, parents: rows, rows, form, rebuild(leaves))

    given = [xp.asarray(part, str(part.dtype)) for part in leaves]
    found, _ = compiled(xp, loop)(xp.asarray(0, "int32"), *given)
    return turns_of(form, Found(*map(xp.to_host, found)), len(beams.hasty))


def beams_of(move):
    beams = move.carry.beams
    return beams.tokens.tolist(), beams.rows.tolist(), [one.tokens.tolist() for one in beams.pool.kept]


@pytest.mark.parametrize("way", CHAINS)
def test_turns_are_those_one_by_one(xp, way):
    chain, seed = CHAINS[way]
    searches = [BeamSearch(3, 2, ranking, len(EOS)) for ranking in RANKINGS]
    prompts = [np.random.default_rng(length).integers(10, VOCABULARY, length).tolist() for length in (3, 4, 6, 2, 5)]
    expected = [driven(search, prompt, chain, seed) for search, prompt in zip(searches, prompts, strict=True)]
    assert len({len(one.moves) for one in expected}) > 2, "some end early"
    groups = [
        begun(search, prompt, one.moves[0], chain, seed)
        for search, prompt, one in zip(searches, prompts, expected, strict=True)
    ]
    form, beams = close_beams(groups, 32)
    every = run(xp, form, padded_beams(beams, 8, 40))
    for search, one, turns in zip(searches, expected, every[:5], strict=True):
        assert len(turns) == len(one.moves) - 2
        move = search.replay(one.moves[0].carry, lambda row, token: "stop" if token in EOS else None, turns)
        assert beams_of(move) == beams_of(one.moves[-2])
        np.testing.assert_allclose(move.carry.beams.scores, one.moves[-2].carry.beams.scores, rtol=2e-6)
        assert move.settled == tuple(token for each in one.moves[1:-1] for token in each.settled)
    assert not any(every[5:]), "padding has no turns"


def test_a_group_ends_before_a_turn_without_enough_candidates_or_with_no_number(xp):
    search, prompts, eos = BeamSearch(3, 2), ([10, 11], [10, 13]), (12,)
    firsts = [driven(search, prompt, [], None, ()).moves[0] for prompt in prompts]
    groups = [begun(search, *pair, [], None, eos) for pair in zip(prompts, firsts, strict=True)]
    table = np.where(np.arange(VOCABULARY) == 12, TABLE, -np.inf)  # only what ends
    reached = [(token * 31 + 2) % len(TABLE) for token in firsts[1].tokens.tolist()]
    table[reached] = np.nan
    assert run(xp, *close_beams(groups, 32), table.astype(np.float32)) == [[], []]


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
        return begun(search, [10, 11], driven(BeamSearch(4), [10, 11], [], seed, ()).moves[0], [], seed)

    plain = group(BeamSearch(4))
    assert close_beams([plain, group(BeamSearch(4, 2, RANKINGS[1]))], 8) is not None
    for other in (
        group(BeamSearch(4, end_tokens=3)),
        group(BeamSearch(4), seed=1),
        group(DiverseBeamSearch(4, 2, 0.5)),
    ):
        assert close_beams([plain, other], 8) is None


def test_a_hurried_loop_ends_with_the_first_group_and_not_with_padding():
    search, prompt = BeamSearch(2), [10, 11]
    first = driven(search, prompt, [], None, ()).moves[0]
    groups = [begun(search, prompt, first, [], None, eos=(), room=room) for room in (9, 3, 6)]
    form, beams = close_beams(groups, 16, hurried=True)
    assert [len(turns) for turns in run(host, form, padded_beams(beams, 4, 16))] == [3, 3, 3, 0]
