"""Drives a search with a model that computes whole rows each step: the engine's part, without its cache."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from fabula import arrays
from fabula.context import Context
from fabula.decoding.strategy import Draw, Hypothesis, Move, Search, Turn, Underway
from fabula.processors.rows import stack


@dataclass
class Driven:
    """What a driven search did."""

    results: tuple[Hypothesis, ...]
    moves: list[Move] = field(default_factory=list)
    contexts: list[np.ndarray] = field(default_factory=list)  # the rows before each move

    @property
    def settled(self) -> list[int]:
        return [token for move in self.moves for token in move.settled]


def drive(
    search: Search,
    logits_of: Any,
    prompt: list[int],
    *,
    max_new: int,
    eos: Any = (),
    processors: Any = (),
    seed: int | None = None,
    padding: int = 0,
    stops: Any = None,
) -> Driven:
    """Runs to the end. `logits_of` Int["R L"] -> Float["R V"]; sampled where a seed is given; `stops` ends any row."""
    rows, carry = np.array([prompt], np.int32), None
    driven = Driven(())

    def ends(row: int, token: int) -> Any:
        assert 0 <= row < len(rows)
        if token in eos or (stops is not None and stops([*rows[row].tolist(), token])):
            return "stop"
        return "length" if rows.shape[1] + 1 - len(prompt) >= max_new else None

    for _ in range(max_new):
        driven.contexts.append(rows)
        turn = _turn(rows, logits_of, len(prompt), stack([processors] * len(rows)), seed, padding)
        (move,) = search.advance(turn, [Underway(carry, ends)])
        driven.moves.append(move)
        if move.finished is not None:
            driven.results = move.finished
            return driven
        assert 1 <= len(move.parents) == len(move.tokens) <= search.width
        rows = np.column_stack([rows[move.parents], move.tokens]).astype(np.int32)
        carry = move.carry
    raise AssertionError("the search went beyond its limit")


def _turn(rows: np.ndarray, logits_of: Any, prompt: int, process: Any, seed: int | None, padding: int) -> Turn:
    count, length = rows.shape
    logits = logits_of(rows)
    xp = arrays.of(logits)
    lengths, prompts = (xp.full((count,), value, "int32", like=logits) for value in (length, prompt))
    context = Context(xp.asarray(rows, "int32", like=logits), lengths, prompts, padding=padding)
    draw = Draw.of([seed or 0] * count, [0] * count, [length] * count, [seed is not None] * count)
    return Turn(logits, process, lambda: context, draw)


def tiny_model(seed: int, vocabulary: int = 40, sharpness: float = 0.6) -> Any:
    """A random Llama of transformers, float32: small, and sure enough of itself to have few ties."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        initializer_range=sharpness,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
    )
    return LlamaForCausalLM(config).eval()


def logits_by(model: Any) -> Any:
    """What `drive` wants of a model."""

    def logits_of(rows: np.ndarray) -> torch.Tensor:
        with torch.no_grad():
            return model(input_ids=torch.tensor(rows.astype(np.int64))).logits[:, -1].float()

    return logits_of
