"""The decoder's pass in PyTorch for people: a padded rectangle in, scores out, beside what an encoder left."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from fabula.cache.blocks import blocks_for
from fabula.models.encoders.seq2seq import check_columns, check_row_count, shown_of
from fabula.models.passes.output import Seq2SeqLMOutput
from fabula.models.passes.past import Past, Seq2SeqPast
from fabula.models.passes.rectangle import IGNORED
from fabula.models.passes.torch_rectangle import (
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
    check_row_count(given.shape[0], len(memories))
    past: Past | None = given.past
    if past is None and remember:
        past = Seq2SeqPast(model.new_cache(given.shape[0] * blocks_for(given.shape[1] + 1)), memories)
    mask = None if given.attention_mask is None else given.attention_mask.cpu().numpy()
    check_columns(mask, given.shape, past)
    scored = score_rectangle(model, given, past, memories)
    encoded = (None, None, None) if encoder_outputs is None else shown_of(encoder_outputs)
    return Seq2SeqLMOutput(
        None if given.labels is None else label_loss(scored.logits, given.labels),
        scored.logits,
        past if remember else None,
        states_rectangle(scored, given.shape) if given.hidden_states else None,
        attentions_rectangle(scored, past) if given.attentions else None,
        memory_attentions_rectangle(scored) if given.attentions else None,
        *encoded,
    )


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
        out.append(whole.to(scored.hidden.device))
    return tuple(out)
