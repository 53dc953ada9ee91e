"""The encoder's pass in PyTorch: a padded rectangle in, vectors out, and of these what the decoder's layers read."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from fabula.models.encoders.seq2seq import encoder_mask, is_one_run
from fabula.models.families.family import EncoderDecoder
from fabula.models.passes.output import EncoderOutput
from fabula.models.passes.rectangle import ragged_batch
from fabula.models.passes.torch import Weights, compute
from fabula.models.passes.torch_rectangle import (
    Rectangle,
    Scored,
    attentions_rectangle,
    check_ids_or_vectors,
    columns_index,
    flat_inputs,
    spread,
    states_rectangle,
)
from fabula.ops.protocol import Taps
from fabula.ops.torch import TorchOps
from fabula.ops.torch_layout import build_layout
from fabula.ops.torch_memory import Memories


def encode_rectangle(model: Any, given: Rectangle) -> EncoderOutput:
    """The encoder's output, zero where the mask is. Raises ArgumentError for inputs that do not fit."""
    check_ids_or_vectors(model, given)
    shape, stack = given.shape, model.family.encoder
    mask = encoder_mask(_host(given.attention_mask), shape)
    index = columns_index(mask, model.device)
    if not is_one_run(mask).all():  # distances count the columns between
        given = replace(given, position_ids=torch.arange(shape[1])[None])
    everything = tuple(range(len(stack.layers)))
    taps = Taps(everything if given.hidden_states else (), everything if given.attentions else ())
    inputs = flat_inputs(given, index, model.device)
    batch = ragged_batch(np.zeros(shape, np.int32), mask, None)
    computed = compute(stack, model.encoder_weights(), batch, None, taps, inputs)
    hidden = computed.hidden.to(model.device)
    scored = Scored(computed, mask, index, spread(hidden, index, shape), hidden)
    return EncoderOutput(
        scored.hidden,
        states_rectangle(scored, shape) if given.hidden_states else None,
        attentions_rectangle(scored, None) if given.attentions else None,
    )


def make_memories(
    family: EncoderDecoder, weights: Weights, hidden: torch.Tensor, attention_mask: torch.Tensor | None
) -> Memories:
    """What every decoder layer reads of the encoder's vectors [M, S, D], computed once."""
    rows, columns, width = hidden.shape
    mask = encoder_mask(_host(attention_mask), (rows, columns))
    flat = hidden.to(weights.outside.embed).reshape(rows * columns, width)
    batch = ragged_batch(np.zeros((1, 1), np.int32), np.ones((1, 1), bool), None)
    ops = TorchOps(build_layout(batch, (None,), False, flat.device))
    arrive = weights.arrive or (lambda x, layer: x)
    pairs = [
        family.memory(ops, arrive(flat, spec.index), layer, spec)
        for layer, spec in zip(weights.layers, family.layers, strict=True)
    ]
    shape = (rows, columns, -1, family.layers[0].attention.head_dim)
    keys, values = (tuple(each.view(shape) for each in side) for side in zip(*pairs, strict=True))
    seen = None if mask.all() else torch.from_numpy(mask).to(flat.device)
    return Memories(keys, values, seen)


def _host(attention_mask: torch.Tensor | None) -> np.ndarray | None:
    return None if attention_mask is None else attention_mask.cpu().numpy()
