"""Finds the shared library of kernels beside this file, and calls it."""

from __future__ import annotations

import ctypes
import sys
from ctypes import POINTER, c_float, c_int32, c_int64, c_void_p
from functools import cache, cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

from fabula.errors import ArgumentError, FabulaError, OutOfMemoryError
from fabula.kernels.structures import SHARED, CBurst, CInstruction, CRope, CSampleRow, CStep, CValue

VERSION = 5
ISAS = MappingProxyType({"portable": 0, "avx2": 1, "avx512": 2})  # slowest first
NO_SUCH_TOKEN, NO_SUCH_BLOCK = 3, 4  # what a step may come to; see cpp/abi.h
SUFFIXES = MappingProxyType({"win32": "dll", "darwin": "dylib"})

SIGNATURES: MappingProxyType[str, tuple[Any, tuple[Any, ...]]] = MappingProxyType(
    {
        "fabula_version": (c_int32, ()),
        "fabula_isas": (c_int32, ()),
        "fabula_sizes": (None, (POINTER(c_int32),)),
        "fabula_arena_new": (c_void_p, (c_int64,)),
        "fabula_arena_free": (None, (c_void_p,)),
        "fabula_arena_data": (c_void_p, (c_void_p,)),
        "fabula_layout": (c_int32, (c_int32,)),
        "fabula_panel_bytes": (c_int64, (c_int32, c_int32)),
        "fabula_scale_multiplier": (c_float, (c_int32, c_int32, c_void_p, c_int32, c_int32, c_int64)),
        "fabula_pack": (None, (c_int32, c_int32, c_void_p, c_int32, c_int32, c_int64, c_float, c_void_p, c_int32)),
        "fabula_dequantize": (None, (c_int32, c_void_p, c_int64, c_void_p)),
        "fabula_pool_new": (c_void_p, (c_int32,)),
        "fabula_pool_free": (None, (c_void_p,)),
        "fabula_program_new": (
            c_void_p,
            (POINTER(CInstruction), c_int32, POINTER(CValue), c_int32, POINTER(CRope), c_int32, c_int64),
        ),
        "fabula_program_free": (None, (c_void_p,)),
        "fabula_run": (c_int32, (c_void_p, c_void_p, c_int32, POINTER(CStep))),
        "fabula_sample": (c_int32, (c_void_p, c_int32, c_void_p, c_int32, POINTER(CSampleRow), c_int32, c_void_p)),
        "fabula_burst": (
            c_int32,
            (c_void_p, c_void_p, c_int32, POINTER(CStep), POINTER(CSampleRow), c_int32, POINTER(CBurst)),
        ),
        "fabula_uniforms": (
            c_int32,
            (c_int32, c_void_p, c_void_p, c_void_p, c_int32, c_void_p, c_int64, c_int32, c_void_p),
        ),
    }
)


class Library:
    """The loaded kernels, and the instruction set that they use."""

    def __init__(self, path: Path) -> None:
        """Raises FabulaError where the file is not the library that this package was built with."""
        self.path = path
        self.calls = ctypes.CDLL(str(path))
        try:
            for name, (result, arguments) in SIGNATURES.items():
                call = getattr(self.calls, name)
                call.restype, call.argtypes = result, arguments
        except AttributeError as error:
            raise FabulaError(f"{path} must hold the kernels of this version, and lacks one: {error}.") from error
        sizes = (c_int32 * len(SHARED))()
        self.calls.fabula_sizes(sizes)
        if self.calls.fabula_version() != VERSION or list(sizes) != [ctypes.sizeof(each) for each in SHARED]:
            raise FabulaError(f"{path} must be of this version of fabula, and is of another. Install fabula again.")
        self.isa = self.isas[-1]

    @cached_property
    def isas(self) -> tuple[str, ...]:
        """The instruction sets that this machine has, slowest first."""
        bits = self.calls.fabula_isas()
        return tuple(name for name, bit in ISAS.items() if bits >> bit & 1)

    def set_isa(self, isa: str) -> None:
        """Makes every later step use this instruction set; raises ArgumentError for one that is not here."""
        if isa not in self.isas:
            raise ArgumentError(f"isa must be one of {', '.join(self.isas)}, got {isa!r}.")
        self.isa = isa

    def run(self, program: int, pool: int, step: CStep) -> None:
        """Executes one step. Raises OutOfMemoryError, and ArgumentError for a token or a block that does not exist."""
        self._check(self.calls.fabula_run(program, pool, ISAS[self.isa], ctypes.byref(step)), step)

    def run_burst(self, program: int, pool: int, step: CStep, rows: Any, width: int, burst: CBurst) -> None:
        """Executes steps of rows that choose from `width` logits each. Raises what `run` raises."""
        status = self.calls.fabula_burst(
            program, pool, ISAS[self.isa], ctypes.byref(step), rows, width, ctypes.byref(burst)
        )
        self._check(status, step)

    def _check(self, status: int, step: CStep) -> None:
        if status == NO_SUCH_TOKEN:
            raise ArgumentError(
                "`tokens` must be ids of the vocabulary at positions of the model, got one that is not."
            )
        if status == NO_SUCH_BLOCK:
            raise ArgumentError("`tables` must name blocks of the cache for every position, got one that is not there.")
        if status:
            raise OutOfMemoryError(f"a step of {step.positions} positions does not fit in memory. Use smaller steps.")


def library_path(folder: Path | None = None) -> Path:
    """Where the library lies when it was built: in a folder of this package, of which an editable install has two."""
    name = f"libfabula_kernels.{SUFFIXES.get(sys.platform, 'so')}"
    folders = [Path(place) for place in sys.modules[__package__].__path__] if folder is None else [folder]
    return next((place / name for place in folders if (place / name).is_file()), folders[0] / name)


def load_library(folder: Path | None = None) -> Library | None:
    """The kernels; None where they were not built, or cannot be loaded on this machine."""
    path = library_path(folder)
    try:
        return Library(path) if path.is_file() else None
    except OSError:
        return None


@cache
def shared_library() -> Library | None:
    """As `load_library`, of which all that need no instruction set of their own share one."""
    return load_library()
