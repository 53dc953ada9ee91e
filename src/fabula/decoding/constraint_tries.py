"""Constraints as arrays: the tries of their phrases side by side, and how far beams are in them.

An edge is one token of one phrase behind those before it; phrases that begin alike share edges. What a beam has met of
the constraint that it has begun is the edge that it entered last.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from fabula.decoding.constraint_list import ConstraintListState
from fabula.decoding.constraints import Constraint, DisjunctiveConstraint, PhrasalConstraint

__all__ = ["ClosedConstraints", "Edge", "are_tries", "close_constraints", "edges_of"]

LEAST = 8  # edges that there is room for
MOST = 256  # with more of them the host is as fast
NO_EDGE = -2  # what an unused edge lies behind


class Edge(NamedTuple):
    """One token of one phrase."""

    token: int
    parent: int  # the edge before it; -1 where it is a phrase's first
    owner: int  # the number of its constraint
    leaf: bool  # whether the constraint is met behind it
    steps: int  # what it is worth to have begun the constraint up to here, as ConstraintListState.get_bank counts


class ClosedConstraints(NamedTuple):
    """What the texts of G groups must contain, with room for E edges, and how far their W beams are."""

    tokens: Any  # Int["G E"]
    parents: Any  # Int["G E"]; NO_EDGE where there is no edge
    owners: Any  # Int["G E"]
    leaves: Any  # Bool["G E"]
    steps: Any  # Int["G E"]
    longest: Any  # Int["G"]: what each constraint that is met is worth
    counts: Any  # Int["G"]: how many constraints there are
    nodes: Any  # Int["G W"]: the edge that the beam entered last, of the constraint it has begun; -1: it has begun none
    queues: Any  # Int["G W E"]: where the constraint of a number waits, in rising order; -1: it does not wait


def are_tries(constraints: Sequence[Constraint]) -> bool:
    """Whether all of them, one or more, are phrases; a class of the caller's own is the host's."""
    plain = all(type(one) in (PhrasalConstraint, DisjunctiveConstraint) for one in constraints)
    return bool(constraints) and plain and len(edges_of(constraints)) <= MOST


def edges_of(constraints: Sequence[Any]) -> list[Edge]:
    """The edges of all constraints, one's behind the other's; those behind one edge in the order of its trie."""
    longest = max(one.seqlen for one in constraints)
    edges: list[Edge] = []
    for owner, one in enumerate(constraints):
        nodes = [(_trie(one), -1, longest - one.seqlen + 1)]
        for node, parent, steps in nodes:  # which grows
            for token, behind in node.items():
                nodes.append((behind, len(edges), steps + 1))
                edges.append(Edge(token, parent, owner, not behind, steps))
    return edges


def close_constraints(
    groups: Sequence[tuple[Sequence[Constraint], Sequence[ConstraintListState]]],
) -> ClosedConstraints:
    """Those of G groups, which are tries, with the states of each group's W beams."""
    edges = [edges_of(constraints) for constraints, _ in groups]
    room = max(LEAST, 1 << (max(map(len, edges)) - 1).bit_length())
    unused = Edge(0, NO_EDGE, 0, False, 0)
    columns = [np.array([own + [unused] * (room - len(own)) for own in edges])[..., part] for part in range(5)]
    tokens, parents, owners, leaves, steps = (column.astype(np.int32) for column in columns)
    places = [
        [_place(constraints, state, own, room) for state in states]
        for (constraints, states), own in zip(groups, edges, strict=True)
    ]
    return ClosedConstraints(
        tokens,
        parents,
        owners,
        leaves.astype(bool),
        steps,
        longest=np.array([states[0].max_seqlen for _, states in groups], np.int32),
        counts=np.array([len(constraints) for constraints, _ in groups], np.int32),
        nodes=np.array([[node for node, _ in own] for own in places], np.int32),
        queues=np.array([[queue for _, queue in own] for own in places], np.int32),
    )


def _trie(constraint: Any) -> dict[int, Any]:
    """Token -> what may follow it."""
    if isinstance(constraint, DisjunctiveConstraint):
        return constraint.trie
    node: dict[int, Any] = {}
    for token in reversed(constraint.token_ids):
        node = {token: node}
    return node


def _place(
    constraints: Sequence[Constraint], state: ConstraintListState, edges: Sequence[Edge], room: int
) -> tuple[int, list[int]]:
    """One beam's edge and queue. Of equal constraints it does not matter which is which."""
    left = dict(enumerate(constraints))

    def number_of(one: Any) -> int:
        number = next(number for number, other in left.items() if _same(other, one))
        del left[number]
        return number

    node, queue = -1, [-1] * room
    if state.inprogress_constraint is not None:
        owner = number_of(state.inprogress_constraint)
        for token in _met(state.inprogress_constraint):
            behind = [place for place, edge in enumerate(edges) if edge.owner == owner and edge.parent == node]
            node = next(place for place in behind if edges[place].token == token)
    for turn, one in enumerate(state.pending_constraints):
        queue[number_of(one)] = turn
    return node, queue


def _same(one: Any, other: Any) -> bool:
    """Whether they ask for the same, however far they are."""
    return type(one) is type(other) and one.token_ids == other.token_ids


def _met(constraint: Any) -> list[int]:
    """The tokens that a constraint was met by so far."""
    if isinstance(constraint, DisjunctiveConstraint):
        return constraint.current_seq
    return list(constraint.token_ids[: constraint.fulfilled_idx + 1])
