"""`fabula score`: how well a model predicts a text."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

from fabula import arrays
from fabula.cache.blocks import blocks_for
from fabula.cli.prompt_input import read_file
from fabula.cli.source_flags import add_model_flags, check_positive, load_model
from fabula.cli.terminal import is_terminal
from fabula.errors import ArgumentError
from fabula.ops.protocol import Batch

PIECE = 32  # rows of logits at once: a row may have 262,144
NO_IDS = np.zeros(0, np.int64)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's flags."""
    parser.add_argument("file", nargs="?", metavar="FILE", help="a UTF-8 text; '-' or nothing reads a pipe")
    parser.add_argument(
        "--window", type=int, default=512, metavar="N", help="tokens the model sees at once (%(default)s)"
    )
    parser.add_argument("--stride", type=int, metavar="N", help="tokens scored in each window (half of it)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_model_flags(parser)


def run(arguments: argparse.Namespace) -> None:
    """Prints perplexity, loss and counts."""
    text = read_file(arguments.file, "text")
    check_positive("stride", arguments.stride)
    model = load_model(arguments)
    start = np.array(model.tokenizer("")["input_ids"], np.int64)
    ids = np.array(model.tokenizer(text, add_special_tokens=False)["input_ids"], np.int64)
    if len(ids) < 2:
        raise ArgumentError(f"the text must have at least 2 tokens, got {len(ids)}.")
    window = min(arguments.window, model.context_length)
    stride = arguments.stride or max(1, window // 2)
    if window < 2 or stride >= window:
        raise ArgumentError(f"`stride` must be in [1, window), got {stride} with a window of {window}.")
    losses = text_losses(model, ids, window, stride, start)
    facts = summary(losses, len(text.encode()))
    print(json.dumps(facts) if arguments.json else "\n".join(f"{name:<20} {value}" for name, value in facts.items()))


def summary(losses: np.ndarray, text_bytes: int) -> dict[str, float | int]:
    """The figures of a text from its tokens' losses in nats."""
    mean = float(losses.mean())
    return {
        "tokens": len(losses),
        "perplexity": round(math.exp(mean), 4),
        "loss": round(mean, 5),
        "loss_standard_error": round(float(losses.std()) / math.sqrt(len(losses)), 5),
        "bits_per_byte": round(float(losses.sum()) / math.log(2) / text_bytes, 4),
    }


def windows(length: int, window: int, stride: int) -> Iterator[tuple[int, int, int]]:
    """(begin, end, first scored): every token but the first is scored once, with as much before it as fits."""
    scored = 1
    while scored < length:
        end = min(length, window if scored == 1 else scored + stride)
        yield max(0, end - window), end, scored
        scored = end


def text_losses(model: Any, ids: np.ndarray, window: int, stride: int, start: np.ndarray = NO_IDS) -> np.ndarray:
    """-log p of every token but the first, Float64["N-1"]; progress on standard error.

    Each window begins with `start`, the ids with which the model was trained to begin a text.
    """
    cache = model.new_cache(blocks_for(window + len(start)))
    losses = []
    for begin, end, scored in windows(len(ids), window, stride):
        whole = np.concatenate([start, ids[begin : end - 1]])
        logits = model.step(window_batch(whole, len(start) + scored - begin - 1), cache).logits
        for piece in range(0, end - scored, PIECE):
            rows = logits[piece : piece + PIECE]
            losses.append(token_losses(arrays.of(rows).to_host(rows), ids[scored + piece : end][:PIECE]))
        if is_terminal(sys.stderr):
            print(f"\r{end}/{len(ids)} tokens", end="\n" if end == len(ids) else "", file=sys.stderr, flush=True)
    return np.concatenate(losses)


def window_batch(ids: np.ndarray, first_scored: int) -> Batch:
    """One row from its start, whose positions from `first_scored` on give logits."""
    return Batch(
        tokens=ids.astype(np.int32),
        starts=np.array([0, len(ids)], np.int32),
        first=np.zeros(1, np.int32),
        tables=np.arange(blocks_for(len(ids)), dtype=np.int32)[None],
        scored=np.arange(first_scored, len(ids), dtype=np.int32),
    )


def token_losses(logits: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """-log softmax(logits)[tokens], Float64["N"]: logits [N, V], tokens [N]."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    total = np.log(np.exp(shifted).sum(axis=-1, dtype=np.float64))
    return total - np.take_along_axis(shifted, tokens[:, None], axis=-1)[:, 0]
