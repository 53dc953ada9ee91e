"""A checkpoint's weights as a model that packs them on load computes with them, for whoever needs them as floats."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from fabula.kernels.packing import LAYOUTS
from fabula.kernels.plain import rounded_to
from fabula.kernels.program import Layout
from fabula.models.family import Entry, Family
from fabula.models.weights import placed_entries, served_by_another, stored_name
from fabula.ops.native_graph import StoredWeight
from fabula.ops.native_weights import Precision, layout_for
from fabula.quant.convert import check_packable
from fabula.quant.formats import StoredTensor, stored

_CHUNK = 1 << 20  # weights rounded at a time


class RoundedTensors(Mapping[str, StoredTensor]):
    """The weights at a precision: matrices that it packs are rounded, as F32; all others are as they are stored.

    Embeddings are looked up, not multiplied, so they stay; so does a head that is tied to them.
    """

    def __init__(self, family: Family, tensors: Mapping[str, StoredTensor], precision: Precision) -> None:
        self._tensors = tensors
        self._precision = precision
        self._matrices = dict(_matrices(family, tensors))

    def __getitem__(self, name: str) -> StoredTensor:
        tensor = self._tensors[name]
        if name not in self._matrices:
            return tensor
        entry, head = self._matrices[name]
        turned = entry.transposed and not tensor.transposed
        layout = layout_for(StoredWeight(tensor, turned, head), self._precision)
        return tensor if layout == LAYOUTS[tensor.format] else _rounded(tensor, layout, turned)

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)


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


def _rounded(tensor: StoredTensor, layout: Layout, turned: bool) -> StoredTensor:
    """The weights after packing, in the orientation in which they are stored."""
    check_packable(tensor)
    floats = tensor.dequantize()
    upright = np.ascontiguousarray(floats.T) if turned else floats
    result = np.empty(upright.shape, np.float32)
    step = max(1, _CHUNK // upright.shape[1])
    for row in range(0, len(upright), step):
        result[row : row + step] = rounded_to(layout, upright[row : row + step])
    return stored(tensor.name, result.T if turned else result)
