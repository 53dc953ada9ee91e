"""A family's weight table against a checkpoint: which stored tensor serves which entry, its shape proved."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from math import prod

from fabula.errors import ModelFileError
from fabula.models.family import Entry, Family
from fabula.quant.formats import StoredTensor

EMBEDDINGS = ("embed", "positions")  # fields whose rows are looked up


def placed_entries(family: Family) -> Iterator[tuple[int | None, str, Entry]]:
    """Every entry with its layer (None: outside the layers) and its field; names have their layer's number in."""
    for field, entry in family.weights().items():
        yield None, field, entry
    for layer in family.layers:
        for field, entry in family.layer_weights(layer).items():
            yield layer.index, field, replace(entry, name=entry.name.format(layer=layer.index))


def served_by_another(family: Family, entry: Entry, tensors: Mapping[str, StoredTensor]) -> bool:
    """Whether the entry's `tied` field stands in: the configuration says so, or the checkpoint lacks the entry."""
    if entry.tied is None:
        return False
    return bool(family.config.get("tie_word_embeddings")) or _stored_name(entry.name, tensors) is None


def find_tensor(family: Family, entry: Entry, tensors: Mapping[str, StoredTensor]) -> StoredTensor | None:
    """The stored tensor of a placed entry, None for an optional one that is absent.

    Raises ModelFileError for one that is absent or of another shape.
    """
    name = _stored_name(entry.name, tensors)
    if name is None:
        if entry.optional:
            return None
        raise ModelFileError(
            f"{entry.name} must be among the checkpoint's tensors, and is not. "
            f"Check that the file is whole and holds a {family.config.model_type} model."
        )
    tensor = tensors[name]
    expected = entry.shape[::-1] if tensor.transposed else entry.shape
    if tuple(tensor.shape) != tuple(expected):
        raise ModelFileError(
            f"{name} must have the shape {expected}, which config.json implies, got {tuple(tensor.shape)}. "
            "Check that the configuration and the weights belong together."
        )
    return tensor


def count_numbers(family: Family, tensors: Mapping[str, StoredTensor], exclude_embeddings: bool = False) -> int:
    """How many numbers the family's weights hold: tied ones once, what else is in the checkpoint not at all."""
    return sum(
        prod(entry.shape)
        for layer, field, entry in placed_entries(family)
        if not served_by_another(family, entry, tensors)
        and _stored_name(entry.name, tensors) is not None
        and not (exclude_embeddings and layer is None and field in EMBEDDINGS)
    )


def _stored_name(name: str, tensors: Mapping[str, StoredTensor]) -> str | None:
    """The name under which a checkpoint has a tensor: of the whole model, its inner part, or a multimodal one."""
    inner = name.partition(".")[2]
    for candidate in (name, inner, f"language_model.{name}", f"model.language_model.{inner}"):
        if candidate in tensors:
            return candidate
    return None
