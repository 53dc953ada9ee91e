"""Rows in rectangles that a module's own cache follows: found by their tokens, computed anew where it cannot."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from fabula.adapters.torch_calls import Columns, ModuleCall, Way
from fabula.adapters.torch_pasts import align, has_columns, join, select

TOGETHER = 16  # rows that miss no more columns than this are computed in one rectangle


@dataclass(frozen=True, slots=True)
class Wanted:
    """A row whose outputs are wanted."""

    tokens: np.ndarray  # Int["L"]: from the row's start
    first: int  # the first position whose output is wanted; all behind it are wanted too
    memory: Any = None  # what an encoder made of the row's input


@dataclass(frozen=True, slots=True)
class Output:
    """What was wanted of a row, at N positions."""

    logits: torch.Tensor  # Float["N V"]
    hidden: tuple[torch.Tensor, ...] | None = None  # Float["N D"]: the embeddings, then each layer


@dataclass(slots=True)
class Lane:
    """Rows at the right edge of a rectangle, and what the module keeps of them."""

    rows: list[Wanted]
    width: int
    past: Any
    columns: bool = False  # whether columns of the past can be dropped and moved

    def __post_init__(self) -> None:
        self.columns = has_columns(self.past, len(self.rows), self.width)


@dataclass(slots=True)
class _Part:
    """Rows that are computed in one call: they end in the column `width` of the past."""

    places: list[int]  # in the step
    kept: list[int]  # positions of each that are in the past
    width: int = 0
    past: Any = None


@dataclass(slots=True)
class Lanes:
    """What a module keeps of the rows of the last step."""

    lanes: list[Lane] = field(default_factory=list)

    def compute(self, call: ModuleCall, way: Way, rows: Sequence[Wanted], hidden: bool = False) -> list[Output]:
        """The wanted outputs of each row. What the module keeps becomes that of these rows."""
        lanes, self.lanes = self.lanes, []  # an error leaves nothing behind that is half done
        outputs: list[Output | None] = [None] * len(rows)
        for part in list(_parts(lanes, way, rows)):  # all are gathered before the first call writes to a past
            lane, computed = _compute(call, way, [rows[place] for place in part.places], part, hidden)
            if lane is not None:
                self.lanes.append(lane)
            for place, output in zip(part.places, computed, strict=True):
                outputs[place] = output
        return [output for output in outputs if output is not None]


def _parts(lanes: list[Lane], way: Way, rows: Sequence[Wanted]) -> Iterator[_Part]:
    """The step's rows by the calls that compute them."""
    if way.cache == "none":
        yield from _fresh(way, rows, range(len(rows)))
        return
    found = _match(lanes, rows)
    anew = [place for place, match in enumerate(found) if match is None]
    groups: dict[tuple[int, ...], list[int]] = {}
    for place, match in enumerate(found):
        if match is not None:
            groups.setdefault(_key(lanes, way, rows[place], match), []).append(place)
    for places in groups.values():
        part = _gathered(lanes, places, [found[place] for place in places], rows)
        if part is None:
            anew += places
        else:
            yield part
    yield from _fresh(way, rows, anew)


def _fresh(way: Way, rows: Sequence[Wanted], places: Iterable[int]) -> Iterator[_Part]:
    """Rows of which nothing is kept: all together, or those of equal length."""
    groups: dict[int, list[int]] = {}
    for place in places:
        groups.setdefault(len(rows[place].tokens) if way.padding == "none" else 0, []).append(place)
    for group in groups.values():
        yield _Part(group, [0] * len(group))


_Match = tuple[int, int, int]  # the lane, the row in it, and how many of its positions are the row's too


def _match(lanes: list[Lane], rows: Sequence[Wanted]) -> list[_Match | None]:
    """For each row one that is kept and that it continues, as far as its first wanted position."""
    if len(lanes) == 1 and len(lanes[0].rows) == len(rows):
        pairs = list(zip(lanes[0].rows, rows, strict=True))
        if all(_continues(row, kept) for kept, row in pairs):
            return [(0, place, row.first) for place, row in enumerate(rows)]
    index = {
        (kept.tokens.tobytes(), id(kept.memory)): (number, place)
        for number, lane in enumerate(lanes)
        for place, kept in enumerate(lane.rows)
    }
    found: list[_Match | None] = []
    for row in rows:
        exact = index.get((row.tokens[: row.first].tobytes(), id(row.memory)))
        found.append(_longest(lanes, row) if exact is None else (*exact, row.first))
    return found


def _continues(row: Wanted, kept: Wanted) -> bool:
    return row.memory is kept.memory and np.array_equal(kept.tokens, row.tokens[: row.first])


