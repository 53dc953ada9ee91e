"""What a constraint counts as a step, as completion and as a setback; how a list of them is worked off."""

from __future__ import annotations

import pytest

from fabula.decoding.constraint_list import ConstraintListState
from fabula.decoding.constraints import (
    Constraint,
    DisjunctiveConstraint,
    PhrasalConstraint,
    constraints_of,
)
from fabula.errors import ArgumentError


def test_a_phrase_is_met_token_by_token():
    phrase = PhrasalConstraint([5, 6])
    assert (phrase.advance(), phrase.remaining()) == (5, 2)
    assert phrase.update(5) == (True, False, False)
    assert (phrase.advance(), phrase.remaining()) == (6, 1)
    assert phrase.update(6) == (True, True, False)
    assert (phrase.advance(), phrase.remaining(), phrase.completed) == (None, 0, True)


def test_a_wrong_token_sets_a_phrase_back_to_its_first():
    phrase = PhrasalConstraint([5, 6])
    phrase.update(5)
    assert phrase.update(7) == (False, False, True)
    assert (phrase.advance(), phrase.remaining(), phrase.fulfilled_idx) == (5, 2, -1)


def test_any_of_several_phrases_is_enough():
    words = DisjunctiveConstraint([[1, 2, 3], [1, 4], [5]])
    assert sorted(words.advance()) == [1, 5]
    assert words.seqlen == 3
    assert words.update(1) == (True, False, False)
    assert (sorted(words.advance()), words.remaining()) == ([2, 4], 2)
    assert words.update(4) == (True, True, False)
    assert (words.advance(), words.remaining(), words.completed) == (None, 0, True)


def test_a_wrong_token_sets_several_phrases_back():
    words = DisjunctiveConstraint([[1, 2], [3]])
    words.update(1)
    assert words.update(3) == (False, False, True)
    assert (words.current_seq, sorted(words.advance())) == ([], [1, 3])


@pytest.mark.parametrize("phrases", [[[1], [1, 2]], [[1, 2], [1, 2]]])
def test_a_phrase_that_begins_another_is_refused(phrases):
    with pytest.raises(ArgumentError, match="none begins another"):
        DisjunctiveConstraint(phrases)


@pytest.mark.parametrize("make", [lambda: PhrasalConstraint([5, 6]), lambda: DisjunctiveConstraint([[5, 6], [7]])])
def test_copies_keep_or_leave_the_state(make):
    first = make()
    first.update(5)
    assert first.copy(stateful=True).remaining() == 1
    assert first.copy().remaining() == 2
    first.copy(stateful=True).update(6)
    assert first.remaining() == 1
    first.test()


def test_constraints_are_met_one_after_the_other_in_any_order():
    state = ConstraintListState([PhrasalConstraint([1, 2]), DisjunctiveConstraint([[3], [4, 5]])])
    assert state.advance() == [1, 3, 4]
    assert state.add(4) == (False, True)
    assert state.advance() == [5]
    assert state.get_bank() == 2 - 1
    assert state.add(5) == (True, True)
    assert (state.get_bank(), state.advance(), state.completed) == (2, [1], False)
    state.add(1)
    assert state.get_bank() == 3
    assert state.add(2) == (True, True)
    assert (state.get_bank(), state.advance(), state.completed) == (4, None, True)
    assert state.add(9) == (True, False)


def test_a_constraint_that_is_broken_off_is_pending_again():
    state = ConstraintListState([PhrasalConstraint([1, 2]), PhrasalConstraint([3])])
    state.add(1)
    assert state.add(3) == (False, False)  # it breaks the phrase off, and meets nothing
    assert sorted(state.advance()) == [1, 3]
    assert state.get_bank() == 0


def test_a_list_is_copied_and_reset():
    state = ConstraintListState([PhrasalConstraint([1, 2])])
    state.reset([0, 1])
    other = state.copy()
    other.add(2)
    assert (other.completed, state.completed) == (True, False)
    assert state.copy(stateful=False).get_bank() == 0
    state.reset([1, 2, 7])
    assert state.completed
    state.reset(None)
    assert state.get_bank() == 0


def test_forced_words_become_constraints():
    first, second = constraints_of([PhrasalConstraint([9])], [[1, 2]])
    assert (first.token_ids, second.token_ids) == ([9], [1, 2])
    (either,) = constraints_of(None, [[[1], [2, 3]]])
    assert isinstance(either, DisjunctiveConstraint)


@pytest.mark.parametrize("words", [[], 5, [5], [[]], [[1.5]], [[-1]], [[True]], [[[]]]])
def test_forced_words_that_are_no_token_ids_are_refused(words):
    with pytest.raises(ArgumentError):
        constraints_of(None, words)


def test_things_that_are_no_constraints_are_refused():
    with pytest.raises(ArgumentError, match="Constraint objects, got int"):
        constraints_of([1], None)


class Twice(Constraint):
    """A user's own: the text must hold a token twice, with anything between."""

    def __init__(self, token: int, accepts: bool = True) -> None:
        self.token, self.accepts, self.seqlen, self.met = token, accepts, 2, 0
        if accepts:
            self.test()

    def advance(self):
        return self.token if self.met < 2 else None

    def does_advance(self, token_id):
        return self.accepts and token_id == self.token and self.met < 2

    def update(self, token_id):
        stepped = self.does_advance(token_id)
        self.met += stepped
        return stepped, self.met == 2, False

    def reset(self):
        self.met = 0

    def remaining(self):
        return 2 - self.met

    def copy(self, stateful=False):
        other = Twice(self.token, accepts=False)
        other.accepts, other.met = self.accepts, self.met if stateful else 0
        return other


def test_a_class_of_the_users_own_takes_part():
    state = ConstraintListState([Twice(4)])
    for token in (4, 8, 4):
        state.add(token)
    assert state.completed


def test_a_constraint_that_cannot_be_met_is_found_out():
    with pytest.raises(ArgumentError, match="`Twice` must be completed"):
        Twice(4, accepts=False).test()


def test_constraints_are_equal_that_ask_for_the_same_and_are_as_far():
    for kind, tokens, other in ((PhrasalConstraint, [5, 6], [5, 7]), (DisjunctiveConstraint, [[5, 6], [7]], [[5, 6]])):
        one, same = kind(tokens), kind(tokens)
        assert one == same and hash(one) == hash(same)
        assert one != kind(other)
        same.update(5)
        assert one != same and hash(one) == hash(same)
    assert PhrasalConstraint([5]) != DisjunctiveConstraint([[5]])
