"""The loop of closed texts makes the turns that contrastive search makes one by one, and stops before the host's."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("torch")

from fabula import arrays
from fabula.arrays import numpy as host
from fabula.decoding.beam_search import BeamSearch
from fabula.decoding.closed import contrastive
from fabula.decoding.closed.contrastive import (
    ClosedText,
    close_texts,
    move_of,
    padded_texts,
    settled_of,
    text_leaves_of,
)
from fabula.decoding.closed.contrastive_loop import FoundTexts, decode_texts
from fabula.decoding.closed.record import Recorded, blank
from fabula.decoding.contrastive import ContrastiveSearch
from fabula.decoding.recipe import Limits, Record
from fabula.decoding.strategy import Tapped, Underway
from fabula.processors import (
    MinLengthLogitsProcessor,
    NoRepeatNGramLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    SuppressTokensLogitsProcessor,
    TemperatureLogitsWarper,
)
from tests.decoding.closed.test_beams import xp  # noqa: F401  # a fixture
from tests.decoding.closed.test_rows import TABLE, VOCABULARY, closed_row, compiled, logits_of
from tests.decoding.loop import turn_of

FEATURES = 6
STATES = np.random.default_rng(1).normal(0.4, 1, (len(TABLE), FEATURES)).astype(np.float32)
EOS = (7, 8, 9)
NEW = 20
FEW = [SuppressTokensLogitsProcessor(range(3, VOCABULARY))]  # so few that there are fewer than some searches read
CASES = [  # the prompt's length, alpha, top_k, processors, room
    (3, 0.6, 4, [RepetitionPenaltyLogitsProcessor(1.3)], NEW),
    (1, 0.0, 2, [], NEW),
    (9, 1.0, 5, [NoRepeatNGramLogitsProcessor(2)], NEW),
    (5, 0.9, 5, FEW, NEW),
    (2, 0.3, 3, [TemperatureLogitsWarper(1.5), MinLengthLogitsProcessor(40, EOS)], NEW),
    (6, 0.5, 4, [MinLengthLogitsProcessor(40, EOS)], 7),
]


def ends_of(tokens, length):
    """As the engine would say it of rows of these tokens, which may become so long."""

    def ends(row, token):
        return "stop" if token in EOS else "length" if len(tokens[row]) + 1 >= length else None

    return ends


def driven(search, prompt, chain, most=NEW):
    """The search's moves, one turn after another."""
    rows, carry, moves = [list(prompt)], None, []
    while not moves or moves[-1].finished is None:
        last, place = np.array([row[-1] for row in rows]), len(rows[0]) - 1
        shown = [states_of(np.array(row), np.arange(len(row)))[0 if carry is None else -1 :] for row in rows]
        tapped = Tapped(shown, states_of(last, place))
        turn = turn_of(
            rows, [len(prompt)] * len(rows), logits_of(last, place), tapped, False, 0, [0] * len(rows), chain
        )
        moves += search.advance(turn, [Underway(carry, ends_of(rows, len(prompt) + most))])
        carry = moves[-1].carry
        rows = [
            [*rows[origin], token] for origin, token in zip(moves[-1].parents, moves[-1].tokens.tolist(), strict=True)
        ]
    return moves


def states_of(tokens, positions):
    return STATES[(tokens * 31 + positions) % len(STATES)]


def begun(search, prompt, carry, chain, room=NEW, record=Record(), most=NEW):  # noqa: B008  # is not changed
    """A text after its first turn, on the host."""
    row = closed_row(prompt, chain, False, room, eos=EOS)
    recipe = replace(row.recipe, strategy=search, record=record, limits=Limits(len(prompt) + most, frozenset(EOS)))
    return ClosedText(replace(row, recipe=recipe), carry)


