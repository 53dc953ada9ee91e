"""The forward pass in JAX for people: a padded rectangle in, a padded rectangle out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fabula.cache.blocks import blocks_for
from fabula.errors import ArgumentError, ContextLengthError
from fabula.generation.prompts.rows import host_mask, read_ids
from fabula.models.passes.jax import Outputs, Rows
from fabula.models.passes.jax_losses import shifted_loss
from fabula.models.passes.output import CausalLMOutput
from fabula.models.passes.past import Past, check_past, written_past
from fabula.models.passes.rectangle import check_labels, check_one_kind, column_mask, ragged_batch
from fabula.ops.protocol import Taps

__all__ = ["Rectangle", "forward_rectangle"]


@dataclass(frozen=True, slots=True)
class Rectangle:
    """What a call of the model is given: R rows of S columns."""

    input_ids: Any  # Int["R S"]
    inputs_embeds: Any  # Float["R S D"], in place of ids
    attention_mask: Any  # ["R S"], or with the columns of the past before: 0 is padding
    position_ids: Any  # Int["R S"]; None: tokens are counted
    past: Any
    labels: Any  # Int["R S"]
    hidden_states: bool
    attentions: bool

    @property
    def shape(self) -> tuple[int, int]:
        """R and S."""
        given = self.inputs_embeds if self.input_ids is None else self.input_ids
        return int(given.shape[0]), int(given.shape[1])


def forward_rectangle(model: Any, given: Rectangle, remember: bool) -> CausalLMOutput:
    """The model's output; `remember`: keep keys and values for a call that continues these rows."""
    given = _checked(model, given)
    return _remembered(model, given) if remember else _alone(model, given)


def _alone(model: Any, given: Rectangle) -> CausalLMOutput:
    """A pass without a past, which may be traced."""
    shape = given.shape
    columns = jnp.broadcast_to(jnp.arange(shape[1], dtype=jnp.int32), shape)
    mask = None if given.attention_mask is None else jnp.asarray(given.attention_mask) != 0
    places = columns if mask is None else jnp.maximum(jnp.cumsum(mask, 1, dtype=jnp.int32) - 1, 0)
    if given.position_ids is not None:
        places = jnp.broadcast_to(jnp.asarray(given.position_ids, jnp.int32), shape)
    tokens = jnp.zeros(shape, jnp.int32) if given.input_ids is None else jnp.asarray(given.input_ids, jnp.int32)
    vectors = None if given.inputs_embeds is None else jnp.asarray(given.inputs_embeds).reshape(shape[0] * shape[1], -1)
    rows = Rows(tokens, columns, vectors=vectors, embedded=places)
    outputs = model.program.alone(model.weights(), rows, mask, _taps(model, given))
    kept = jnp.ones(shape, bool) if mask is None else mask
    logits = _spread(outputs.logits, kept)
    return CausalLMOutput(
        None if given.labels is None else shifted_loss(logits, jnp.asarray(given.labels)),
        logits,
        None,
        _states(outputs, kept) if given.hidden_states else None,
        _weights(outputs, kept) if given.attentions else None,
    )


def _taps(model: Any, given: Rectangle) -> Taps:
    every = tuple(range(len(model.layers)))
    states, weights = given.hidden_states, given.attentions
    return Taps(every if states else (), every if weights else (), final_hidden=states)


def _spread(x: jax.Array, kept: jax.Array) -> jax.Array:
    """[T, features] -> [R, S, features], zero where there is padding."""
    return jnp.where(kept[..., None], x.reshape(*kept.shape, -1), 0)


def _states(outputs: Outputs, kept: jax.Array) -> tuple[jax.Array, ...]:
    """The embeddings, every layer's output but the last's, and the last's after the norm: each [R, S, D]."""
    return tuple(_spread(each, kept) for each in (*(outputs.states[k] for k in sorted(outputs.states)), outputs.hidden))


