"""`past_key_values=`: what each row of a call goes on from: a handle, a past of `model(...)` or a foreign cache."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fabula.cache.blocks import Table, blocks_for
from fabula.cache.kept import UNKNOWN, Continued, KeptRow
from fabula.engine.engine import Engine
from fabula.engine.keeping import shared_length
from fabula.errors import ArgumentError, NotSupportedError, OutOfMemoryError
from fabula.generation.past.foreign import ForeignCache, is_foreign
from fabula.generation.past.handle import GeneratedPast
from fabula.generation.prompts.inputs import ModelInputs
from fabula.generation.prompts.rows import host_array, host_mask
from fabula.generation.prompts.source import Source

__all__ = ["Beginning", "OpenPast", "continue_rows", "open_past"]


@dataclass(frozen=True, slots=True)
class OpenPast:
    """A past that fits the call's inputs."""

    past: Any  # a GeneratedPast, a Past of the model, or a ForeignCache
    mask: np.ndarray  # Bool["R C"]: which of its columns are tokens
    whole: bool  # whether the inputs hold its tokens once more; else they are only what follows
    texts: Sequence[np.ndarray] | None = None  # what each row's encoder read, if that is known


@dataclass(frozen=True, slots=True)
class Beginning:
    """What one row of a call goes on from."""

    before: np.ndarray  # Int["B"]: tokens before those of the call's own prompt
    past: Continued | None


def open_past(model: Any, past: Any, given: ModelInputs) -> tuple[OpenPast | None, ModelInputs]:
    """The past, and the inputs with a mask of their own columns only; None where it is empty.

    Raises ArgumentError for what this model did not return, for other rows, and for masks that do not fit;
    NotSupportedError for vectors.
    """
    if past is None:
        return None, given
    past = _readable(model, past)
    if past.get_seq_length() == 0:
        return None, given
    if given.vectors is not None:
        raise NotSupportedError("`inputs_embeds` must be left out with `past_key_values`, got both. Pass ids.")
    encodes = model.is_encoder_decoder
    ids, mask = (given.decoder_ids, given.decoder_mask) if encodes else (given.ids, given.mask)
    name = "decoder_input_ids" if encodes else "input_ids"
    if ids is None:
        raise ArgumentError(f"`{name}` must be given with `past_key_values`, got None. Pass the ids that follow.")
    _check_rows(past, len(ids), name)
    before, own = _split(past, ids, mask, name)
    opened = _opened(past, before, mask)
    return opened, replace(given, decoder_mask=own) if encodes else replace(given, mask=own)


def _readable(model: Any, past: Any) -> Any:
    if isinstance(past, (tuple, list)):
        raise ArgumentError(
            "`past_key_values` must be what generate() or the model returned, or a Cache, got a tuple. "
            "Pass output.past_key_values."
        )
    if isinstance(past, GeneratedPast):
        if past.model() is not model:
            raise ArgumentError(
                "`past_key_values` must come from an earlier call of this model, got those of another. "
                "Pass None to start anew."
            )
        return past
    if is_foreign(past):
        return ForeignCache.of(past)
    if all(hasattr(past, name) for name in ("row", "mask", "tokens", "get_seq_length")):
        return past
    raise ArgumentError(
        "`past_key_values` must be what generate() or the model returned, or a Cache, "
        f"got {type(past).__name__}. Pass None to start anew."
    )


def _check_rows(past: Any, rows: int, name: str) -> None:
    if past.rows != rows:
        raise ArgumentError(
            f"`past_key_values` must hold {rows} rows, one for each of `{name}`, got {past.rows}. A row serves all "
            "beams and sequences of its prompt. Use its reorder_cache to repeat or drop rows."
        )


def _split(past: Any, ids: Any, mask: Any, name: str) -> tuple[np.ndarray | None, Any]:
    """What a mask says of the past's columns where the ids are only new ones, None where they are all; and the rest."""
    columns = past.get_seq_length()
    if isinstance(ids, (list, tuple)):
        before, new = past.lengths.tolist(), [len(row) for row in ids]
        masks = None if mask is None else [host_array(row, "attention_mask") for row in mask]
        if masks is not None and [len(row) for row in masks] == [sum(pair) for pair in zip(before, new, strict=True)]:
            _check_seen(all(row[:count].all() for row, count in zip(masks, before, strict=True)))
            return past.mask, [row[count:] for row, count in zip(masks, before, strict=True)]
        short = any(length <= count for length, count in zip(new, before, strict=True))
    else:
        width = int(ids.shape[1])
        seen = host_mask(mask)
        if seen is not None and seen.ndim == 2 and seen.shape[1] == columns + width:
            return seen[:, :columns] != 0, mask[:, columns:]
        short = width <= columns
    if short:
        raise ArgumentError(
            f"`{name}` must hold the {columns} columns of `past_key_values` and new ones, or, with an `attention_mask` "
            "of all columns, only the new ones. Crop the past, or pass that mask."
        )
    return None, mask


