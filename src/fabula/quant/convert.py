"""Weights brought to another format as they are asked for: a type the user named, or fewer bits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np

from fabula.quant.formats import StoredTensor, known_format, quantize

FLOATS = frozenset({"F32", "F16", "BF16"})


def converted(tensor: StoredTensor, format: str) -> StoredTensor:
    """The weight in this format; itself where it has it already."""
    if tensor.format == format:
        return tensor
    weights = tensor.dequantize()
    data = quantize(format, weights)
    data.flags.writeable = False
    return replace(tensor, format=format, data=data)


class ConvertedTensors(Mapping[str, StoredTensor]):
    """A checkpoint's weights, all brought to one floating-point format; vectors stay in float32 at least."""

    def __init__(self, tensors: Mapping[str, StoredTensor], format: str) -> None:
        self._tensors = tensors
        self._format = format

    def __getitem__(self, name: str) -> StoredTensor:
        tensor = self._tensors[name]
        vector = len(tensor.shape) < 2 and tensor.format == "F32"
        return tensor if vector else converted(tensor, self._format)

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)


class QuantizedTensors(Mapping[str, StoredTensor]):
    """A checkpoint's weights with the floating-point matrices in groups of 32 of 4 or 8 bits.

    `keep` names matrices that take 8 bits in any case: embeddings and head, which lose most by 4. `untouched` names
    tables that are no matrices.
    """

    def __init__(
        self,
        tensors: Mapping[str, StoredTensor],
        bits: int,
        keep: frozenset[str],
        inputs_first: frozenset[str],
        untouched: frozenset[str] = frozenset(),
    ) -> None:
        self._tensors = tensors
        self._format = {4: "Q4_1", 8: "Q8_0"}[bits]
        self._keep = keep
        self._untouched = untouched
        self._inputs_first = inputs_first  # stored (in, out); groups run along the inputs, so they are turned

    def __getitem__(self, name: str) -> StoredTensor:
        tensor = self._tensors[name]
        if len(tensor.shape) != 2 or tensor.format not in FLOATS or name in self._untouched:
            return tensor
        if name in self._inputs_first and not tensor.transposed:
            tensor = turned(tensor)
        format = "Q8_0" if name in self._keep else self._format
        fits = tensor.shape[-1] % known_format(format).block_size == 0
        return converted(tensor, format) if fits else tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)


def turned(tensor: StoredTensor) -> StoredTensor:
    """A floating-point matrix stored (in, out), as float32 (out, in)."""
    data = np.ascontiguousarray(tensor.dequantize().T).reshape(-1).view(np.uint8)
    data.flags.writeable = False
    return StoredTensor(tensor.name, "F32", tensor.shape[::-1], data, transposed=True)
