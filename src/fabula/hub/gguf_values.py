"""The values of a GGUF header: numbers, strings and arrays, each checked against the bytes that are left."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from fabula.errors import ModelFileError

UINT32, BOOL, STRING, ARRAY = 4, 7, 8, 9
# GGUF's numbers of the value types -> how they lie in the file
NUMBERS = {
    0: struct.Struct("<B"),
    1: struct.Struct("<b"),
    2: struct.Struct("<H"),
    3: struct.Struct("<h"),
    UINT32: struct.Struct("<I"),
    5: struct.Struct("<i"),
    6: struct.Struct("<f"),
    BOOL: struct.Struct("<B"),
    10: struct.Struct("<Q"),
    11: struct.Struct("<q"),
    12: struct.Struct("<d"),
}
U32, U64 = NUMBERS[UINT32], NUMBERS[10]
MOST_ELEMENTS = 1 << 22  # of an array: sixteen times the largest vocabulary known


class Cursor:
    """A place in a header. Every read moves it, and fails where the file ends first."""

    def __init__(self, path: Path, data: Any, offset: int = 0) -> None:
        self.path = path
        self.data = data  # anything whose slices are bytes
        self.offset = offset  # bytes
        self.size = len(data)  # bytes

    def refuse(self, what: str) -> NoReturn:
        """Raises ModelFileError: the file's name, and `what` is wrong in it."""
        raise ModelFileError(f"{self.path}: {what} The file is damaged, or no GGUF file: fetch or convert it again.")

    def take(self, size: int, what: str) -> int:
        """Moves past `size` bytes of `what`; returns where they start."""
        start = self.offset
        if size > self.size - start:
            self.refuse(f"{what} must end within the file's {self.size} bytes, got {size} bytes at {start}.")
        self.offset = start + size
        return start

    def number(self, kind: struct.Struct, what: str) -> Any:
        """One number."""
        return kind.unpack_from(self.data, self.take(kind.size, what))[0]

    def count(self, what: str, most: int, smallest: int) -> int:
        """A 64-bit count of things of at least `smallest` bytes each; refused before anything is made for them."""
        count = self.number(U64, what)
        if count > most or count * smallest > self.size - self.offset:
            allowed = min(most, (self.size - self.offset) // smallest)
            self.refuse(f"{what} must be at most {allowed} in a file of {self.size} bytes, got {count}.")
        return count

    def text(self, what: str, longest: int | None = None) -> str:
        """One string of 1 to `longest` bytes, or of any size."""
        size = self.number(U64, f"{what}'s size")
        if longest is not None and not 0 < size <= longest:
            self.refuse(f"{what} must have 1 to {longest} bytes, got {size}.")
        start = self.take(size, what)
        return self.decode(self.data[start : start + size], what)

    def decode(self, data: bytes, what: str) -> str:
        """UTF-8 to text."""
        try:
            return data.decode()
        except UnicodeDecodeError as error:
            self.refuse(f"{what} must be UTF-8, got {data[:40]!r} ({error.reason}).")


def read_value(cursor: Cursor, kind: int, what: str) -> Any:
    """A metadata value of this type: int, float, bool, str, or a list of them."""
    if kind == STRING:
        return cursor.text(what)
    if kind == ARRAY:
        return _array(cursor, what)
    return _truth(cursor, cursor.number(_layout(cursor, kind, what), what), kind, what)


def _layout(cursor: Cursor, kind: int, what: str) -> struct.Struct:
    if kind not in NUMBERS:
        cursor.refuse(f"{what} must have a value type of 0 to 12, got {kind}.")
    return NUMBERS[kind]


def _truth(cursor: Cursor, value: Any, kind: int, what: str) -> Any:
    if kind != BOOL:
        return value
    if value > 1:
        cursor.refuse(f"{what} must be true (1) or false (0), got {value}.")
    return bool(value)


def _array(cursor: Cursor, what: str) -> list[Any]:
    kind = cursor.number(U32, f"{what}'s element type")
    if kind == ARRAY:
        cursor.refuse(f"{what} must be an array of numbers or strings, got an array of arrays.")
    if kind == STRING:
        return _strings(cursor, cursor.count(f"{what}'s length", MOST_ELEMENTS, smallest=8), what)
    layout = _layout(cursor, kind, f"{what}'s elements")
    count = cursor.count(f"{what}'s length", MOST_ELEMENTS, layout.size)
    start = cursor.take(count * layout.size, what)
    values = np.frombuffer(cursor.data[start : cursor.offset], np.dtype(layout.format))
    if kind == BOOL and values.size:
        _truth(cursor, int(values.max()), kind, f"each of {what}")
        values = values.astype(bool)
    return values.tolist()


def _strings(cursor: Cursor, count: int, what: str) -> list[str]:
    """`count` strings. Vocabularies have 262144 of them, so the loop does the least that is safe."""
    data, size, offset, unpack = cursor.data, cursor.size, cursor.offset, U64.unpack_from
    pieces = []
    try:
        for _ in range(count):
            start = offset + 8
            offset = start + unpack(data, offset)[0]
            if offset > size:
                break
            pieces.append(data[start:offset])
    except struct.error:  # the file ends within a size
        pass
    if len(pieces) < count:
        cursor.refuse(f"{what} must have {count} strings within the file's {size} bytes, got {len(pieces)}.")
    cursor.offset = offset
    return _decoded(cursor, pieces, what)


def _decoded(cursor: Cursor, pieces: list[bytes], what: str) -> list[str]:
    """Decoded in one go if possible: four times as fast."""
    try:
        texts = b"\0".join(pieces).decode().split("\0")
    except UnicodeDecodeError:
        texts = []
    if len(texts) == len(pieces):
        return texts
    return [cursor.decode(piece, f"{what}[{index}]") for index, piece in enumerate(pieces)]
