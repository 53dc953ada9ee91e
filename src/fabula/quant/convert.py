"""Weights brought to another format as they are asked for: a type the user named."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

import numpy as np

from fabula.errors import ArgumentError
from fabula.quant.formats import StoredTensor, quantize
from fabula.quant.lazy import LazyTensors

# The floating-point formats: (type of the bits, bits of the least magnitude that packed weights cannot reach)
FLOATS = {"F32": ("<u4", 0x477FE001), "F16": ("<u2", 0x7C00), "BF16": ("<u2", 0x4780)}


def converted(tensor: StoredTensor, format: str) -> StoredTensor:
    """The weight in this format; itself where it has it already."""
    if tensor.format == format:
        return tensor
    weights = tensor.dequantize()
    data = quantize(format, weights)
    data.flags.writeable = False
    return replace(tensor, format=format, data=data)


def check_packable(tensor: StoredTensor) -> None:
    """Raises ArgumentError for a floating-point weight with numbers that no scale of 16 bits reaches, or none at all.

    The bits of floats are in the order of their magnitudes, below all negative ones; so two maxima tell.
    """
    kind, limit = FLOATS[tensor.format]
    bits = tensor.data.view(kind)
    sign = 1 << (8 * bits.itemsize - 1)
    if not len(bits) or (bits.max() < sign + limit and bits.view(bits.dtype.str.replace("u", "i")).max() < limit):
        return
    weights = tensor.dequantize().reshape(-1)
    wrong = weights[~(np.abs(weights) <= 65504)][0]
    raise ArgumentError(
        f"{tensor.name} must be finite and within 65504 to be quantized, got {float(wrong)!r}. "
        "Load the model without load_in_4bit or load_in_8bit."
    )


class ConvertedTensors(LazyTensors):
    """A checkpoint's weights brought to one floating-point format; vectors stay in float32 at least."""

    def __init__(self, tensors: Mapping[str, StoredTensor], format: str, *, kept: Collection[str] = ()) -> None:
        """`kept`: formats that stay as they are."""
        super().__init__(tensors)
        self._tensors = tensors
        self._format = format
        self._kept = kept

    def __getitem__(self, name: str) -> StoredTensor:
        tensor = self._tensors[name]
        vector = len(tensor.shape) < 2 and tensor.format == "F32"
        return tensor if vector or tensor.format in self._kept else converted(tensor, self._format)
