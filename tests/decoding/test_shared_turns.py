"""Sequences of one search that take a turn together become, bit for bit, what each becomes alone."""

from __future__ import annotations

import numpy as np
import pytest

from fabula.context import Context
from fabula.decoding.beam_rows import Ranking
from fabula.decoding.beam_search import BeamSearch
from fabula.decoding.constrained_beams import ConstrainedBeamSearch
from fabula.decoding.constraints import PhrasalConstraint
from fabula.decoding.contrastive import ContrastiveSearch
from fabula.decoding.diverse_beams import DiverseBeamSearch
from fabula.decoding.strategy import Draw, Tapped, Turn, Underway
from fabula.errors import NumericalError
from fabula.processors import NoRepeatNGramLogitsProcessor, RepetitionPenaltyLogitsProcessor, TopKLogitsWarper
from fabula.processors.rows import stack

SEARCHES = {
    "beams": BeamSearch(3, 2, end_tokens=1),
    "greedy end": BeamSearch(4, 1, Ranking(early_stopping=True), end_tokens=2),
    "groups": DiverseBeamSearch(4, 2, 0.7, end_tokens=1),
    "forced": ConstrainedBeamSearch(3, (PhrasalConstraint([5, 6]), PhrasalConstraint([9]))),
    "contrastive": ContrastiveSearch(4, 0.6),
}
LIMIT = 9
EOS = (2, 3)


class Sequence:
    """One sequence of a search, as an engine holds it: its rows, and what the search wants back."""

    def __init__(self, number, processors=()):
        self.rows = np.random.default_rng(number).integers(4, 40, (1, 3 + number)).astype(np.int32)
        self.prompt = self.rows.shape[1]
        self.stream, self.processors, self.carry, self.results = number, list(processors), None, None

    def ends(self, row, token):
        assert 0 <= row < len(self.rows)
        return "stop" if token in EOS else "length" if self.rows.shape[1] + 1 - self.prompt >= LIMIT else None

    def become(self, move):
        self.carry, self.results = move.carry, move.finished
        self.rows = np.column_stack([self.rows[move.parents], move.tokens]).astype(np.int32)


def logits_of(tokens, vocabulary):
    """Logits that depend on all of a row's tokens."""
    return np.random.default_rng(tokens.tolist()).standard_normal(vocabulary, np.float32) * 2


def hidden_of(tokens):
    """The hidden state at the last of these tokens."""
    return np.random.default_rng([1, *tokens.tolist()]).standard_normal(6, np.float32)


def turn_of(xp, sequences, vocabulary, sampled):
    rows = [row for one in sequences for row in one.rows]
    owners = [one for one in sequences for _ in one.rows]
    tokens = np.zeros((len(rows), max(map(len, rows))), np.int32)
    for place, row in enumerate(rows):
        tokens[place, : len(row)] = row
    parts = (tokens, [len(row) for row in rows], [one.prompt for one in owners])
    context = Context(*(xp.asarray(np.asarray(part), "int32") for part in parts))
    draw = Draw.of([7] * len(rows), [one.stream for one in owners], parts[1], [sampled] * len(rows))
    hidden = [np.stack([hidden_of(row[: end + 1]) for end in range(len(row))]) for row in rows]
    last = np.stack([each[-1] for each in hidden])
    tapped = Tapped([xp.asarray(each, "float32") for each in hidden], xp.asarray(last, "float32"))
    logits = xp.asarray(np.stack([logits_of(row, vocabulary) for row in rows]), "float32")
    return Turn(logits, stack([one.processors for one in owners]), lambda: context, draw, tapped)


def facts(move):
    """What a move says, in comparable form."""
    finished = move.finished and [(one.tokens.tolist(), one.reason, one.score) for one in move.finished]
    return move.parents.tolist(), move.tokens.tolist(), move.settled, finished


@pytest.mark.parametrize("vocabulary", [60, 9001])
@pytest.mark.parametrize("name", [*SEARCHES, "drawn"])
def test_a_move_is_that_of_the_sequence_alone(xp, name, vocabulary):
    search, sampled = SEARCHES.get(name, SEARCHES["beams"]), name == "drawn"
    own = [RepetitionPenaltyLogitsProcessor(1.3), NoRepeatNGramLogitsProcessor(2)]
    chains = [own, own, [RepetitionPenaltyLogitsProcessor(1.1)], [TopKLogitsWarper(30)]]
    living = [Sequence(number, chain) for number, chain in enumerate(chains)]
    turns = 0
    while living:
        turn = turn_of(xp, living, vocabulary, sampled)
        together = search.advance(turn, [Underway(one.carry, one.ends) for one in living])
        for one, move in zip(living, together, strict=True):
            mine = turn_of(xp, [one], vocabulary, sampled)
            (alone,) = search.advance(mine, [Underway(one.carry, one.ends)])
            assert facts(move) == facts(alone)
            if alone.scores is None:
                assert move.scores is None
            else:
                assert np.array_equal(xp.to_host(move.scores), xp.to_host(alone.scores))
        for one, move in zip(living, together, strict=True):
            one.become(move)
        living = [one for one in living if one.results is None]
        widths = [len(one.rows) for one in living]
        assert len(set(widths)) <= 1, "sequences with other numbers of rows take other turns"
        turns += 1
    assert turns >= LIMIT - 1


@pytest.mark.parametrize("name", SEARCHES)
def test_one_sequence_without_a_finite_score_fails_the_turn_and_says_so(name):
    from fabula.arrays import numpy as xp

    living = [Sequence(number) for number in range(3)]
    turn = turn_of(xp, living, 60, False)
    turn.logits[1] = np.nan
    with pytest.raises(NumericalError, match="NaN"):
        SEARCHES[name].advance(turn, [Underway(None, one.ends) for one in living])
