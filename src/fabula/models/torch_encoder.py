"""The encoder's pass in PyTorch: a padded rectangle in, vectors out, and of these what the decoder's layers read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from fabula.errors import ArgumentError
from fabula.models.family import EncoderDecoder
from fabula.models.output import EncoderOutput
from fabula.models.rectangle import column_mask, ragged_batch
from fabula.models.torch_pass import Weights, compute
from fabula.models.torch_rectangle import (
    Rectangle,
    Scored,
    attentions_rectangle,
    check_one_kind,
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
    check_one_kind(model, given)
    shape, stack = given.shape, model.family.encoder
    mask = encoder_mask(given.attention_mask, shape)
    index = columns_index(mask, model.device)
    if not is_one_run(mask).all():  # distances count the columns between
        given = replace(given, position_ids=torch.arange(shape[1])[None])
    everything = tuple(range(len(stack.layers)))
    taps = Taps(everything if given.hidden_states else (), everything if given.attentions else ())
    inputs = flat_inputs(given, index, model.device)
    batch = ragged_batch(np.zeros(shape, np.int32), mask, None)
    computed = compute(stack, model.encoder_weights(), batch, None, taps, inputs)
    scored = Scored(computed, mask, index, spread(computed.hidden, index, shape), computed.hidden)
    return EncoderOutput(
        scored.hidden,
        states_rectangle(scored, shape) if given.hidden_states else None,
        attentions_rectangle(scored, None) if given.attentions else None,
    )


def encoder_mask(attention_mask: torch.Tensor | None, shape: tuple[int, int]) -> np.ndarray:
    """Bool["R S"]: which columns are tokens. Raises ArgumentError for a row without any."""
    mask = column_mask(None if attention_mask is None else attention_mask.cpu().numpy(), shape, None)
    if not mask.any(1).all():
        raise ArgumentError(
            "`attention_mask` must mark at least one token in each row, got a row without. Drop the row."
        )
    return mask


def is_one_run(mask: np.ndarray) -> np.ndarray:
    """Bool["R"]: which rows of Bool["R S"] have no padding between tokens."""
    edges = np.diff(mask.astype(np.int8), axis=1, prepend=0)
    return (edges == 1).sum(1) <= 1


def last_hidden_state(encoder_outputs: Any) -> torch.Tensor:
    """The vectors [R, S, D] of an output of an encoder, ours or another's, or of a tuple that begins with them."""
    if isinstance(encoder_outputs, Mapping):
        found = encoder_outputs.get("last_hidden_state")
    elif isinstance(encoder_outputs, (tuple, list)):
        found = encoder_outputs[0] if encoder_outputs else None
    else:
        found = getattr(encoder_outputs, "last_hidden_state", None)
    if not isinstance(found, torch.Tensor) or found.ndim != 3:
        raise ArgumentError(
            "`encoder_outputs` must hold `last_hidden_state`, a tensor [rows, columns, width], "
            f"got {type(encoder_outputs).__name__}. Pass what the encoder returned."
        )
    return found


def make_memories(
    family: EncoderDecoder, weights: Weights, hidden: torch.Tensor, attention_mask: torch.Tensor | None
) -> Memories:
    """What every decoder layer reads of the encoder's vectors [M, S, D], computed once."""
    rows, columns, width = hidden.shape
    mask = encoder_mask(attention_mask, (rows, columns))
    flat = hidden.to(weights.outside.embed).reshape(rows * columns, width)
    batch = ragged_batch(np.zeros((1, 1), np.int32), np.ones((1, 1), bool), None)
    ops = TorchOps(build_layout(batch, (None,), False, flat.device))
    pairs = [family.memory(ops, flat, layer, spec) for layer, spec in zip(weights.layers, family.layers, strict=True)]
    shape = (rows, columns, -1, family.layers[0].attention.head_dim)
    keys, values = (tuple(each.view(shape) for each in side) for side in zip(*pairs, strict=True))
    seen = None if mask.all() else torch.from_numpy(mask).to(flat.device)
    return Memories(keys, values, seen)