def _weights(outputs: Outputs, kept: jax.Array) -> tuple[jax.Array, ...]:
    """Each layer's weights, [R, heads, S, S], zero for queries that are padding."""
    found = outputs.attentions
    return tuple(jnp.where(kept[:, None, :, None], found[layer], 0) for layer in sorted(found))


def _remembered(model: Any, given: Rectangle) -> CausalLMOutput:
    """A pass on the host, whose keys and values are kept."""
    shape, past = given.shape, written_past(given.past, model.new_cache, given.input_ids)
    check_past(past, shape[0], model.new_cache(0))
    past = past or Past(model.new_cache(shape[0] * blocks_for(shape[1] + 1)), shape[0])
    mask = column_mask(host_mask(given.attention_mask), shape, past)
    longest = int((past.lengths + mask.sum(1)).max())
    _check_room(model, longest)
    forward = model.step(ragged_batch(np.asarray(given.input_ids), mask, past), past.cache, _taps(model, given))
    logits = np.zeros((*shape, model.vocab_size), np.float32)
    logits[mask] = forward.logits
    states = None
    if given.hidden_states:
        assert forward.hidden_states is not None
        flat = [*(forward.hidden_states[layer] for layer in sorted(forward.hidden_states)), forward.hidden]
        states = tuple(jnp.asarray(_rectangle(each, mask)) for each in flat)
    attentions = None
    if given.attentions:
        assert forward.attentions is not None
        found = forward.attentions
        attentions = tuple(jnp.asarray(_seen(found[layer], mask, past.mask)) for layer in sorted(found))
    loss = None if given.labels is None else shifted_loss(jnp.asarray(logits), jnp.asarray(given.labels))
    return CausalLMOutput(loss, jnp.asarray(logits), past, states, attentions)


def _rectangle(flat: np.ndarray, mask: np.ndarray) -> np.ndarray:
    whole = np.zeros((*mask.shape, flat.shape[-1]), np.float32)
    whole[mask] = flat
    return whole


def _seen(rows: Sequence[np.ndarray], mask: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Weights of ragged rows, each [heads, new, keys], as [R, heads, S, columns]."""
    out = np.zeros((len(mask), rows[0].shape[0], mask.shape[1], columns.shape[1]), np.float32)
    for row, weights in zip(np.flatnonzero(mask.any(1)), rows, strict=True):
        queries, keys = np.flatnonzero(mask[row]), np.flatnonzero(columns[row])
        out[row][:, queries[:, None], keys] = weights
    return out


def _checked(model: Any, given: Rectangle) -> Rectangle:
    """Raises ArgumentError unless there are either ids or vectors that fit; what is traced is not looked at."""
    check_one_kind(given.input_ids, given.inputs_embeds)
    if given.inputs_embeds is not None and (len(given.inputs_embeds.shape) != 3 or given.past is not None):
        raise ArgumentError("`inputs_embeds` must have 3 dimensions, and no past. Add the rows' one, or pass ids.")
    if given.input_ids is not None and not isinstance(given.input_ids, jax.core.Tracer):
        given = _with_ids(given, read_ids(given.input_ids, model.vocab_size))
    check_labels(given.labels, given.shape)
    if given.past is None:
        _check_room(model, given.shape[1])
    if not isinstance(given.attention_mask, jax.core.Tracer) and given.past is None:
        column_mask(host_mask(given.attention_mask), given.shape, None)
    return given


def _with_ids(given: Rectangle, ids: np.ndarray) -> Rectangle:
    rest = (given.attention_mask, given.position_ids, given.past, given.labels, given.hidden_states, given.attentions)
    return Rectangle(ids, None, *rest)


def _check_room(model: Any, longest: int) -> None:
    """Raises ContextLengthError where the model has a table of positions and a row outgrows it."""
    limit = model.config.get("max_position_embeddings")
    if not model.family.rotary and limit is not None and longest > limit:
        raise ContextLengthError(f"a row must have at most {limit} positions, got {longest}. Shorten the input.")