def run(xp, form, texts, table=TABLE, turns=32):  # noqa: F811
    """What became of the texts, and the tokens that the model read in each of its rows."""
    texts = padded_texts(texts, len(texts.alpha), 64)
    leaves, rebuild = text_leaves_of(texts)

    def forward(last, positions, state):
        known, states = (xp.asarray(part, "float32", like=last) for part in (table, STATES))
        places = (last * 31 + positions) % len(table)
        return (xp.take(known, places), xp.take(states, places)), xp.scatter_set(
            state, positions[:, None], last[:, None]
        )

    def share(state, rows, positions):
        there = xp.take_along_axis(xp.take(state, rows), positions[:, None])
        return xp.scatter_set(state, positions[:, None], there)

    def loop(state, *leaves):
        here = rebuild(leaves)
        kept = blank(xp, form.chain, here.rows, turns, VOCABULARY)
        return decode_texts(forward, share, state, form, here, turns, kept)

    state = np.zeros((len(texts.rows.last), texts.read.shape[1]), np.int32)
    given = [xp.asarray(part, str(part.dtype)) for part in (state, *leaves)]
    found, state = compiled(xp, loop)(*given)
    kept = Recorded(*map(on_host, found.kept)) if found.kept else ()
    return FoundTexts(*map(on_host, found[:-1]), kept), on_host(state)


def on_host(part):
    return part if isinstance(part, tuple) else arrays.of(part).to_host(part)


def searched(cases=tuple(CASES)):
    """Each case's search and prompt, and the moves that it makes one by one."""
    found = []
    for length, alpha, width, chain, _ in cases:
        prompt = np.random.default_rng(length).integers(10, VOCABULARY, length).tolist()
        search = ContrastiveSearch(width, alpha)
        found.append((search, prompt, driven(search, prompt, chain)))
    return found


def settled_by(moves):
    return [token for move in moves for token in move.settled]


def test_turns_are_those_one_by_one(xp):  # noqa: F811
    every = searched()
    texts = [
        begun(search, prompt, moves[0].carry, chain, room, Record(log_probabilities=2, scores=True, logits=True))
        for (search, prompt, moves), (*_, chain, room) in zip(every, CASES, strict=True)
    ]
    form, closed = close_texts(texts)
    assert form.width == 5, "the most that one of them reads"
    assert form.chain.record == Record(scores=True, logits=True), "likelihoods are found when all is done"
    padded = padded_texts(closed, 8, 40)
    found, read = run(xp, form, padded)
    settled = settled_of(padded, found, 8)
    assert not any(map(len, settled[6:])), "padding has no turns"
    reasons = set()
    for place, (text, (_, prompt, moves)) in enumerate(zip(texts, every, strict=True)):
        own, room = settled[place], CASES[place][-1]
        last = moves[: room + 1][-1]
        move = move_of(text, own)
        assert list(move.settled) == move.written.tolist() == settled_by(moves[: room + 1])
        rows = read[place * form.width : (place + 1) * form.width, len(prompt) : len(prompt) + len(own)]
        assert (rows == own.tokens).all(), "each of its rows has what was settled"
        hold_recorded(own.recorded, [*prompt, *settled_by(moves)], len(prompt), moves[1 : room + 1])
        if last.finished is not None:
            assert own.over and move.finished[0].tokens.tolist() == last.finished[0].tokens.tolist()
            assert move.finished[0].reason == last.finished[0].reason
            reasons.add(move.finished[0].reason)
            continue
        assert move.tokens.tolist() == last.tokens.tolist() and not move.parents.any()
        assert move.carry.reasons == last.carry.reasons
        np.testing.assert_allclose(move.carry.probabilities, last.carry.probabilities, rtol=1e-5)
        np.testing.assert_allclose(move.carry.read, last.carry.read, atol=1e-6)
    assert reasons == {"stop", "length"} and not settled[5].over


