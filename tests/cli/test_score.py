"""Every token of a text is scored once, with as much before it as fits."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fabula.cli.score import summary, text_losses, token_losses, windows
from fabula.ops.protocol import Batch, Forward


@pytest.mark.parametrize(("length", "window", "stride"), [(2, 8, 4), (8, 8, 4), (9, 8, 4), (100, 8, 3), (101, 8, 7)])
def test_windows_score_every_token_but_the_first_once(length: int, window: int, stride: int):
    scored = [position for begin, end, first in windows(length, window, stride) for position in range(first, end)]
    assert scored == list(range(1, length))
    assert all(end - begin <= window and begin < first for begin, end, first in windows(length, window, stride))


def test_losses_are_minus_log_softmax():
    logits = np.array([[0.0, math.log(3)], [1000.0, 0.0]])
    assert token_losses(logits, np.array([1, 0])) == pytest.approx([-math.log(0.75), 0.0])


class Ignorant:
    """A model to which every token is as likely as any other; it remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[Batch] = []

    def new_cache(self, blocks: int) -> int:
        return blocks

    def step(self, batch: Batch, cache: int) -> Forward:
        assert batch.tables.max() < cache
        self.asked.append(batch)
        return Forward(logits=np.zeros((len(batch.scored), 50), np.float32))


def test_a_model_that_knows_nothing_has_the_perplexity_of_its_vocabulary():
    losses = text_losses(Ignorant(), np.arange(30), 8, 4)
    assert len(losses) == 29
    assert summary(losses, 100)["perplexity"] == pytest.approx(50)


def test_each_window_begins_at_position_zero_and_scores_its_new_part():
    model = Ignorant()
    text_losses(model, np.arange(12), 8, 4)
    assert [batch.tokens.tolist() for batch in model.asked] == [list(range(7)), list(range(4, 11))]
    assert [batch.scored.tolist() for batch in model.asked] == [list(range(7)), [3, 4, 5, 6]]


def test_every_window_begins_as_the_model_was_trained_to_begin():
    model = Ignorant()
    losses = text_losses(model, np.arange(12), 8, 4, start=np.array([49]))
    assert [batch.tokens.tolist() for batch in model.asked] == [[49, *range(7)], [49, *range(4, 11)]]
    assert len(losses) == 11
