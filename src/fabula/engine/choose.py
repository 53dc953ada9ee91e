"""The step from logits to tokens, for all rows that choose in this step, whatever each of them asks for."""

from __future__ import annotations

from typing import Any

import numpy as np

from fabula import arrays
from fabula.context import Context
from fabula.decoding.log_probabilities import log_probabilities, top_log_probabilities
from fabula.decoding.recipe import Recipe
from fabula.decoding.sample import Sample
from fabula.decoding.strategy import Choice, Draw, Process
from fabula.engine.request import Step
from fabula.engine.row import Row
from fabula.processors.rows import stack


class Chooser:
    """Chooses tokens; remembers how the processors of the last step's rows were stacked."""

    def __init__(self) -> None:
        self._strategy = Sample()
        self._recipes: list[Recipe] = []
        self._process: Process = stack([[]])

    def choose(self, rows: list[Row], logits: Any) -> list[Step]:
        """The next token of each row, from logits [S, V] in the rows' order."""
        choice = self._strategy.choose(logits, self._stacked(rows), _context(rows, logits), _draw(rows))
        return _steps(rows, logits, choice)

    def _stacked(self, rows: list[Row]) -> Process:
        recipes = [row.request.recipe for row in rows]
        if len(recipes) != len(self._recipes) or any(a is not b for a, b in zip(recipes, self._recipes, strict=True)):
            self._process = stack([recipe.processors for recipe in recipes])
            self._recipes = recipes
        return self._process


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
