"""Drafts between two steps: rows that wait for one token are given guesses of it and of what follows."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from fabula.decoding.strategy import Draftable, Drafter
from fabula.engine.group import Group
from fabula.engine.request import Request, Step
from fabula.engine.row import Row


def draft(groups: Iterable[Group], most: int, fail: Callable[[Request, BaseException], None]) -> None:
    """Puts at most `most` drafts behind each row that is ready for them; a drafter that raises fails its requests."""
    for drafter, members in _by_drafter(groups):
        try:
            proposed = drafter.propose([_draftable(group, most) for group in members])
            for group, tokens in zip(members, proposed, strict=True):
                if len(tokens):
                    group.rows[0].draft(tokens)
        except Exception as error:
            for request in {id(group.request): group.request for group in members}.values():
                fail(request, error)


def accepted(row: Row, steps: list[Step]) -> int:
    """How many of the row's drafts are what the row chose."""
    for place in range(row.drafts):
        if steps[place].token != row.tokens[row.length + place]:
            return place
    return row.drafts


def judge(group: Group, kept: int) -> None:
    """Tells the drafter how many of its drafts stand."""
    drafter, row = group.request.recipe.drafter, group.rows[0]
    if drafter is not None and row.drafts:
        drafter.judged(id(row), row.drafts, kept)


def forget(group: Group) -> None:
    """Tells the drafter that the row has ended."""
    if group.request.recipe.drafter is not None:
        group.request.recipe.drafter.forget(id(group.rows[0]))


def _by_drafter(groups: Iterable[Group]) -> list[tuple[Drafter, list[Group]]]:
    found: dict[int, tuple[Drafter, list[Group]]] = {}
    for group in groups:
        drafter = group.request.recipe.drafter
        if drafter is not None and group.rows[0].missing == 1 and group.rows[0].drafts == 0:
            found.setdefault(id(drafter), (drafter, []))[1].append(group)
    return list(found.values())


def _draftable(group: Group, most: int) -> Draftable:
    row, request = group.rows[0], group.request
    room = len(row.tokens) - row.length - 1
    tokens = row.seen.copy()
    recipe = request.recipe
    return Draftable(
        id(row),
        tokens,
        row.prompt_length - row.blind,
        min(room, most),
        request.seed,
        row.stream,
        recipe.processors,
        recipe.sampled,
    )
