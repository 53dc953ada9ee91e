"""Which way of batching a module is exact: tried on a few rows, against each row computed alone and anew."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch

from fabula.adapters.torch_calls import ModuleCall, Way
from fabula.adapters.torch_lanes import Lanes, Wanted
from fabula.errors import FabulaError

ALONE = Way("none", "none")
_Step = list[tuple[Wanted, int]]  # rows, and how long the prompt of each was
_TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 1e-1}


def choose_way(call: ModuleCall, vocabulary: int, memories: Sequence[object] = (None, None)) -> Way:
    """The first of the call's ways whose logits are those of each row alone, for rows that are padded, reordered,
    forked and taken back; the call's truth where none is. `memories`: what an encoder made of two inputs.

    Logits are the same if none differs by more than a share of their spread: 1e-4 in float32, more in shorter types.
    """
    steps = list(_steps(vocabulary, memories))
    right, truth = _truth(call, steps)
    for way in call.ways:
        try:
            lanes = Lanes()
            if all(
                same_logits(mine, right)
                for step, answers in zip(steps, truth, strict=True)
                for mine, right in zip(_last_logits(call, way, lanes, step), answers, strict=True)
            ):
                return way
        except FabulaError:
            raise
        except Exception:  # a module that cannot be called like this: the next way may suit it
            continue
    return right


def _truth(call: ModuleCall, steps: Sequence[_Step]) -> tuple[Way, list[list[torch.Tensor]]]:
    """Each row's last logits alone, by the call's truth; with nothing kept where the module cannot be called so."""
    try:
        return call.truth, [
            [alone(call, call.truth, row.tokens, prompt, row.memory) for row, prompt in step] for step in steps
        ]
    except FabulaError:
        raise
    except Exception:
        return ALONE, [[alone(call, ALONE, row.tokens, prompt, row.memory) for row, prompt in step] for step in steps]


@contextmanager
def evaluating(module: torch.nn.Module) -> Iterator[None]:
    """The module without dropout, and afterwards as it was."""
    training = [one for one in module.modules() if one.training]
    try:
        for one in training:
            one.training = False
        yield
    finally:
        for one in training:
            one.training = True


def _steps(vocabulary: int, memories: Sequence[object]) -> Iterator[_Step]:
    """Two rows of different lengths, then continued; changed in order, one of them twice; and one with a token less.

    With each row the length of its prompt.
    """
    tokens = (np.arange(24) * 37 + 11) % vocabulary
    long, short = tokens[:9].astype(np.int32), tokens[10:15].astype(np.int32)
    other = np.append(short[:4], (short[4] + 1) % vocabulary).astype(np.int32)
    again = np.append(long[:7], (long[7] + 1) % vocabulary).astype(np.int32)
    first, second = memories
    yield [(_wanted(long[:7], first), 7), (_wanted(short[:3], second), 3)]
    yield [(_wanted(long[:8], first), 7), (_wanted(short[:4], second), 3)]
    yield [(_wanted(short, second), 3), (_wanted(long, first), 7), (_wanted(other, second), 3)]
    yield [(_wanted(again, first), 7)]


def _wanted(tokens: np.ndarray, memory: object) -> Wanted:
    return Wanted(tokens, len(tokens) - 1, memory)


def alone(call: ModuleCall, way: Way, tokens: np.ndarray, prompt: int, memory: object = None) -> torch.Tensor:
    """A row's last logits: its prompt at once, then token by token, if anything is kept."""
    lanes, lengths = Lanes(), range(prompt, len(tokens) + 1) if way.cache != "none" else [len(tokens)]
    return [lanes.compute(call, way, [_wanted(tokens[:length], memory)])[0].logits[-1] for length in lengths][-1]


def _last_logits(call: ModuleCall, way: Way, lanes: Lanes, step: list[tuple[Wanted, int]]) -> list[torch.Tensor]:
    return [output.logits[-1] for output in lanes.compute(call, way, [row for row, _ in step])]


def same_logits(mine: torch.Tensor, right: torch.Tensor) -> bool:
    """Whether none differs by more than a share of their spread."""
    tolerance = _TOLERANCE.get(right.dtype, 1e-4)
    spread = (right.double() - right.double().mean()).abs().max()
    difference = (mine.double() - right.double()).abs().max()
    return bool(difference <= tolerance * spread)  # never of numbers that are not
