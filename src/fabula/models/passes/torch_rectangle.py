"""The forward pass for people: a padded rectangle in, a padded rectangle out, ragged rows inside."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from fabula.cache.blocks import blocks_for
from fabula.cache.kept import UNKNOWN
from fabula.errors import ArgumentError, ContextLengthError
from fabula.models.passes.output import CausalLMOutput
from fabula.models.passes.past import Past, check_past
from fabula.models.passes.rectangle import IGNORED, check_labels, check_one_kind, column_mask, ragged_batch
from fabula.models.passes.torch import Computed, Inputs, compute, head
from fabula.ops.protocol import Taps


@dataclass(frozen=True, slots=True)
class Rectangle:
    """What a call of the model is given: R rows of S columns."""

    input_ids: torch.Tensor | None  # Int["R S"]
    inputs_embeds: torch.Tensor | None  # Float["R S D"], in place of ids
    attention_mask: torch.Tensor | None  # ["R S"], or with the columns of the past before: 0 is padding
    position_ids: torch.Tensor | None  # Int["R S"]; None: tokens are counted
    past: Past | None
    labels: torch.Tensor | None  # Int["R S"]
    keep: int | torch.Tensor  # how many of the last columns are scored, or which; 0: all
    hidden_states: bool
    attentions: bool
    prefix: str = ""  # what goes before these names where a caller reads them

    @property
    def shape(self) -> tuple[int, int]:
        """R and S."""
        given = self.inputs_embeds if self.input_ids is None else self.input_ids
        assert given is not None
        return given.shape[0], given.shape[1]


@dataclass(frozen=True, slots=True)
class Scored:
    """What a pass over a rectangle leaves."""

    computed: Computed
    mask: np.ndarray  # Bool["R S"]: which columns were computed
    index: torch.Tensor | None  # Int["T"]: where they lie among R * S; None: all
    hidden: torch.Tensor  # Float["R S D"]: after the last norm
    logits: torch.Tensor  # Float["R columns V"]


def forward_rectangle(model: Any, given: Rectangle, remember: bool) -> CausalLMOutput:
    """The model's output; `remember`: keep keys and values for a call that continues these rows."""
    check_inputs(model, given)
    past = given.past
    if past is None and remember:
        past = Past(model.new_cache(given.shape[0] * blocks_for(given.shape[1] + 1)), given.shape[0])
    scored = score_rectangle(model, given, past)
    labels = given.labels
    return CausalLMOutput(
        None if labels is None else shifted_loss(scored.logits, labels.to(scored.logits.device)),
        scored.logits,
        past if remember else None,
        states_rectangle(scored, given.shape) if given.hidden_states else None,
        attentions_rectangle(scored, past) if given.attentions else None,
    )


def score_rectangle(model: Any, given: Rectangle, past: Past | None, memories: Sequence[Any] = ()) -> Scored:
    """The pass, checked; with a past it makes room there. What continues a past has no gradients."""
    shape = given.shape
    continued = past is not None and past.get_seq_length() > 0
    mask = column_mask(None if given.attention_mask is None else given.attention_mask.cpu().numpy(), shape, past)
    check_lengths(model, mask, past)
    batch = replace(ragged_batch(tokens_of(given), mask, past), memories=memories)
    index = columns_index(mask, model.device)
    everything = tuple(range(len(model.layers)))
    taps = Taps(everything if given.hidden_states else (), everything if given.attentions else ())
    with torch.set_grad_enabled(torch.is_grad_enabled() and not continued):
        inputs = flat_inputs(given, index, model.device)
        computed = compute(model.family, model.weights(), batch, None if past is None else past.cache, taps, inputs)
        hidden = spread(computed.hidden.to(model.device), index, shape)
        return Scored(computed, mask, index, hidden, score(model, computed, hidden, given.keep))


def tokens_of(given: Rectangle) -> np.ndarray:
    """Int["R S"]: the ids, unknown where they do not say all that is computed from."""
    if given.input_ids is None or given.position_ids is not None:
        return np.full(given.shape, UNKNOWN, np.int32)
    return given.input_ids.cpu().numpy().astype(np.int32)


def columns_index(mask: np.ndarray, device: torch.device) -> torch.Tensor | None:
    """Int["T"]: where the columns that are tokens lie among all; None: all are."""
    return None if mask.all() else torch.from_numpy(np.flatnonzero(mask)).to(device)


def flat_inputs(given: Rectangle, index: torch.Tensor | None, device: torch.device) -> Inputs:
    """The columns that are tokens, end to end."""

    def flat(x: torch.Tensor | None) -> torch.Tensor | None:
        if x is None:
            return None
        x = x.to(device).expand(*given.shape, *x.shape[2:]).flatten(0, 1)
        return x if index is None else x.index_select(0, index)

    return Inputs(flat(given.input_ids), flat(given.inputs_embeds), flat(given.position_ids))


