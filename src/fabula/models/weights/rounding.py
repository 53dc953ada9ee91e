"""A checkpoint's weights as a model that packs them on load computes with them, for whoever needs them as floats."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from fabula.kernels.packing import LAYOUTS
from fabula.kernels.plain import rounded_to
from fabula.kernels.program import Layout
from fabula.models.families.family import Entry, Family
from fabula.models.weights.table import placed_entries, served_by_another, stored_name
from fabula.ops.native_graph import StoredWeight
from fabula.ops.native_weights import Precision, layout_for
from fabula.quant.convert import check_packable
from fabula.quant.formats import StoredTensor, stored
from fabula.quant.lazy import LazyTensors

_CHUNK = 1 << 20  # weights rounded at a time


@dataclass(frozen=True, slots=True)
class Rounding:
    """What packing does to a matrix."""

    layout: Layout
    turned: bool  # whether its outputs are its columns


class RoundedTensors(LazyTensors):
    """The weights at a precision: matrices that it packs are rounded, as F32; all others are as they are stored.

    Embeddings are looked up, not multiplied, so they stay; so does a head that is tied to them.
    """

    def __init__(self, family: Family, tensors: Mapping[str, StoredTensor], precision: Precision) -> None:
        super().__init__(tensors)
        self._tensors = tensors
        self._precision = precision
        self._matrices = dict(_matrices(family, tensors))

    @property
    def unrounded(self) -> Mapping[str, StoredTensor]:
        """All weights as they are stored."""
        return self._tensors

    def __getitem__(self, name: str) -> StoredTensor:
        tensor, rounding = self._tensors[name], self.rounding(name)
        return tensor if rounding is None else _rounded(tensor, rounding)

    def rounding(self, name: str) -> Rounding | None:
        """What packing does to a weight; None: nothing."""
        if name not in self._matrices:
            return None
        tensor, (entry, head) = self._tensors[name], self._matrices[name]
        turned = entry.transposed and not tensor.transposed
        layout = layout_for(StoredWeight(tensor, turned, head), self._precision)
        return None if layout == LAYOUTS[tensor.format] else Rounding(layout, turned)


def _matrices(family: Family, tensors: Mapping[str, StoredTensor]) -> Iterator[tuple[str, tuple[Entry, bool]]]:
    """The stored names of what linears use, each with its entry and whether it is the head."""
    for stack in family.stacks:
        for layer, field, entry in placed_entries(stack):
            head = layer is None and field == "head"
            name = stored_name(entry.name, tensors)
            if name is None or len(entry.shape) != 2 or entry.table or not (head or layer is not None):
                continue
            if not served_by_another(stack, entry, tensors):
                yield name, (entry, head)


def _rounded(tensor: StoredTensor, rounding: Rounding) -> StoredTensor:
    """The weights after packing, in the orientation in which they are stored."""
    check_packable(tensor)
    floats = tensor.dequantize()
    upright = np.ascontiguousarray(floats.T) if rounding.turned else floats
    result = np.empty(upright.shape, np.float32)
    step = max(1, _CHUNK // upright.shape[1])
    for row in range(0, len(upright), step):
        result[row : row + step] = rounded_to(rounding.layout, upright[row : row + step])
    return stored(tensor.name, result.T if rounding.turned else result)
