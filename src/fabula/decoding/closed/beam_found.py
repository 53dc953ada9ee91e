"""What a loop of closed beams found, and the moves that the host makes of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from fabula.decoding.beam_candidates import Candidates
from fabula.decoding.beam_turns import Told
from fabula.decoding.closed.beams import AnyCarry, BeamForm, over_of
from fabula.decoding.strategy import Ends, Move

__all__ = ["Found", "Made", "made_by", "replayed"]


class Found(NamedTuple):
    """What each turn chose from: candidate k of subgroup n in turn t is at (t * N + n) * K + k."""

    values: Any  # Float32["G T*N*K"]; -inf where there were fewer candidates
    beams: Any  # Int["G T*N*K"]: of the subgroup's
    tokens: Any  # Int["G T*N*K"]
    turns: Any  # Int["G"]: how many there were
    over: Any  # Bool["G N"]: which subgroups are over then; where all are, nothing moved in the last turn
    forced: Any = ()  # Float32["G T*W*E"]: what beam w's text with the token of edge e scored in turn t
    scores: Any = ()  # Float32["T R V"]: what the processors made of each row, where that is recorded
    logits: Any = ()  # Float32["T R V"]: what the model gave

    def on_host(self, to_host: Callable[[Any], np.ndarray]) -> Found:
        """The same as arrays of NumPy."""
        return Found(*(part if isinstance(part, tuple) else to_host(part) for part in self))


@dataclass(frozen=True, slots=True)
class Made:
    """What one group chose from in a loop, on the host."""

    turns: Sequence[Told]
    over: list[bool]  # which subgroups are over then, as the loop judged

    def __len__(self) -> int:
        return len(self.turns)


def made_by(form: BeamForm, found: Found, groups: int) -> list[Made]:
    """What each of the first groups chose from; found is on the host."""
    parts = [part[:groups].reshape(groups, -1, form.subgroups, form.kept) for part in found[:3]]
    forced = found.forced[:groups].reshape(groups, -1, form.beams, form.edges) if form.edges else None

    def told(group: int, turn: int) -> Told:
        rows = slice(group * form.beams, (group + 1) * form.beams)
        return Told(
            [Candidates(*(part[group, turn, own] for part in parts)).possible() for own in range(form.subgroups)],
            None if forced is None else forced[group, turn],
            None if isinstance(found.scores, tuple) else found.scores[turn, rows],
            None if isinstance(found.logits, tuple) else found.logits[turn, rows],
        )

    return [
        Made([told(group, turn) for turn in range(count)], over)
        for group, count, over in zip(range(groups), found.turns.tolist(), found.over.tolist(), strict=False)
    ]


def replayed(search: Any, carry: AnyCarry, ends: Ends, made: Made) -> Move | None:
    """The host's move through turns, one or more; None where it judges otherwise than the loop did, which moved so."""
    move: Move | None = search.replay(carry, ends, made.turns)
    agrees = move is not None and (move.finished is not None or over_of(move.carry) == made.over)
    return move if agrees else None
