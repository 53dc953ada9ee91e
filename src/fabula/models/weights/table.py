"""A family's weight table against a checkpoint: which stored tensor serves which entry, its shape proved."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from math import prod

import numpy as np

from fabula.errors import ModelFileError
from fabula.models.families.family import Entry, Family, Stack
from fabula.quant.formats import StoredTensor

EMBEDDINGS = ("embed", "positions")  # fields whose rows are looked up


def placed_entries(family: Stack) -> Iterator[tuple[int | None, str, Entry]]:
    """Every entry with its layer (None: outside the layers) and its field; names have their layer's number in."""
    for field, entry in family.weights().items():
        yield None, field, entry
    for layer in family.layers:
        for field, entry in family.layer_weights(layer).items():
            yield layer.index, field, replace(entry, name=entry.name.format(layer=layer.index))


def all_entries(family: Family) -> Iterator[tuple[Stack, Entry]]:
    """Every entry of all the family's stacks with the stack that it is in; a name that several use comes once."""
    known = set()
    for stack in family.stacks:
        for _, _, entry in placed_entries(stack):
            if entry.name not in known:
                known.add(entry.name)
                yield stack, entry


def served_by_another(family: Stack, entry: Entry, tensors: Mapping[str, StoredTensor]) -> bool:
    """Whether the entry's `tied` field stands in: the configuration says so, or the checkpoint lacks the entry."""
    if entry.tied is None:
        return False
    if entry.own:
        return not _differs(entry.name, family.weights()[entry.tied].name, tensors)
    return bool(family.config.get("tie_word_embeddings")) or stored_name(entry.name, tensors) is None


def _differs(name: str, other: str, tensors: Mapping[str, StoredTensor]) -> bool:
    """Whether the checkpoint has weights for `name` that are not those of `other`."""
    found, standing = stored_name(name, tensors), stored_name(other, tensors)
    if found is None or standing is None:
        return found is not None
    one, two = tensors[found], tensors[standing]
    return one.format != two.format or not np.array_equal(one.data, two.data)


def find_tensor(family: Stack, entry: Entry, tensors: Mapping[str, StoredTensor]) -> StoredTensor | None:
    """The stored tensor of a placed entry, None for an optional one that is absent.

    Raises ModelFileError for one that is absent or of another shape.
    """
    name = stored_name(entry.name, tensors)
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


def stored_names(family: Family, tensors: Mapping[str, StoredTensor]) -> set[str]:
    """The names of the entries that the checkpoint has weights for, tied ones left out."""
    return {
        entry.name
        for stack, entry in all_entries(family)
        if stored_name(entry.name, tensors) is not None and not served_by_another(stack, entry, tensors)
    }


def count_numbers(family: Family, tensors: Mapping[str, StoredTensor], exclude_embeddings: bool = False) -> int:
    """How many numbers the family's weights hold: tied ones once, what else is in the checkpoint not at all."""
    tables = {
        entry.name
        for stack in family.stacks
        for layer, field, entry in placed_entries(stack)
        if layer is None and field in EMBEDDINGS
    }
    return sum(
        prod(entry.shape)
        for stack, entry in all_entries(family)
        if not served_by_another(stack, entry, tensors)
        and stored_name(entry.name, tensors) is not None
        and not (exclude_embeddings and entry.name in tables)
    )


def stored_name(name: str, tensors: Mapping[str, StoredTensor]) -> str | None:
    """The name under which a checkpoint has a tensor: of the whole model, its inner part, or a multimodal one."""
    inner = name.partition(".")[2]
    for candidate in (name, inner, f"language_model.{name}", f"model.language_model.{inner}"):
        if candidate in tensors:
            return candidate
    return None