def _opened(past: Any, before: np.ndarray | None, mask: Any) -> OpenPast:
    """What the past's own mask says is what the call's must say of its columns."""
    own = past.mask
    if own is None:  # a foreign cache does not know: what the call says holds
        columns = past.get_seq_length()
        if before is not None:
            own = before
        elif mask is None:
            own = np.ones((past.rows, columns), bool)
        else:
            own = host_array(mask, "attention_mask")[:, :columns] != 0
    elif before is not None:
        _check_seen(np.array_equal(before, own))
    return OpenPast(past, own, before is None, getattr(past, "texts", None))


def _check_seen(alike: bool) -> None:
    if not alike:
        raise ArgumentError(
            "`attention_mask` must be 1 where `past_key_values` has tokens and 0 where it has padding. "
            "Begin it with past_key_values.mask."
        )


def continue_rows(opened: OpenPast, source: Source, engine: Engine) -> list[Beginning]:
    """What each row goes on from. A past that is no handle of this engine's is copied into it.

    Raises ArgumentError where tokens are needed that nobody knows, OutOfMemoryError.
    """
    kept = _kept_rows(opened, source, engine)
    return [_beginning(opened, source, index, row) for index, row in enumerate(kept)]


def _beginning(opened: OpenPast, source: Source, index: int, kept: KeptRow) -> Beginning:
    length, prompt = int(opened.mask[index].sum()), source.prompts.rows[index]
    tokens = kept.tokens[:length]
    if opened.texts is not None and not _same_text(opened.texts[index], source, index):
        length = 0  # what was computed saw another text
    if not opened.whole:
        return Beginning(np.where(tokens == UNKNOWN, 0, tokens).astype(np.int32), Continued(kept, length))
    known = np.where(tokens == UNKNOWN, prompt[: len(tokens)], tokens) if len(prompt) >= len(tokens) else tokens
    shared = min(length, shared_length(known, prompt))
    if kept.vectors is not None and shared < len(kept.vectors):
        return Beginning(prompt[:0], None)
    return Beginning(prompt[:0], Continued(kept, shared) if shared else None)


def _same_text(text: np.ndarray, source: Source, index: int) -> bool:
    return source.texts is not None and np.array_equal(text, source.texts[index])


def _kept_rows(opened: OpenPast, source: Source, engine: Engine) -> list[KeptRow]:
    past = opened.past
    if isinstance(past, GeneratedPast):
        if past.engine is not engine and not all(row.is_known for row in past.kept):
            raise ArgumentError(
                "`past_key_values` must hold tokens to be computed again after the model was moved, got some that "
                "came without. Pass None and all ids."
            )
        return past.kept
    if not hasattr(engine.storage, "write_row"):
        return _tokens_alone(opened, source, engine)
    return _copied(opened, source, engine)


def _tokens_alone(opened: OpenPast, source: Source, engine: Engine) -> list[KeptRow]:
    """For a model whose cache takes nothing in: the ids are all there is."""
    if not opened.whole:
        raise NotSupportedError(
            "`past_key_values` of somebody else's must come with all ids for this model, got only the new ones. "
            "Pass the ids of the past too."
        )
    from_nothing = np.zeros(0, np.int32)
    with engine.alone():
        return [engine.keeper.add(KeptRow(from_nothing, Table(engine.pool), 0)) for _ in source.prompts.rows]


def _copied(opened: OpenPast, source: Source, engine: Engine) -> list[KeptRow]:
    past, counts, storage = opened.past, opened.mask.sum(1), engine.storage
    if tuple(past.heads) != tuple(getattr(storage, "heads", ())):
        raise ArgumentError(
            "`past_key_values` must have this model's layers, heads and features, got others. Pass None to start anew."
        )
    found = []
    with engine.alone():
        needed = sum(blocks_for(int(count)) for count in counts)
        engine.reserve(needed)
        if len(engine.pool.free) < needed:
            raise OutOfMemoryError(f"`past_key_values` of {int(counts.sum())} positions do not fit in the cache.")
        for index in range(past.rows):
            tokens, layers = past.row(index) if past.mask is not None else past.masked_row(index, opened.mask[index])
            if opened.whole:
                tokens = _told(tokens, source.prompts.rows[index])
            found.append(engine.keeper.write(storage, tokens, layers))
    return found


def _told(tokens: np.ndarray, prompt: np.ndarray) -> np.ndarray:
    """The tokens, those that are not known from the prompt."""
    if len(prompt) < len(tokens):
        return tokens
    return np.where(tokens == UNKNOWN, prompt[: len(tokens)], tokens).astype(np.int32)
