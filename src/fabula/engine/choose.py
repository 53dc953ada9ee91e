"""The step from logits to tokens, for all rows that choose in this step, whatever each of them asks for."""

from __future__ import annotations

from typing import Any

import numpy as np

from fabula import arrays
from fabula.context import Context
from fabula.decoding.log_probabilities import log_probabilities, top_log_probabilities
from fabula.decoding.plain_rows import Sampler, plain_numbers
from fabula.decoding.recipe import Recipe
from fabula.decoding.sample import Sample
from fabula.decoding.strategy import Choice, Draw, Process, Turn
from fabula.engine.request import Step
from fabula.engine.row import Row
from fabula.kernels.sampling import RowChoice
from fabula.processors.rows import stack


class Chooser:
    """Chooses tokens; remembers how the processors of the last step's rows were brought together."""

    def __init__(self, sampler: Sampler | None = None) -> None:
        """`sampler`: the backend's own way to choose for rows whose processors are plain numbers."""
        self._strategy = Sample()
        self._sampler = sampler
        self._recipes: list[Recipe] = []
        self._process: Process = stack([[]])
        self._numbers: list[dict[str, float]] | None = None

    def choose(self, rows: list[Row], logits: Any) -> list[Step]:
        """The next token of each row, from logits [S, V] in the rows' order."""
        self._meet(rows)
        tokens = self._sampled_by_backend(rows, logits)
        if tokens is not None:
            return _steps(rows, logits, Choice(tokens))
        choice = self._strategy.choose(Turn(logits, self._process, _context(rows, logits), _draw(rows)))
        return _steps(rows, logits, choice)

    def _meet(self, rows: list[Row]) -> None:
        """Brings the processors of these rows together, unless they are those of the last step."""
        recipes = [row.request.recipe for row in rows]
        if len(recipes) == len(self._recipes) and all(a is b for a, b in zip(recipes, self._recipes, strict=True)):
            return
        numbers = [plain_numbers(recipe) for recipe in recipes] if self._sampler is not None else [None]
        self._numbers = None if None in numbers else [one for one in numbers if one is not None]
        self._process = stack([recipe.processors for recipe in recipes])
        self._recipes = recipes

    def _sampled_by_backend(self, rows: list[Row], logits: Any) -> np.ndarray | None:
        """The tokens, if the backend's sampler can choose all of them."""
        if self._sampler is None or self._numbers is None:
            return None
        choices = [_row_choice(row, numbers) for row, numbers in zip(rows, self._numbers, strict=True)]
        tokens = self._sampler(logits, choices)
        return None if (tokens < 0).any() else tokens


def _row_choice(row: Row, numbers: dict[str, float]) -> RowChoice:
    request = row.request
    place: dict[str, Any] = {"seed": request.seed, "stream": request.stream + row.index, "position": row.length}
    return RowChoice(**numbers, **place, tokens=row.tokens[: row.length])  # type: ignore[arg-type]


def _context(rows: list[Row], like: Any) -> Context:
    """What processors may know: the rows' tokens side by side, as arrays where the logits are."""
    xp = arrays.of(like)
    lengths = np.array([row.length for row in rows], np.int32)
    tokens = np.zeros((len(rows), int(lengths.max())), np.int32)
    for index, row in enumerate(rows):
        tokens[index, : row.length] = row.tokens[: row.length]
    prompts = np.array([row.prompt_length for row in rows], np.int32)
    return Context(*(xp.asarray(part, "int32", like=like) for part in (tokens, lengths, prompts)))


def _draw(rows: list[Row]) -> Draw:
    """The keys of the rows' random bits."""
    return Draw.of(
        seeds=[row.request.seed for row in rows],
        streams=[row.request.stream + row.index for row in rows],
        positions=[row.length for row in rows],
        sampled=[row.request.recipe.sampled for row in rows],
    )


def _steps(rows: list[Row], logits: Any, choice: Choice) -> list[Step]:
    """The chosen tokens, each with what its recipe wants recorded."""
    xp = arrays.of(logits)
    tokens = xp.to_host(choice.tokens).tolist()
    records = [row.request.recipe.record for row in rows]
    count = max((record.log_probabilities for record in records if record.log_probabilities is not None), default=None)
    chances = None if count is None else xp.to_host(log_probabilities(logits, choice.tokens))
    best = None if not count else [xp.to_host(part) for part in top_log_probabilities(logits, count)]
    raw = xp.to_host(logits).copy() if any(record.logits for record in records) else None
    scores = xp.to_host(choice.scores).copy() if any(record.scores for record in records) else None
    return [
        Step(
            token,
            log_probability=None if chances is None or record.log_probabilities is None else float(chances[index]),
            top=_top(best, index, record.log_probabilities),
            scores=None if scores is None or not record.scores else scores[index],
            logits=None if raw is None or not record.logits else raw[index],
        )
        for index, (token, record) in enumerate(zip(tokens, records, strict=True))
    ]


def _top(best: list[np.ndarray] | None, index: int, count: int | None) -> tuple[tuple[int, float], ...]:
    if best is None or not count:
        return ()
    tokens, chances = (part[index, :count].tolist() for part in best)
    return tuple(zip(tokens, chances, strict=True))