def hold_recorded(told, tokens, first, moves):
    """What was kept of turns that chose something: of those one by one."""
    for turn, move in enumerate(move for move in moves if move.finished is None):
        np.testing.assert_allclose(told.scores[turn], move.scores[0], rtol=1e-5)
        np.testing.assert_array_equal(told.logits[turn], logits_of(tokens[first + turn], first + turn))


def test_a_loop_goes_on_from_what_another_settled():
    ((search, prompt, moves),) = searched(CASES[4:5])
    chain, carry, settled, tokens = CASES[4][3], moves[0].carry, [], list(prompt)
    for room in (1, 6, 2, 11):
        text = begun(search, tokens, carry, chain, room, most=len(prompt) + NEW - len(tokens))
        text = replace(text, row=replace(text.row, prompt_length=len(prompt)))
        form, closed = close_texts([text])
        (own,) = settled_of(closed, run(host, form, closed)[0], 1)
        move = move_of(text, own)
        carry, settled, tokens = move.carry, [*settled, *move.settled], [*tokens, *move.settled]
    assert settled == settled_by(moves) and move.finished[0].tokens.tolist() == settled


@pytest.mark.parametrize("lost", [np.nan, -np.inf])
def test_a_text_stops_before_a_turn_that_the_host_has_to_refuse(xp, lost):  # noqa: F811
    ((search, prompt, moves),) = searched(CASES[4:5])
    tokens = [*prompt, *settled_by(moves)]
    text = begun(search, prompt, moves[0].carry, CASES[4][3])
    form, closed = close_texts([text])
    table, place = TABLE.copy(), len(prompt) + 3
    table[(tokens[place] * 31 + place) % len(table)] = lost
    (own,) = settled_of(closed, run(xp, form, closed, table)[0], 1)
    assert own.tokens.tolist() == tokens[len(prompt) : place] and not own.over
    assert own.candidates.tolist() == moves[3].tokens.tolist()


def test_numbers_are_no_part_of_the_form():
    def form(alpha=0.6, width=4, chain=(), length=3):
        prompt = list(range(10, 10 + length))
        search = ContrastiveSearch(width, alpha)
        return close_texts([begun(search, prompt, driven(search, prompt, chain)[0].carry, chain)])[0]

    same = form(chain=[RepetitionPenaltyLogitsProcessor(1.1)])
    assert same == form(0.2, 4, [RepetitionPenaltyLogitsProcessor(1.7)], 5) and hash(same) == hash(same)
    assert same != form() and form() != form(width=3)


def test_a_search_may_read_more_candidates_than_there_are_tokens():
    search, prompt = ContrastiveSearch(VOCABULARY + 3, 0.8), [10, 11]
    moves = driven(search, prompt, [], 6)
    form, closed = close_texts([begun(search, prompt, moves[0].carry, [], 6, most=6)])
    (own,) = settled_of(closed, run(host, form, closed)[0], 1)
    assert own.tokens.tolist() == settled_by(moves)


def test_other_searches_and_texts_that_take_too_much_are_no_loop(monkeypatch):
    ((search, prompt, moves),) = searched(CASES[:1])
    text = begun(search, prompt, moves[0].carry, [])
    other = replace(text, row=replace(text.row, recipe=replace(text.row.recipe, strategy=BeamSearch(3))))
    assert close_texts([text, other]) is None and close_texts([text, text]) is not None
    monkeypatch.setattr(contrastive, "MOST", 4 * 4 * 2 * 128 * FEATURES - 1)
    assert close_texts([text, text]) is None and close_texts([text]) is not None


def test_a_hurried_loop_ends_with_the_first_text_and_not_with_padding():
    ((search, prompt, moves),) = searched(CASES[4:5])
    texts = [begun(search, prompt, moves[0].carry, CASES[4][3], room) for room in (9, 3, 6)]
    form, closed = close_texts(texts, hurried=True)
    padded = padded_texts(closed, 4, 40)
    assert [len(own) for own in settled_of(padded, run(host, form, padded)[0], 4)] == [3, 3, 3, 0]