def _longest(lanes: list[Lane], row: Wanted) -> _Match | None:
    """The kept row with which this one shares most, where columns can be dropped."""
    best: _Match | None = None
    for number, lane in enumerate(lanes):
        if not lane.columns:
            continue
        for place, kept in enumerate(lane.rows):
            most = min(len(kept.tokens), row.first)
            differ = np.flatnonzero(kept.tokens[:most] != row.tokens[:most])
            shared = int(differ[0]) if len(differ) else most
            if kept.memory is row.memory and shared > (0 if best is None else best[2]):
                best = (number, place, shared)
    return best


def _key(lanes: list[Lane], way: Way, row: Wanted, match: _Match) -> tuple[int, ...]:
    """Rows with equal keys are computed in one call."""
    number, _, kept = match
    missing = len(row.tokens) - kept
    if not lanes[number].columns:
        return (number, missing)
    if way.padding == "none":
        return (-1, missing, kept)
    return (-1, missing if missing > TOGETHER else 0)


def _gathered(
    lanes: list[Lane], places: list[int], found: Sequence[_Match | None], rows: Sequence[Wanted]
) -> _Part | None:
    """The part that continues kept rows; None where the module's past cannot be brought into that shape."""
    matches = [match for match in found if match is not None]
    numbers = list(dict.fromkeys(number for number, _, _ in matches))
    lane = lanes[numbers[0]]
    kept = [match[2] for match in matches]
    indices = [index for _, index, _ in matches]
    one = all(len(rows[place].tokens) - length == 1 for place, length in zip(places, kept, strict=True))
    whole = all(lanes[number].rows[index].tokens.shape[0] == length for number, index, length in matches)
    if len(numbers) == 1 and whole and indices == list(range(len(lane.rows))):
        return _Part(places, kept, lane.width, lane.past) if lane.columns or one else None
    if not lane.columns:
        past = select(lane.past, indices) if one else None
        return None if past is None else _Part(places, kept, lane.width, past)
    width = max(kept)
    pasts, order = [], []
    for number in numbers:
        mine = [place for place, match in enumerate(matches) if match[0] == number]
        held = lanes[number]
        ends = [held.width - len(held.rows[indices[place]].tokens) + kept[place] for place in mine]
        pasts.append(align(held.past, [indices[place] for place in mine], ends, width))
        order += mine
    return _Part([places[place] for place in order], [kept[place] for place in order], width, join(pasts))


def _compute(
    call: ModuleCall, way: Way, rows: list[Wanted], part: _Part, hidden: bool
) -> tuple[Lane | None, list[Output]]:
    """One call. Its rows end in different columns only if they miss different numbers of them, or are padded right."""
    missing = [len(row.tokens) - kept for row, kept in zip(rows, part.kept, strict=True)]
    width = part.width + max(missing)
    right = part.past is not None or way.padding == "right"
    ends = [part.width + count if right else width for count in missing]
    first = min(end - len(row.tokens) + row.first for row, end in zip(rows, ends, strict=True))
    columns = _columns(call, rows, ends, width, max(missing), width - first, hidden)
    computed = call(columns, part.past, way)
    states = None if computed.hidden is None else tuple(state[:, first - width :] for state in computed.hidden)
    logits = computed.logits[:, first - width :]
    outputs = [
        _output(logits, states, row, place, width - end)
        for place, (row, end) in enumerate(zip(rows, ends, strict=True))
    ]
    if way.cache == "none" or computed.past is None:
        return None, outputs
    lane = Lane(rows, width, computed.past)
    return (_straightened(lane, ends) if len(set(ends)) > 1 else lane), outputs


def _columns(
    call: ModuleCall, rows: list[Wanted], ends: list[int], width: int, new: int, scored: int, hidden: bool
) -> Columns:
    ids = np.full((len(rows), width), call.padding_id, np.int64)
    mask = np.zeros((len(rows), width), bool)
    for place, (row, end) in enumerate(zip(rows, ends, strict=True)):
        ids[place, end - len(row.tokens) : end] = row.tokens
        mask[place, end - len(row.tokens) : end] = True
    memory = [] if rows[0].memory is None else [row.memory for row in rows]
    there = [torch.from_numpy(array).to(call.device) for array in (ids, mask)]
    return Columns(there[0], there[1], not mask.all(), new, scored, hidden, memory)


def _output(
    logits: torch.Tensor, states: tuple[torch.Tensor, ...] | None, row: Wanted, place: int, behind: int
) -> Output:
    """The wanted positions of a row that ends `behind` columns before the right edge."""
    last = logits.shape[1] - behind
    span = slice(last - (len(row.tokens) - row.first), last)
    return Output(logits[place, span], None if states is None else tuple(state[place, span] for state in states))


def _straightened(lane: Lane, ends: list[int]) -> Lane | None:
    """The lane with each row moved to the right edge; None where the module's past has no columns to move."""
    if not lane.columns:
        return None
    width = max(len(row.tokens) for row in lane.rows)
    past = align(lane.past, range(len(lane.rows)), ends, width)
    return Lane(lane.rows, width, past)
