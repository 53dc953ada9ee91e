"""Weights in the safetensors format: memory-mapped, every number of the header checked before it is used.

The format: github.com/huggingface/safetensors, README, "Format".
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from fabula.errors import ModelFileError
from fabula.hub.json_text import parse_object, read_object
from fabula.hub.mapping import map_file
from fabula.quant.formats import StoredTensor
from fabula.quant.lazy import LazyTensors

FORMATS = {"F32": "F32", "F16": "F16", "BF16": "BF16"}  # the types of weights -> ours
# Bits an element of every type that a file may hold; those that are no weights are passed over unless asked for.
BITS = {
    **dict.fromkeys(("F64", "I64", "U64", "C64"), 64),
    **dict.fromkeys(("F32", "I32", "U32"), 32),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 16),
    **dict.fromkeys(("I8", "U8", "BOOL", "F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    "F4": 4,
}
MOST_HEADER = 100_000_000  # bytes: the safetensors library's own limit
MOST_DIMENSIONS = 16
MOST_ELEMENTS = (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class Entry:
    """A tensor as the header describes it, checked."""

    name: str
    dtype: str  # a key of BITS
    shape: tuple[int, ...]
    begin: int  # bytes from the start of the data
    end: int


class SafeTensors(LazyTensors):
    """The weights of one file."""

    def __init__(self, path: Path, data: np.ndarray, entries: Mapping[str, Entry], metadata: Mapping[str, str]) -> None:
        super().__init__(entries)
        self.path = path
        self.metadata = metadata  # the header's "__metadata__"
        self._data = data  # UInt8["bytes"]: what follows the header
        self._entries = entries

    def __getitem__(self, name: str) -> StoredTensor:
        entry = self._entries[name]
        if entry.dtype not in FORMATS:
            raise ModelFileError(
                f"{self.path}: tensor {name!r} must be of type {', '.join(FORMATS)} to be a weight, got {entry.dtype}. "
                "Convert the model to one of these."
            )
        return StoredTensor(name, FORMATS[entry.dtype], entry.shape, self._data[entry.begin : entry.end])


def read_safetensors(path: str | Path) -> SafeTensors:
    """The file's weights; raises ModelFileError naming the file and the tensor."""
    path = Path(path)
    data = np.frombuffer(map_file(path), np.uint8)
    start = _data_start(path, data)
    header = parse_object(_header_text(path, data[8:start].tobytes()), f"{path}: the header")
    metadata = _metadata(path, header.pop("__metadata__", {}))
    entries = {name: _entry(path, name, value) for name, value in header.items()}
    _check_places(path, list(entries.values()), len(data) - start)
    return SafeTensors(path, data[start:], entries, metadata)


def read_sharded(index: str | Path) -> Mapping[str, StoredTensor]:
    """The weights of all files that a model.safetensors.index.json names."""
    index = Path(index)
    places = read_object(index).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise ModelFileError(f"{index}: key 'weight_map' must be an object of tensors' files, got {places!r:.60}.")
    for name, file in places.items():
        if not isinstance(file, str) or not file.endswith(".safetensors") or Path(file).name != file or "\\" in file:
            raise ModelFileError(
                f"{index}: key {f'weight_map.{name}'!r} must name a .safetensors file beside it, got {file!r:.80}. "
                "Fetch the model again."
            )
    shards = {file: read_safetensors(index.parent / file) for file in sorted(set(places.values()))}
    for name, file in places.items():
        if name not in shards[file]:
            raise ModelFileError(
                f"{index.parent / file}: tensor {name!r} must be there, and is not. Fetch the model again."
            )
    return Shards({name: shards[file] for name, file in places.items()})


class Shards(LazyTensors):
    """The weights of several files."""

    def __init__(self, files: Mapping[str, SafeTensors]) -> None:
        super().__init__(files)
        self._files = files  # tensor's name -> the file that holds it

    def __getitem__(self, name: str) -> StoredTensor:
        return self._files[name][name]


def _refuse(path: Path, what: str) -> NoReturn:
    raise ModelFileError(f"{path}: {what} The file is damaged, or no safetensors file: fetch it again.")


def _data_start(path: Path, data: np.ndarray) -> int:
    """Where the data begin: after the header's size in 8 bytes, and the header."""
    if len(data) < 8:
        _refuse(path, f"the file must have at least 8 bytes, got {len(data)}.")
    size = int.from_bytes(data[:8].tobytes(), "little")
    if size > MOST_HEADER:
        _refuse(path, f"the header must have at most {MOST_HEADER} bytes, got {size}.")
    if size > len(data) - 8:
        _refuse(path, f"the header must end within the file's {len(data)} bytes, got {size} bytes at 8.")
    return 8 + size


def _header_text(path: Path, header: bytes) -> str:
    try:
        return header.decode()
    except UnicodeDecodeError as error:
        _refuse(path, f"the header must be UTF-8, got another byte at {8 + error.start}.")


def _metadata(path: Path, value: Any) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        _refuse(path, f"key '__metadata__' of the header must be an object of strings, got {value!r:.80}.")
    return value


def _entry(path: Path, name: str, value: Any) -> Entry:
    what = f"tensor {name!r:.120}"
    if not isinstance(value, dict) or set(value) != {"dtype", "shape", "data_offsets"}:
        _refuse(path, f"{what} must have a dtype, a shape and data_offsets, got {value!r:.80}.")
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str) or dtype not in BITS:
        _refuse(path, f"{what} must have a dtype of {', '.join(BITS)}; got {dtype!r:.40}.")
    if not _are_counts(shape) or len(shape) > MOST_DIMENSIONS or math.prod(shape) > MOST_ELEMENTS:
        _refuse(path, f"{what} must have a shape of at most {MOST_ELEMENTS} elements, got {shape!r:.80}.")
    if not _are_counts(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        _refuse(path, f"{what} must have data_offsets [begin, end] with begin <= end, got {offsets!r:.80}.")
    bits = math.prod(shape) * BITS[dtype]
    if bits != 8 * (offsets[1] - offsets[0]):
        _refuse(path, f"{what} must have {bits / 8:g} bytes for {shape} of {dtype}, got {offsets[1] - offsets[0]}.")
    return Entry(name, dtype, tuple(shape), *offsets)


def _are_counts(values: Any) -> bool:
    """Whether it is a list of integers from 0 to what fits in 64 bits."""
    return isinstance(values, list) and all(type(value) is int and 0 <= value < 1 << 63 for value in values)


def _check_places(path: Path, entries: list[Entry], size: int) -> None:
    """The tensors fill the data without holes, and none lies over another."""
    end, last = 0, "the header"
    for entry in sorted(entries, key=lambda entry: (entry.begin, entry.end)):
        what = f"tensor {entry.name!r:.120}"
        if entry.end > size:
            _refuse(path, f"{what} must end within the {size} bytes of data, got the end {entry.end}.")
        if entry.begin != end:
            kind = "lie over" if entry.begin < end else "leave a hole after"
            _refuse(path, f"{what} must not {kind} {last!r:.120}, which ends at {end}, got the begin {entry.begin}.")
        end, last = entry.end, entry.name
    if end != size:
        _refuse(path, f"the data must have the tensors' {end} bytes, got {size}.")
