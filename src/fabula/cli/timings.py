"""How long a prompt and its answer took, as counts, milliseconds and rates."""

from __future__ import annotations


def timings(prompt: int, started: float, first: float | None, predicted: int, last: float) -> dict[str, float | int]:
    """By the names that llama.cpp's server uses.

    `prompt` tokens were computed in [started, first), when the first new token came; the rest of `predicted` until
    `last`. Times are seconds of one clock.
    """
    first = last if first is None else first
    return {
        "prompt_n": prompt,
        "prompt_ms": round(1000 * (first - started), 3),
        "prompt_per_second": _rate(prompt, first - started),
        "predicted_n": predicted,
        "predicted_ms": round(1000 * (last - first), 3),
        "predicted_per_second": _rate(predicted - 1, last - first),
    }


def _rate(count: int, seconds: float) -> float:
    return round(count / seconds, 2) if seconds > 0 and count > 0 else 0.0
