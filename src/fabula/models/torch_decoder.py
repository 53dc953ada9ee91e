"""The decoder's pass in PyTorch for people: a padded rectangle in, scores out, beside what an encoder left."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from fabula.cache.blocks import blocks_for
from fabula.errors import ArgumentError, NotSupportedError
from fabula.models.output import Seq2SeqLMOutput
from fabula.models.past import Past, Seq2SeqPast
from fabula.models.rectangle import column_mask
from fabula.models.torch_encoder import is_one_run, last_hidden_state
from fabula.models.torch_rectangle import (
    IGNORED,
    Rectangle,
    Scored,
    attentions_rectangle,
    score_rectangle,
    states_rectangle,
)
from fabula.ops.torch_memory import Memory


def decode_rectangle(
    model: Any, given: Rectangle, memories: Sequence[Memory], encoder_outputs: Any, remember: bool
) -> Seq2SeqLMOutput:
    """The model's output; `remember`: keep keys and values for a call that continues these rows."""
    if len(memories) != given.shape[0]:
        raise ArgumentError(
            f"`decoder_input_ids` must have {len(memories)} rows, one for each that was encoded, got {given.shape[0]}. "
            "Repeat the rows of `encoder_outputs`, or drop some."
        )
    past: Past | None = given.past
    if past is None and remember:
        past = Seq2SeqPast(model.new_cache(given.shape[0] * blocks_for(given.shape[1] + 1)), memories)
    check_columns(given, past)
    scored = score_rectangle(model, given, past, memories)
    encoded = (None, None, None) if encoder_outputs is None else shown(encoder_outputs)
    return Seq2SeqLMOutput(
        None if given.labels is None else label_loss(scored.logits, given.labels),
        scored.logits,
        past if remember else None,
        states_rectangle(scored, given.shape) if given.hidden_states else None,
        attentions_rectangle(scored, past) if given.attentions else None,
        memory_attentions_rectangle(scored) if given.attentions else None,
        *encoded,
    )


def check_columns(given: Rectangle, past: Past | None) -> None:
    """Raises for a mask that does not fit, or that has padding between a row's tokens, old or new."""
    mask = column_mask(None if given.attention_mask is None else given.attention_mask.cpu().numpy(), given.shape, past)
    whole = mask if past is None else np.concatenate([past.mask, mask], 1)
    if not is_one_run(whole).all():
        raise NotSupportedError(
            "`decoder_attention_mask` must have its zeros before or behind a row's tokens, got some between them. "
            "Leave those tokens out."
        )


def shown(encoder_outputs: Any) -> tuple[Any, Any, Any]:
    """The encoder's vectors, hidden states and attentions; None for those that it does not show."""
    if isinstance(encoder_outputs, (tuple, list)):
        hidden, states, attentions = (*encoder_outputs[:3], None, None)[:3]
    else:
        hidden = last_hidden_state(encoder_outputs)
        states, attentions = (getattr(encoder_outputs, name, None) for name in ("hidden_states", "attentions"))
    return hidden, states, attentions


def label_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The mean cross-entropy of each label under the logits of its column; labels of -100 do not count."""
    return F.cross_entropy(logits.float().flatten(0, 1), labels.flatten().to(logits.device), ignore_index=IGNORED)


def memory_attentions_rectangle(scored: Scored) -> tuple[torch.Tensor, ...]:
    """Each layer's weights over the encoder's columns, [R, heads, T, S]; zero where the decoder's mask is."""
    found = scored.computed.ops.memory_attentions
    present = np.flatnonzero(scored.mask.any(1))
    out = []
    for layer in sorted(found):
        first, columns = found[layer][0], max(weights.shape[2] for weights in found[layer])
        whole = first.new_zeros(len(scored.mask), first.shape[0], scored.mask.shape[1], columns)
        for row, weights in zip(present, found[layer], strict=True):
            queries = torch.from_numpy(np.flatnonzero(scored.mask[row])).to(first.device)
            whole[row][:, queries, : weights.shape[2]] = weights
        out.append(whole)
    return tuple(out)
