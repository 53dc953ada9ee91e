"""A GGUF file (version 2 or 3), opened: its metadata, and where each tensor's bytes are.

Whatever the header says is checked, as Python integers, against the file's size before it is used.
The format: github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fabula.hub.gguf_values import U32, U64, UINT32, Cursor, read_value
from fabula.hub.mapping import map_file
from fabula.quant.formats import FORMATS

VERSIONS = (2, 3)
LONGEST_KEY = 65535  # bytes
LONGEST_NAME = 64  # bytes, of a tensor's name
MOST_DIMENSIONS = 4
MOST_KEYS = 1 << 16
MOST_TENSORS = 1 << 20
SMALLEST_KEY = 8 + 1 + 4 + 1  # bytes: a name of one letter, a type, a value of one byte
SMALLEST_TENSOR = 8 + 1 + 4 + 8 + 4 + 8  # bytes: a name of one letter, one dimension, a type, an offset
MOST_ELEMENTS = (1 << 63) - 1  # of a tensor
ALIGNMENT = "general.alignment"
DEFAULT_ALIGNMENT = 32  # bytes
# GGUF's numbers of the tensor types that are read
TENSOR_TYPES = {
    0: "F32",
    1: "F16",
    2: "Q4_0",
    3: "Q4_1",
    6: "Q5_0",
    7: "Q5_1",
    8: "Q8_0",
    10: "Q2_K",
    11: "Q3_K",
    12: "Q4_K",
    13: "Q5_K",
    14: "Q6_K",
    30: "BF16",
}


@dataclass(frozen=True, slots=True)
class GgufTensor:
    """A tensor of the file, under the file's name for it."""

    name: str
    format: str  # a key of FORMATS
    shape: tuple[int, ...]  # row-major: the file's dimensions in reverse
    data: np.ndarray  # UInt8["bytes"]: a view of the file


@dataclass(frozen=True, slots=True)
class GgufFile:
    """What a file holds."""

    path: Path
    version: int
    metadata: Mapping[str, Any]  # int, float, bool, str, or a list of them
    tensors: Mapping[str, GgufTensor]  # in the file's order


@dataclass(frozen=True, slots=True)
class _Info:
    """A tensor as the header describes it."""

    name: str
    format: str
    shape: tuple[int, ...]
    offset: int  # bytes from the start of the data
    size: int  # bytes


