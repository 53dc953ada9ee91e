"""The loop of constrained beams makes the moves of the search, whatever the phrases; arrays say what the states say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("torch")

from hypothesis import given, settings
from hypothesis import strategies as st

from fabula.arrays import numpy as host
from fabula.decoding.beam_rows import Ranking
from fabula.decoding.closed.beam_found import replayed
from fabula.decoding.closed.beams import ClosedGroup, close_beams, padded_beams
from fabula.decoding.constrained_beams import ConstrainedBeamSearch
from fabula.decoding.constraint_list import ConstraintListState
from fabula.decoding.constraint_tries import Edge, are_tries, close_constraints, edges_of
from fabula.decoding.constraints import DisjunctiveConstraint, PhrasalConstraint
from fabula.errors import ArgumentError
from fabula.processors import SuppressTokensLogitsProcessor
from tests.decoding.closed.test_beams import begun, run
from tests.decoding.closed.test_rows import TABLE, VOCABULARY
from tests.decoding.searching import drive
from tests.decoding.test_constraints import Twice

EOS = (7, 8)
NEW = 16
TIED = np.round(TABLE).astype(np.float32)  # many scores are equal: the order decides
FLAT = np.zeros_like(TABLE)  # all are


def logits_by(table):
    return lambda rows: table[(rows[:, -1] * 31 + rows.shape[1] - 1) % len(table)]


def moves_of(search, prompt, table, chain=()):
    return drive(search, logits_by(table), prompt, max_new=NEW, eos=EOS, processors=list(chain))


def beams_of(carry):
    beams = carry.beams
    states = [(state.get_bank(), state.completed, state.advance()) for state in carry.states]
    kept = [(one.tokens.tolist(), one.rows.tolist(), one.reason, one.score) for one in beams.pool.kept]
    return beams.tokens.tolist(), beams.rows.tolist(), beams.scores.tolist(), states, kept


def results_of(move):
    return [(one.tokens.tolist(), one.rows.tolist(), one.reason, one.score) for one in move.finished]


TOKENS = st.integers(0, 11)  # few, so that phrases meet; 7 and 8 end a text
PHRASES = st.lists(TOKENS, min_size=1, max_size=4)
CONSTRAINTS = st.one_of(
    PHRASES.map(PhrasalConstraint),
    st.lists(PHRASES, min_size=1, max_size=3)
    .filter(lambda some: not any(one == other[: len(one)] for one in some for other in some if one is not other))
    .map(DisjunctiveConstraint),
)


@settings(max_examples=60, deadline=None)
@given(
    searches=st.lists(
        st.tuples(
            st.lists(CONSTRAINTS, min_size=1, max_size=4).map(tuple),
            st.sampled_from([(1.0, False), (0.3, True), (2.0, "never", NEW), (-1.0, False)]),
            st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=6),
        ),
        min_size=1,
        max_size=3,
    ),
    beams=st.integers(2, 5),
    table=st.sampled_from([TABLE, TIED, FLAT]),
    suppressed=st.sampled_from([(), (3, 4)]),
)
def test_moves_are_those_one_by_one(searches, beams, table, suppressed):
    made_of = [
        ConstrainedBeamSearch(beams, constraints, 2, Ranking(*ranking), len(EOS))
        for constraints, ranking, _ in searches
    ]
    chain = [SuppressTokensLogitsProcessor(list(suppressed))] if suppressed else []
    driven = [moves_of(search, each[-1], table, chain) for search, each in zip(made_of, searches, strict=True)]
    going = [place for place, one in enumerate(driven) if one.moves[0].finished is None]
    groups = [
        begun(made_of[place], searches[place][-1], driven[place].moves[0], chain, None, EOS, NEW - 2) for place in going
    ]
    closed = close_beams(groups, 20) if groups else None
    assert closed is not None or not groups, "texts of a search that had enough to choose from differ"
    if closed is None:
        return
    form, arrays = closed
    every = run(host, form, padded_beams(arrays, 4, 40), table)
    for place, made in zip(going, every, strict=False):
        moves = driven[place].moves
        move = replayed(made_of[place], moves[0].carry, ends, made)
        same = moves[1 : 1 + len(made.turns)]
        assert len(made.turns) == len(moves) - (1 if all(made.over) else 2), (
            "the first is made, the limit is the host's"
        )
        if same[-1].finished is not None:
            assert results_of(move) == results_of(same[-1])
        else:
            assert beams_of(move.carry) == beams_of(same[-1].carry)


def ends(row, token):
    return "stop" if token in EOS else None


def test_edges_are_tokens_behind_tokens():
    edges = edges_of([PhrasalConstraint([5, 6, 5]), DisjunctiveConstraint([[1, 2], [1, 3], [4]])])
    assert edges == [
        Edge(5, -1, 0, False, 1),
        Edge(6, 0, 0, False, 2),
        Edge(5, 1, 0, True, 3),
        Edge(1, -1, 1, False, 2),
        Edge(4, -1, 1, True, 2),
        Edge(2, 3, 1, True, 3),
        Edge(3, 3, 1, True, 3),
    ]


def test_states_are_an_edge_and_a_queue():
    constraints = (PhrasalConstraint([5, 6, 5]), DisjunctiveConstraint([[1, 2], [1, 3], [4]]), PhrasalConstraint([9]))
    states = [ConstraintListState([one.copy() for one in constraints]) for _ in range(4)]
    for state, text in zip(states, ([], [5, 6], [5, 9], [4, 9, 5, 6, 5]), strict=True):
        state.reset(text)
    closed = close_constraints([(constraints, states)])
    assert closed.nodes.tolist() == [[-1, 1, -1, -1]]
    assert closed.queues[0, :, :3].tolist() == [[0, 1, 2], [-1, 0, 1], [2, 0, 1], [-1, -1, -1]]
    assert (closed.queues[0, :, 3:] == -1).all() and closed.longest.tolist() == [3] and closed.counts.tolist() == [3]


def test_equal_constraints_are_told_apart_by_nothing_but_their_places():
    constraints = (PhrasalConstraint([5, 6]), PhrasalConstraint([5, 6]))
    state = ConstraintListState([one.copy() for one in constraints])
    state.reset([5])
    closed = close_constraints([(constraints, [state])])
    assert closed.nodes.tolist() == [[0]] and sorted(closed.queues[0, 0, :2].tolist()) == [-1, 0]


def test_phrases_are_numbers_and_no_part_of_the_form():
    def form(*constraints, **parts):
        search = ConstrainedBeamSearch(3, constraints, 1, Ranking(), len(EOS), **parts)
        first = moves_of(search, [10, 11], TABLE).moves[0]
        return close_beams([begun(search, [10, 11], first, [], None, EOS)], 8)[0]

    same = form(PhrasalConstraint([1, 2]))
    assert same == form(DisjunctiveConstraint([[3], [4, 5]]), PhrasalConstraint([6, 12, 13]))
    assert same != form(PhrasalConstraint(list(range(12, 21)))), "nine tokens need more room than eight"


def test_constraints_of_the_callers_own_are_the_hosts():
    class Own(PhrasalConstraint):
        """A subclass may do anything."""

    assert are_tries([PhrasalConstraint([1])])
    for one in (Twice(3), Own([1]), PhrasalConstraint([1] * 300)):
        assert not are_tries([PhrasalConstraint([1]), one])
    search = ConstrainedBeamSearch(3, (Twice(3),))
    first = moves_of(search, [10, 11], TABLE).moves[0]
    assert close_beams([begun(search, [10, 11], first, [], None, EOS)], 8) is None


def test_a_search_two_of_whose_texts_are_equal_is_the_hosts():
    search = ConstrainedBeamSearch(3, (PhrasalConstraint([1, 2]),))
    first = moves_of(search, [10, 11], TABLE).moves[0]
    group = begun(search, [10, 11], first, [], None, EOS)
    assert group.search is not None
    beams = replace(first.carry.beams, tokens=first.carry.beams.tokens[[0, 1, 1]])
    assert ClosedGroup(group.rows, replace(first.carry, beams=beams)).search is None


@pytest.mark.parametrize("phrase", [[VOCABULARY], [1, VOCABULARY + 5]])
def test_a_token_that_is_none_of_the_models_is_named_before_it_is_looked_for(phrase):
    constraints = (PhrasalConstraint([2]), DisjunctiveConstraint([[3], phrase]))
    with pytest.raises(ArgumentError, match=f"below {VOCABULARY}.*got {phrase[-1]}"):
        moves_of(ConstrainedBeamSearch(3, constraints), [10, 11], TABLE)
