"""A checkpoint's tensors by the fields of a family's weight table, for the native backend."""

from __future__ import annotations

from collections.abc import Mapping

from fabula.models.families.family import Stack
from fabula.models.weights.table import find_tensor, placed_entries, served_by_another
from fabula.quant.formats import StoredTensor


def placed_tensors(
    family: Stack, tensors: Mapping[str, StoredTensor]
) -> dict[tuple[int | None, str], StoredTensor | None]:
    """(layer or None, field) -> the stored weight, None for an optional one that is absent. Raises ModelFileError."""
    placed: dict[tuple[int | None, str], StoredTensor | None] = {}
    tied: list[tuple[int | None, str, str]] = []
    for layer, field, entry in placed_entries(family):
        if served_by_another(family, entry, tensors):
            assert entry.tied is not None
            tied.append((layer, field, entry.tied))
        else:
            placed[layer, field] = find_tensor(family, entry, tensors)
    return placed | {(layer, field): placed[layer, other] for layer, field, other in tied}