def states_rectangle(scored: Scored, shape: tuple[int, int]) -> tuple[torch.Tensor, ...]:
    """The embeddings, every layer's output but the last's, and the last's after the norm: each [R, S, D]."""
    states = (scored.computed.states[layer] for layer in sorted(scored.computed.states))
    home = scored.hidden.device
    return (*(spread(each.to(home), scored.index, shape) for each in states), scored.hidden)


def attentions_rectangle(scored: Scored, past: Past | None) -> tuple[torch.Tensor, ...]:
    """Each layer's weights, [R, heads, S, columns]."""
    found = scored.computed.attentions
    home = scored.hidden.device
    return tuple(weights_rectangle(found[layer], scored.mask, past).to(home) for layer in sorted(found))


def spread(x: torch.Tensor, index: torch.Tensor | None, shape: tuple[int, int]) -> torch.Tensor:
    """[T, features] -> [R, S, features], zero where there is padding."""
    if index is not None:
        x = x.new_zeros(shape[0] * shape[1], x.shape[-1]).index_copy(0, index, x)
    return x.view(*shape, -1)


def score(model: Any, computed: Computed, hidden: torch.Tensor, keep: int | torch.Tensor) -> torch.Tensor:
    """The logits of the columns that are kept: [R, columns, V]."""
    chosen = (
        hidden[:, -keep:] if isinstance(keep, int) and keep else hidden if isinstance(keep, int) else hidden[:, keep]
    )
    flat = head(model.family, computed.ops, chosen.flatten(0, 1), model.weights())
    return flat.to(model.device).view(*chosen.shape[:2], -1)


def shifted_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The mean cross-entropy of each label under the logits one column before; labels of -100 do not count."""
    following = F.pad(labels, (0, 1), value=IGNORED)[:, 1:]
    return F.cross_entropy(logits.float().flatten(0, 1), following.flatten(), ignore_index=IGNORED)


def weights_rectangle(rows: tuple[torch.Tensor, ...], mask: np.ndarray, past: Past | None) -> torch.Tensor:
    """Attention weights of ragged rows, each [heads, new, keys], as [R, heads, S, columns]."""
    seen = mask if past is None else past.mask
    present = np.flatnonzero(mask.any(1))
    out = rows[0].new_zeros(len(mask), rows[0].shape[0], mask.shape[1], seen.shape[1])
    for row, weights in zip(present, rows, strict=True):
        queries, keys = (torch.from_numpy(np.flatnonzero(x[row])).to(out.device) for x in (mask, seen))
        out[row, :, queries[:, None], keys] = weights.transpose(0, 1).transpose(1, 2).permute(2, 0, 1)
    return out


def check_inputs(model: Any, given: Rectangle) -> None:
    """Raises ArgumentError for ids, vectors or a past that do not fit the model or each other."""
    check_ids_or_vectors(model, given)
    check_labels(given.labels, given.shape)
    check_past(given.past, given.shape[0], model.new_cache(0))


def check_ids_or_vectors(model: Any, given: Rectangle) -> None:
    """Raises ArgumentError unless there are either ids or vectors, and they are such."""
    ids, vectors = f"`{given.prefix}input_ids`", f"`{given.prefix}inputs_embeds`"
    check_one_kind(given.input_ids, given.inputs_embeds, given.prefix)
    if given.input_ids is not None:
        check_ids(given.input_ids, model.vocab_size, ids)
    elif given.inputs_embeds is not None and (given.inputs_embeds.ndim != 3):
        raise ArgumentError(f"{vectors} must have 3 dimensions, got {given.inputs_embeds.ndim}. Add the rows' one.")


def check_ids(ids: torch.Tensor, vocabulary: int, name: str = "`input_ids`") -> None:
    """Raises ArgumentError for ids of a wrong type or shape, or outside the vocabulary."""
    if ids.ndim != 2 or ids.shape[0] * ids.shape[1] == 0 or ids.is_floating_point() or ids.dtype == torch.bool:
        raise ArgumentError(
            f"{name} must be integers of shape (rows, columns), got {ids.dtype} of shape {tuple(ids.shape)}. "
            "Pass what the tokenizer returns."
        )
    low, high = torch.stack(torch.aminmax(ids)).tolist()
    if low < 0 or high >= vocabulary:
        raise ArgumentError(
            f"{name} must lie in [0, {vocabulary}), got {low if low < 0 else high}. "
            "Use the tokenizer that belongs to the model."
        )


def check_lengths(model: Any, mask: np.ndarray, past: Past | None) -> None:
    """Raises ContextLengthError where the model has a table of positions and a row outgrows it."""
    longest = int((mask.sum(1) + (0 if past is None else past.lengths)).max())
    limit = model.config.get("max_position_embeddings")
    if not model.family.rotary and limit is not None and longest > limit:
        raise ContextLengthError(f"a row must have at most {limit} positions, got {longest}. Shorten the input.")