def read_gguf(path: str | Path) -> GgufFile:
    """The file's metadata and tensors, memory-mapped; raises ModelFileError naming the file and the key or tensor."""
    path = Path(path)
    mapped = map_file(path)
    cursor = Cursor(path, mapped)
    version = _version(cursor)
    tensors = cursor.count("the number of tensors", MOST_TENSORS, SMALLEST_TENSOR)
    metadata = _metadata(cursor, cursor.count("the number of keys", MOST_KEYS, SMALLEST_KEY))
    alignment = _alignment(cursor, metadata)
    infos = _infos(cursor, tensors)
    start = -(-cursor.offset // alignment) * alignment
    _check_places(cursor, infos, start, alignment)
    data = np.frombuffer(mapped, np.uint8)
    return GgufFile(path, version, metadata, {info.name: _tensor(info, data, start) for info in infos})


def _version(cursor: Cursor) -> int:
    magic = cursor.data[cursor.take(4, "the magic") : 4]
    if magic != b"GGUF":
        cursor.refuse(f"a GGUF file must start with b'GGUF', got {bytes(magic)!r}.")
    version = cursor.number(U32, "the version")
    if version and version & 0xFFFF == 0:
        cursor.refuse(f"the version must be 2 or 3 in little-endian order, got the big-endian {version >> 24}.")
    if version not in VERSIONS:
        cursor.refuse(f"the version must be 2 or 3, got {version}.")
    return version


def _metadata(cursor: Cursor, count: int) -> dict[str, Any]:
    metadata: dict[str, Any] = {}
    for index in range(count):
        key = cursor.text(f"the name of key {index}", LONGEST_KEY)
        if key in metadata:
            cursor.refuse(f"key {key!r} must occur once, got it again as key {index}.")
        kind = cursor.number(U32, f"key {key!r}'s type")
        if key == ALIGNMENT and kind != UINT32:
            cursor.refuse(f"key {key!r} must be a 32-bit unsigned integer (type {UINT32}), got type {kind}.")
        metadata[key] = read_value(cursor, kind, f"key {key!r}")
    return metadata


def _alignment(cursor: Cursor, metadata: Mapping[str, Any]) -> int:
    alignment = metadata.get(ALIGNMENT, DEFAULT_ALIGNMENT)
    if alignment == 0 or alignment & (alignment - 1):
        cursor.refuse(f"key {ALIGNMENT!r} must be a power of two, got {alignment}.")
    return alignment


def _infos(cursor: Cursor, count: int) -> list[_Info]:
    infos: list[_Info] = []
    names: set[str] = set()
    for index in range(count):
        info = _info(cursor, index)
        if info.name in names:
            cursor.refuse(f"tensor {info.name!r} must occur once, got it again as tensor {index}.")
        names.add(info.name)
        infos.append(info)
    return infos


def _info(cursor: Cursor, index: int) -> _Info:
    name = cursor.text(f"the name of tensor {index}", LONGEST_NAME)
    what = f"tensor {name!r}"
    shape = _shape(cursor, what)
    number = cursor.number(U32, f"{what}'s type")
    if number not in TENSOR_TYPES:
        known = ", ".join(f"{name} ({number})" for number, name in TENSOR_TYPES.items())
        cursor.refuse(f"{what} must have a type of {known}; got {number}.")
    entry = FORMATS[TENSOR_TYPES[number]]
    if shape[-1] % entry.block_size:
        cursor.refuse(
            f"{what} must have rows of a multiple of {entry.block_size} {entry.name} weights, got {shape[-1]}."
        )
    return _Info(name, entry.name, shape, cursor.number(U64, f"{what}'s offset"), entry.nbytes(shape))


def _shape(cursor: Cursor, what: str) -> tuple[int, ...]:
    count = cursor.number(U32, f"{what}'s number of dimensions")
    if not 1 <= count <= MOST_DIMENSIONS:
        cursor.refuse(f"{what} must have 1 to {MOST_DIMENSIONS} dimensions, got {count}.")
    shape = tuple(cursor.number(U64, f"{what}'s shape") for _ in range(count))[::-1]
    if min(shape) == 0 or math.prod(shape) > MOST_ELEMENTS:
        cursor.refuse(f"{what} must have a shape of 1 to {MOST_ELEMENTS} weights, got {list(shape)}.")
    return shape


def _check_places(cursor: Cursor, infos: list[_Info], start: int, alignment: int) -> None:
    """The tensors lie one after the other, each padded to the alignment, and within the file.

    A gap is refused too: it is how an alignment that the writer did not keep shows itself.
    """
    room, end, last = cursor.size - start, 0, "the header"
    for info in sorted(infos, key=lambda info: info.offset):
        what = f"tensor {info.name!r}"
        if info.offset % alignment:
            cursor.refuse(f"{what} must have an offset of a multiple of {alignment}, got {info.offset}.")
        if info.offset + info.size > room:
            cursor.refuse(
                f"{what} must end within the {max(room, 0)} bytes of data, got {info.size} bytes at {info.offset}."
            )
        if info.offset != end:
            cursor.refuse(f"{what} must follow {last} at {end}, got the offset {info.offset}.")
        end, last = -(-(info.offset + info.size) // alignment) * alignment, f"tensor {info.name!r}"


def _tensor(info: _Info, data: np.ndarray, start: int) -> GgufTensor:
    first = start + info.offset
    return GgufTensor(info.name, info.format, info.shape, data[first : first + info.size])
