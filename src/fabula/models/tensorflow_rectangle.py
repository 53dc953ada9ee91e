"""The call for people in TensorFlow: a padded rectangle in, a padded rectangle out, ragged rows inside."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import tensorflow as tf

from fabula.cache.blocks import blocks_for
from fabula.errors import ArgumentError, NotSupportedError
from fabula.generation.prompts import check_room, host_array, read_ids
from fabula.models.output import CausalLMOutput
from fabula.models.past import Past, check_past, written_past
from fabula.models.rectangle import column_mask, ragged_batch
from fabula.models.tensorflow_step import run_step
from fabula.ops.protocol import Taps

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


def forward_rectangle(model: Any, given: Rectangle, remember: bool, states: bool, attentions: bool) -> CausalLMOutput:
    """The model's output; `remember`: keep keys and values for a call that continues these rows."""
    ids, vectors = _inputs(model, given)
    past = written_past(given.past, model.new_cache)
    check_past(past, len(ids), model.new_cache(0))
    past = past or Past(model.new_cache(len(ids) * blocks_for(ids.shape[1] + 1)), len(ids))
    mask = _mask(given, ids.shape, past)
    check_room(int((past.lengths + mask.sum(1)).max()), model.context_length)
    every = tuple(range(len(model.layers)))
    batch = ragged_batch(ids, mask, past)
    batch = batch if vectors is None else replace(batch, vectors=vectors[mask])
    taps = Taps(every if states else (), every if attentions else (), final_hidden=states)
    run = model.programs.run_plainly if given.training else model.programs.run
    forward = run_step(run, model.programs.width, batch, past.cache, taps)
    shown = [*(forward.hidden_states or {}).values(), *([forward.hidden] if states else [])]
    weights = [(forward.attentions or {})[layer] for layer in taps.attentions]
    return CausalLMOutput(
        logits=_spread(forward.logits, mask),
        past_key_values=past if remember else None,
        hidden_states=tuple(_spread(one, mask) for one in shown) or None,
        attentions=tuple(_weights(rows, mask, past.mask) for rows in weights) or None,
    )


def _inputs(model: Any, given: Rectangle) -> tuple[np.ndarray, np.ndarray | None]:
    """Ids Int["R S"], and the vectors Float["R S D"] in their place. Raises ArgumentError unless there are either."""
    if (given.input_ids is None) == (given.inputs_embeds is None):
        raise ArgumentError("`input_ids` or `inputs_embeds` must be given, and not both. Pass one of them.")
    if given.inputs_embeds is None:
        return read_ids(given.input_ids, model.vocabulary_size), None
    vectors = host_array(given.inputs_embeds, "inputs_embeds")
    if vectors.ndim != 3 or 0 in vectors.shape:
        raise ArgumentError(f"`inputs_embeds` must have the shape [rows, columns, width], got {list(vectors.shape)}.")
    return np.zeros(vectors.shape[:2], np.int32), vectors


def _mask(given: Rectangle, shape: tuple[int, ...], past: Past) -> np.ndarray:
    """Bool["R S"]: which columns are tokens. Raises NotSupportedError for positions counted otherwise."""
    host = None if given.attention_mask is None else host_array(given.attention_mask, "attention_mask")
    mask = column_mask(host, (shape[0], shape[1]), past)
    if given.position_ids is not None:
        positions = np.broadcast_to(host_array(given.position_ids, "position_ids"), shape)
        counted = past.lengths[:, None] + np.cumsum(mask, 1) - 1
        if (positions != counted)[mask].any():
            raise NotSupportedError("`position_ids` must count each row's tokens from 0. Leave them out.")
    return mask


def _spread(x: Tensor, mask: np.ndarray) -> Tensor:
    """[T, features] -> [R, S, features], zero where there is padding."""
    return tf.scatter_nd(np.argwhere(mask).astype(np.int32), x, (*mask.shape, x.shape[-1]))


def _weights(rows: tuple[Tensor, ...], mask: np.ndarray, seen: np.ndarray) -> Tensor:
    """Attention weights of ragged rows, each [heads, new, keys], as [R, heads, S, columns]."""
    out = np.zeros((len(mask), rows[0].shape[0], mask.shape[1], seen.shape[1]), np.float32)
    for row, weights in zip(np.flatnonzero(mask.any(1)), rows, strict=True):
        queries, keys = np.flatnonzero(mask[row]), np.flatnonzero(seen[row])
        out[row][:, queries[:, None], keys] = tf.cast(weights, tf.float32).numpy()
    return tf.constant(out)
