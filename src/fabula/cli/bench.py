"""`fabula bench`: speed and memory of a model on this machine, alone or beside other engines."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any

from fabula.cli.bench_figures import FRESH, OWN, SHARE, Figure, Work, figures_of, works
from fabula.cli.bench_fresh import fresh_rounds
from fabula.cli.bench_peers import PEERS, Settings
from fabula.cli.bench_report import OURS, figure_entries, side_entry, table
from fabula.cli.bench_rounds import WARM_UP, Samples, choose_settings, interleaved, load_side, own_figures
from fabula.cli.bench_workers import WorkerProcess
from fabula.cli.environment import usable_cores
from fabula.cli.source_flags import add_model_flags, check_positive, model_settings, open_source
from fabula.cli.terminal import note
from fabula.errors import ArgumentError
from fabula.hub.checkpoint import Checkpoint
from fabula.models.families.config import ModelConfig
from fabula.models.families.table import family_for
from fabula.models.weights.native import placed_tensors

SINGLE = "decode 1 row"  # always measured: what only our side has is told of it
CHOICES = tuple(work.name for work in works(quick=False))
LOOKED_UP = {(None, "embed"), (None, "positions")}  # weights of which a token reads one row


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's flags."""
    parser.add_argument(
        "model", nargs="?", default=argparse.SUPPRESS, metavar="SOURCE", help="the model, as --model names it"
    )
    parser.add_argument(
        "--peer", action="append", choices=tuple(PEERS), default=[], help="measure this engine beside ours; repeatable"
    )
    parser.add_argument(
        "--peer-python", default=sys.executable, metavar="PATH", help="the Python that has the peer (this one)"
    )
    parser.add_argument("--rounds", type=int, metavar="N", help="how often each figure is taken (7; 3 with --quick)")
    parser.add_argument("--quick", action="store_true", help="fewer tokens and settings: a look, not a result")
    parser.add_argument(
        "--only", action="append", choices=CHOICES, metavar="FIGURE",
        help=f"of {', '.join(CHOICES)}, take this one and {SINGLE}; repeatable",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print JSON, with every sample")
    add_model_flags(parser)


def run(arguments: argparse.Namespace) -> None:
    """Measures and prints."""
    check_positive("rounds", arguments.rounds)
    check_positive("threads", arguments.threads)
    checkpoint = open_source(arguments.model, arguments)
    for name in arguments.peer:
        check_readable(name, checkpoint)
    result = measured(arguments, checkpoint)
    print(json.dumps(result) if arguments.json else table(result))


def check_readable(name: str, checkpoint: Checkpoint) -> None:
    """Refuses a file that the peer has no reader for."""
    if checkpoint.path.suffix not in PEERS[name].reads and not ("" in PEERS[name].reads and checkpoint.path.is_dir()):
        raise ArgumentError(f"`peer` {name} must be given a {PEERS[name].reads[0]} file, got {checkpoint.path}.")


def measured(arguments: argparse.Namespace, checkpoint: Checkpoint) -> dict[str, Any]:
    """All figures: fresh processes first, then the loaded sides in turns."""
    threads = arguments.threads or usable_cores()
    rounds = range(arguments.rounds or (3 if arguments.quick else 7))
    config = ModelConfig.from_dict(checkpoint.config)
    context, path = config.max_position_embeddings, str(checkpoint.path)
    asked = (SINGLE, *(arguments.only or CHOICES))
    fitting = tuple(work for work in works(arguments.quick) if work.name in asked and work.prompt + work.new <= context)
    starts = [(partial(WorkerProcess, OURS, OURS), model_settings(arguments) | {"threads": threads})]
    for name in dict.fromkeys(arguments.peer):
        peer = PEERS[name]
        starts.append((partial(WorkerProcess, name, peer.engine, arguments.peer_python), peer.first(threads)))
    note("fresh processes ...")
    samples = fresh_rounds(starts, path, rounds, context)
    with ExitStack() as processes:
        sides = [load_side(processes.enter_context(start()), path, settings) for start, settings in starts]
        for side in sides[1:]:
            note(f"{side.name}: looking for its best settings ...")
            choose_settings(side, fitting, grid_for(side.name, threads, arguments.quick), 1 if arguments.quick else 2)
        note("rounds ...")
        interleaved(sides, fitting, [WARM_UP])  # not counted: whatever is made on first use is made
        add(samples, interleaved(sides, fitting, rounds))
        decode = next(work for work in fitting if work.part == "rest")
        for number in rounds:
            for name, value in own_figures(sides[0], decode, threads, number).items():
                samples[OURS].setdefault(name, []).append(value)
        return {
            "source": os.path.basename(path),
            "threads": threads,
            "rounds": len(rounds),
            "sides": {side.name: side_entry(side) for side in sides},
            "figures": figure_entries(figures(arguments, checkpoint, fitting, samples), samples),
        }


def figures(
    arguments: argparse.Namespace, checkpoint: Checkpoint, fitting: tuple[Work, ...], samples: Samples
) -> list[Figure]:
    """The figures in the order shown; adds each side's share of the bandwidth where it reads the file's weights."""
    shown = [*figures_of(fitting), *OWN, *FRESH]
    if not any((arguments.dtype, arguments.load_in_4bit, arguments.load_in_8bit, arguments.backend == "torch")):
        gigabytes = bytes_a_token(checkpoint) / 1e9
        bandwidth = samples[OURS]["read bandwidth"]
        for name in [name for name in samples if name != "transformers"]:  # it computes on dequantized weights
            rates = zip(samples[name][SINGLE], bandwidth, strict=True)
            samples[name][SHARE.name] = [100 * rate * gigabytes / whole for rate, whole in rates]
        shown.append(SHARE)
    return shown


def bytes_a_token(checkpoint: Checkpoint) -> int:
    """Bytes of weights, as the file holds them, that one token of one row reads."""
    placed = placed_tensors(family_for(ModelConfig.from_dict(checkpoint.config)), checkpoint.tensors)
    return sum(tensor.data.nbytes for place, tensor in placed.items() if tensor is not None and place not in LOOKED_UP)


def grid_for(name: str, threads: int, quick: bool) -> Callable[[Work], list[Settings]]:
    """The settings that a peer is tried with; `quick` keeps those with all threads."""

    def grid(work: Work) -> list[Settings]:
        settings = PEERS[name].grid(work, threads)
        return [one for one in settings if one["threads"] == threads] if quick else settings

    return grid


def add(samples: Samples, more: Samples) -> None:
    """Puts more figures into each side's."""
    for side, figures_of_side in more.items():
        samples[side].update(figures_of_side)
