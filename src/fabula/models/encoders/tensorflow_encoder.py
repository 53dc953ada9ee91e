"""The encoder's pass in TensorFlow: a padded rectangle in, vectors out, and of these what the decoder's layers read."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import tensorflow as tf

from fabula.generation.prompts.encoder import last_hidden_state
from fabula.generation.prompts.rows import host_array, host_mask
from fabula.models.encoders.seq2seq import encoder_mask
from fabula.models.passes.memories import Memories
from fabula.models.passes.output import EncoderOutput
from fabula.models.passes.tensorflow import compute
from fabula.models.passes.tensorflow_memory import memory_arrays
from fabula.models.passes.tensorflow_rectangle import Rectangle, check_width, read_inputs
from fabula.models.weights.tensorflow import Weights
from fabula.ops.protocol import Taps
from fabula.ops.rectangles import bucket
from fabula.ops.tensorflow import Frame

Tensor = Any  # a tf.Tensor


def encode_rectangle(model: Any, encoder: Weights, given: Rectangle) -> EncoderOutput:
    """The encoder's output, zero where the mask is. Raises ArgumentError for inputs that do not fit."""
    ids, vectors = read_inputs(model, given)
    rows, columns = ids.shape
    mask = encoder_mask(host_mask(given.attention_mask), (rows, columns))
    every = tuple(range(len(encoder.family.layers)))
    taps = Taps(every if given.hidden_states else (), every if given.attentions else (), final_hidden=True)
    run = compute if given.training else model.programs.compute
    computed = run(encoder, _frame(ids, vectors, mask), None, taps)
    height = bucket(rows)

    def spread(x: Tensor) -> Tensor:
        """[T, features] of the bucket as [R, S, features]."""
        whole = tf.reshape(x, (height, -1, x.shape[-1]))[:rows, :columns]
        return tf.where(mask[:, :, None], whole, tf.zeros((), x.dtype))

    hidden = spread(computed.hidden)
    states = [spread(computed.states[layer]) for layer in taps.hidden_states]
    weights = [computed.attentions[layer][:rows, :, :columns, :columns] for layer in taps.attentions]
    return EncoderOutput(
        hidden,
        (*states, hidden) if given.hidden_states else None,
        tuple(tf.where(mask[:, None, :, None], one, tf.zeros((), one.dtype)) for one in weights) or None,
    )


def make_memories(model: Any, encoder_outputs: Any, attention_mask: Any, training: bool) -> Memories:
    """What every decoder layer reads of the encoder's vectors [M, S, D], computed once."""
    hidden = last_hidden_state(encoder_outputs)
    hidden = tf.cast(hidden if tf.is_tensor(hidden) else host_array(hidden, "encoder_outputs"), model.dtype)
    check_width(model, hidden, "encoder_outputs")
    rows, columns, _ = hidden.shape
    mask = encoder_mask(host_mask(attention_mask), (rows, columns))
    more = _more(rows, columns)
    given, make = tf.pad(hidden, (*more, (0, 0))), partial(memory_arrays, model.weights)
    keys, values = make(given) if training else model.programs.called("memory", make, given)
    return Memories(keys, values, np.pad(mask, more), rows, columns)


def _frame(ids: np.ndarray, vectors: np.ndarray | None, mask: np.ndarray) -> Frame:
    """A bucket of rows and columns. Positions are columns: only their distances count."""
    more = _more(*ids.shape)
    tokens, valid = np.pad(ids, more).astype(np.int32), np.pad(mask, more)
    columns = np.broadcast_to(np.arange(tokens.shape[1], dtype=np.int32), tokens.shape)
    plain = (tokens, columns, valid.sum(1, dtype=np.int32), np.arange(tokens.size, dtype=np.int32))
    placed = () if vectors is None else (np.pad(vectors, (*more, (0, 0))).astype(np.float32), valid)
    return Frame(*map(tf.constant, (*plain, *placed)))._replace(valid=tf.constant(valid))


def _more(rows: int, columns: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """The padding behind rows and columns, up to a bucket of each."""
    return (0, bucket(rows) - rows), (0, bucket(columns, 16) - columns)
