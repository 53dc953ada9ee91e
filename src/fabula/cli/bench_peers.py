"""The engines to compare with: how each is installed, what it reads, which settings it is tried with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from types import MappingProxyType
from typing import Any

from fabula.cli.bench_figures import Work

Settings = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Peer:
    """An engine beside ours."""

    engine: str  # its script is bench_sides/<engine>_side.py
    package: str  # what pip installs
    reads: tuple[str, ...]  # how a source's path may end; "" is a directory
    first: Callable[[int], Settings]  # what it is loaded with, for so many threads: its own defaults
    grid: Callable[[Work, int], list[Settings]]  # what is tried for a figure; the best serves all rounds


def llama_cpp_grid(work: Work, threads: int) -> list[Settings]:
    """Threads, flash attention; the size of its inner batch for prompts, one cache or one a row for several rows."""
    sizes = (128, 512) if work.part == "first" else (512,)
    shared = (False, True) if work.rows > 1 else (False,)
    return [
        {"threads": count, "flash_attention": flash, "n_batch": 512, "n_ubatch": size, "unified_cache": unified}
        for count, flash, size, unified in product(thread_counts(threads), (False, True), sizes, shared)
    ]


def transformers_grid(work: Work, threads: int) -> list[Settings]:
    """Threads and types."""
    return [
        {"threads": count, "dtype": dtype} for dtype, count in product(("bfloat16", "float32"), thread_counts(threads))
    ]


def thread_counts(most: int) -> list[int]:
    """1, 2, 4 and so on, and all."""
    return sorted({most, *(1 << power for power in range(most.bit_length()) if 1 << power < most)})


PEERS = MappingProxyType(
    {
        "llama.cpp": Peer(
            engine="llama_cpp",
            package="llama-cpp-python",
            reads=(".gguf",),
            first=lambda threads: {"threads": threads},
            grid=llama_cpp_grid,
        ),
        "transformers": Peer(
            engine="transformers",
            package="torch transformers gguf",
            reads=(".gguf", ""),
            first=lambda threads: {"threads": threads, "dtype": "bfloat16"},
            grid=transformers_grid,
        ),
    }
)
