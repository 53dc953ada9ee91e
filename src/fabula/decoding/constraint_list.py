"""How far a text is with a list of constraints: which are met, which one is begun, which are to come."""

from __future__ import annotations

from collections.abc import Sequence

from fabula.decoding.constraints import Constraint, checked_token

__all__ = ["ConstraintListState"]


class ConstraintListState:
    """How far one text is with a list of constraints: some completed, at most one begun, the others to come."""

    def __init__(self, constraints: Sequence[Constraint]) -> None:
        self.constraints = list(constraints)
        self.n_constraints = len(self.constraints)
        self.max_seqlen = max((constraint.seqlen for constraint in self.constraints), default=0)
        self.init_state()

    def init_state(self) -> None:
        """Nothing is met yet."""
        self.complete_constraints: list[Constraint] = []
        self.inprogress_constraint: Constraint | None = None
        self.pending_constraints = [constraint.copy(stateful=False) for constraint in self.constraints]

    @property
    def completed(self) -> bool:
        return not self.pending_constraints and self.inprogress_constraint is None

    def get_bank(self) -> int:
        """How many steps are made: those of the completed ones, each counted as the longest, and of the one begun."""
        begun = self.inprogress_constraint
        steps = 0 if begun is None else self.max_seqlen - begun.remaining()
        return len(self.complete_constraints) * self.max_seqlen + steps

    def advance(self) -> list[int] | None:
        """The tokens that are a step forward, of the constraint begun or else of any to come; None: there are none."""
        begun = self.inprogress_constraint
        named = [one.advance() for one in (self.pending_constraints if begun is None else [begun])]
        tokens = [token for one in named if one is not None for token in (one if isinstance(one, list) else [one])]
        return tokens or None

    def reset(self, token_ids: Sequence[int] | None) -> None:
        """From the start, with a text's tokens."""
        self.init_state()
        for token in () if token_ids is None else token_ids:
            if self.completed:
                return
            self.add(token)

    def add(self, token_id: int) -> tuple[bool, bool]:
        """Takes a token; says whether it completed a constraint and whether it was a step forward."""
        token = checked_token(token_id)
        if self.completed:
            return True, False
        if self.inprogress_constraint is not None:
            return self._go_on(self.inprogress_constraint, token)
        for place, constraint in enumerate(self.pending_constraints):
            if constraint.does_advance(token):
                del self.pending_constraints[place]
                return self._go_on(constraint, token)
        return False, False

    def _go_on(self, constraint: Constraint, token: int) -> tuple[bool, bool]:
        """Gives the token to a constraint, and puts that where it now belongs."""
        stepped, complete, reset = constraint.update(token)
        self.inprogress_constraint = None
        if complete:
            self.complete_constraints.append(constraint)
        elif reset:
            self.pending_constraints.append(constraint.copy(stateful=False))
        else:
            self.inprogress_constraint = constraint
        return complete, stepped

    def copy(self, stateful: bool = True) -> ConstraintListState:
        """Another state of the same constraints: as far as this one if `stateful`, else at its start."""
        other = ConstraintListState(self.constraints)
        if stateful:
            begun = self.inprogress_constraint
            other.complete_constraints = list(self.complete_constraints)  # these never change again
            other.inprogress_constraint = None if begun is None else begun.copy(stateful=True)
            other.pending_constraints = [one.copy(stateful=False) for one in self.pending_constraints]
        return other
