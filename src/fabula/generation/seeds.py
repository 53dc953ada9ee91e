"""Where a call's randomness comes from: its own `seed=`, or the generator that its user knows how to seed."""

from __future__ import annotations

import random
import sys
from typing import Any

import numpy as np

from fabula.errors import ArgumentError

_BITS = 64


def set_seed(seed: int, deterministic: bool = False) -> None:
    """Seeds `random`, NumPy's global generator and, where they are loaded, torch (every device) and TensorFlow.

    `deterministic` asks torch for deterministic algorithms. A later call without `seed=` draws its key from these.
    """
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or not 0 <= seed < 2**32:
        raise ArgumentError(f"`seed` must be an integer in [0, 2**32), got {seed!r}.")
    seed = int(seed)
    random.seed(seed)
    np.random.seed(seed)
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.manual_seed(seed)
        if deterministic:
            torch.use_deterministic_algorithms(True)
    tensorflow = sys.modules.get("tensorflow")
    if tensorflow is not None:
        tensorflow.random.set_seed(seed)


def seeds_for(seed: int | list[int] | None, prompts: int, rows: int, inputs: Any) -> list[tuple[int, int]]:
    """For each prompt its 64-bit seed and its first row's stream; `rows` rows a prompt.

    One seed serves all prompts, prompt i starting at stream i * rows; a list gives each prompt its own, from stream 0.
    """
    if seed is None:
        seed = _draw(inputs)
    if isinstance(seed, (list, tuple)):
        if len(seed) != prompts:
            raise ArgumentError(f"`seed` must hold one seed a prompt, {prompts}, got {len(seed)}.")
        return [(_check(one), 0) for one in seed]
    return [(_check(seed), index * rows) for index in range(prompts)]


def _check(seed: Any) -> int:
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or not -(2**63) <= seed < 2**_BITS:
        raise ArgumentError(f"`seed` must be an integer of at most {_BITS} bits, got {seed!r}.")
    return int(seed) % 2**_BITS


def _draw(inputs: Any) -> int:
    """A seed from the generator of the framework of the inputs, which it advances."""
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(inputs, torch.Tensor):
        return int(torch.randint(2**62, ()))
    tensorflow = sys.modules.get("tensorflow")
    if tensorflow is not None and isinstance(inputs, tensorflow.Tensor):
        return int(tensorflow.random.uniform((), maxval=2**62, dtype=tensorflow.int64))
    return int(np.random.randint(2**62, dtype=np.int64))
