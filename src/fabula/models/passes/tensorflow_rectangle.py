"""The call for people in TensorFlow: a padded rectangle in, a padded rectangle out, ragged rows inside."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import tensorflow as tf

from fabula.cache.blocks import blocks_for
from fabula.errors import ArgumentError, NotSupportedError
from fabula.generation.prompts.rows import check_room, host_array, host_mask, read_ids
from fabula.models.passes.output import CausalLMOutput
from fabula.models.passes.past import Past, check_past, written_past
from fabula.models.passes.rectangle import check_one_kind, column_mask, ragged_batch
from fabula.models.passes.tensorflow import compute
from fabula.models.passes.tensorflow_step import run_step
from fabula.ops.protocol import Forward, Taps

Tensor = Any  # a tf.Tensor


@dataclass(frozen=True, slots=True)
class Rectangle:
    """What a call of the model is given: R rows of S columns."""

    input_ids: Any  # Int["R S"]
    inputs_embeds: Any = None  # Float["R S D"], in place of ids
    attention_mask: Any = None  # ["R S"], or with the columns of the past before: 0 is padding
    position_ids: Any = None  # Int["R S"]; None: tokens are counted
    past: Any = None
    training: bool = False  # whether gradients may be asked for
    hidden_states: bool = False
    attentions: bool = False
    prefix: str = ""  # what goes before these names where a caller reads them


@dataclass(frozen=True, slots=True)
class Scored:
    """What a pass over a rectangle leaves; what it shows is zero where there is padding."""

    forward: Forward
    past: Past
    mask: np.ndarray  # Bool["R S"]: which columns were computed
    logits: Tensor  # Float["R S V"]
    states: tuple[Tensor, ...] | None  # Float["R S D"]: embeddings, every layer's output but the last's, and hidden
    attentions: tuple[Tensor, ...] | None  # of each layer Float["R heads S columns"]


def forward_rectangle(model: Any, given: Rectangle, remember: bool) -> CausalLMOutput:
    """The model's output; `remember`: keep keys and values for a call that continues these rows."""
    inputs = given.inputs_embeds if given.input_ids is None else given.input_ids
    given = replace(given, past=written_past(given.past, model.new_cache, inputs))
    scored = score_rectangle(model, given)
    past = scored.past if remember else None
    return CausalLMOutput(None, scored.logits, past, scored.states, scored.attentions)


def score_rectangle(model: Any, given: Rectangle, memories: Sequence[Any] = ()) -> Scored:
    """The pass, checked; a past gets what is computed, and there is one then. `memories`: an encoder's, one a row."""
    ids, vectors = read_inputs(model, given)
    check_past(given.past, len(ids), model.new_cache(0))
    past = given.past or Past(model.new_cache(len(ids) * blocks_for(ids.shape[1] + 1)), len(ids))
    mask = _mask(given, ids.shape, past)
    check_room(int((past.lengths + mask.sum(1)).max()), model.context_length)
    every = tuple(range(len(model.layers)))
    batch = replace(ragged_batch(ids, mask, past), memories=memories)
    batch = batch if vectors is None else replace(batch, vectors=vectors[mask])
    states, attentions = given.hidden_states, given.attentions
    taps = Taps(every if states else (), every if attentions else (), final_hidden=states)
    run = partial(compute, model.weights) if given.training else model.programs.run
    forward = run_step(run, model.programs.width, batch, past.cache, taps)
    shown = [*(forward.hidden_states or {}).values(), *([forward.hidden] if states else [])]
    weights = [(forward.attentions or {})[layer] for layer in taps.attentions]
    return Scored(
        forward,
        past,
        mask,
        _spread(forward.logits, mask),
        tuple(_spread(one, mask) for one in shown) or None,
        tuple(weights_rectangle(rows, mask, past.mask) for rows in weights) or None,
    )


def read_inputs(model: Any, given: Rectangle) -> tuple[np.ndarray, np.ndarray | None]:
    """Ids Int["R S"], and the vectors Float["R S D"] in their place. Raises ArgumentError unless there are either."""
    check_one_kind(given.input_ids, given.inputs_embeds, given.prefix)
    if given.inputs_embeds is None:
        return read_ids(given.input_ids, model.vocabulary_size, f"{given.prefix}input_ids"), None
    name = f"{given.prefix}inputs_embeds"
    vectors = host_array(given.inputs_embeds, name)
    if vectors.ndim != 3 or 0 in vectors.shape:
        raise ArgumentError(f"`{name}` must have the shape [rows, columns, width], got {list(vectors.shape)}.")
    check_width(model, vectors, name)
    return np.zeros(vectors.shape[:2], np.int32), vectors


def check_width(model: Any, vectors: Any, name: str) -> None:
    """Raises ArgumentError for vectors [R, S, D] of another width than the model's."""
    if vectors.shape[2] != model.programs.width:
        raise ArgumentError(f"`{name}` must be {model.programs.width} wide, got {vectors.shape[2]}.")


def _mask(given: Rectangle, shape: tuple[int, ...], past: Past) -> np.ndarray:
    """Bool["R S"]: which columns are tokens. Raises NotSupportedError for positions counted otherwise."""
    mask = column_mask(host_mask(given.attention_mask), (shape[0], shape[1]), past)
    if given.position_ids is not None:
        positions = np.broadcast_to(host_array(given.position_ids, "position_ids"), shape)
        counted = past.lengths[:, None] + np.cumsum(mask, 1) - 1
        if (positions != counted)[mask].any():
            raise NotSupportedError("`position_ids` must count each row's tokens from 0. Leave them out.")
    return mask


def _spread(x: Tensor, mask: np.ndarray) -> Tensor:
    """[T, features] -> [R, S, features], zero where there is padding."""
    return tf.scatter_nd(np.argwhere(mask).astype(np.int32), x, (*mask.shape, x.shape[-1]))


def weights_rectangle(rows: Sequence[Tensor], mask: np.ndarray, seen: np.ndarray) -> Tensor:
    """Attention weights of ragged rows, each [heads, new, keys], as [R, heads, S, columns]."""
    out = np.zeros((len(mask), rows[0].shape[0], mask.shape[1], seen.shape[1]), np.float32)
    for row, weights in zip(np.flatnonzero(mask.any(1)), rows, strict=True):
        queries, keys = np.flatnonzero(mask[row]), np.flatnonzero(seen[row])
        out[row][:, queries[:, None], keys] = tf.cast(weights, tf.float32).numpy()
    return tf.constant(out)
