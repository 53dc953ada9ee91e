"""The two sides of a call to a model with an encoder: the texts that it reads, and what its decoder starts from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fabula import arrays
from fabula.errors import ArgumentError
from fabula.generation.prompts.rows import Prompts, host_array, read_prompts

__all__ = [
    "Encoded",
    "EncoderInputs",
    "decoder_prompts",
    "encode",
    "last_hidden_state",
    "read_encoder_inputs",
    "start_tokens",
]


@dataclass(frozen=True, slots=True)
class EncoderInputs:
    """R texts of S columns, or what an encoder made of them."""

    mask: np.ndarray  # Bool["R S"]: which columns are tokens
    prompts: Prompts | None = None  # the texts; None where only their encoding is known
    ids: np.ndarray | None = None  # Int["R S"]: the same with padding
    outputs: Any = None  # what the encoder made of them, where the caller knows
    like: Any = None  # an array of the framework and at the place of what was given; None: lists were

    @property
    def rows(self) -> int:
        """R."""
        return len(self.mask)


@dataclass(frozen=True, slots=True)
class Encoded:
    """What the encoder left of a call's texts."""

    memories: list[Any]  # one a row, for its requests
    outputs: Any  # with last_hidden_state, and hidden_states and attentions if they were asked for


def read_encoder_inputs(
    inputs: Any,
    attention_mask: Any,
    encoder_outputs: Any,
    *,
    pad: int | None,
    eos: frozenset[int],
    bos: int | None,
    like: Any = None,
) -> EncoderInputs:
    """What a call gives the encoder, padded on either side or as lists. Raises ArgumentError for what cannot be read.

    `encoder_outputs` stand for the encoder's work where they are given; `inputs` are then only what processors see.
    """
    prompts = None
    if inputs is not None or encoder_outputs is None:
        prompts = read_prompts(inputs, attention_mask, pad=pad, eos=eos, bos=bos, like=like)
    if encoder_outputs is None:
        assert prompts is not None
        ids, mask = _rectangle(prompts)
        return EncoderInputs(mask, prompts, ids, like=prompts.given)
    hidden = last_hidden_state(encoder_outputs)
    shape = (int(hidden.shape[0]), int(hidden.shape[1]))
    mask = np.ones(shape, bool) if attention_mask is None else host_array(attention_mask, "attention_mask") != 0
    if mask.shape != shape:
        raise ArgumentError(
            f"`attention_mask` must have the shape {list(shape)} of `encoder_outputs`, got {list(mask.shape)}. "
            "Pass the mask that the encoder was given."
        )
    return EncoderInputs(mask, prompts, outputs=encoder_outputs, like=hidden)


def start_tokens(start: int | Sequence[int] | None, bos: int | None, rows: int) -> np.ndarray:
    """Int["R"]: the decoder's first token of each row: `decoder_start_token_id`, one or one a row, or `bos_token_id`.

    Raises ArgumentError where there is neither, and for a list of another length.
    """
    given = bos if start is None else start
    if given is None:
        raise ArgumentError(
            "`decoder_start_token_id` or `bos_token_id` has to be defined for encoder-decoder generation, got neither. "
            "Pass decoder_start_token_id=0, or what the model was trained with."
        )
    if not isinstance(given, Sequence):
        return np.full(rows, int(given), np.int64)
    if len(given) != rows:
        raise ArgumentError(
            f"`decoder_start_token_id` must be one id or one for each of {rows} rows, got {len(given)} ids."
        )
    return np.array([int(one) for one in given], np.int64)


def decoder_prompts(
    decoder_input_ids: Any, decoder_attention_mask: Any, starts: np.ndarray, like: Any = None
) -> Prompts:
    """What each row of the decoder starts from: its start token, and `decoder_input_ids` behind it.

    `starts`, Int["R"], is left out where any row begins with its own already. A mask drops padding; nothing is inferred
    from the ids, as a start token often is the padding too. Without ids the prompts are of the framework of `like`
    (None: lists). Raises ArgumentError for ids of another number of rows.
    """
    if decoder_input_ids is None:
        rows = [np.array([one], np.int32) for one in starts]
        if like is None:
            return Prompts(rows)
        given = arrays.of(like).asarray(starts[:, None], "int64", like=like)
        return Prompts(rows, given=given, mask=np.ones((len(starts), 1), bool))
    mask = decoder_attention_mask
    if mask is None and not isinstance(decoder_input_ids, (list, tuple)):
        mask = np.ones(host_array(decoder_input_ids, "decoder_input_ids").shape, np.int64)
    prompts = read_prompts(decoder_input_ids, mask, pad=None, eos=frozenset(), bos=None)
    if len(prompts.rows) != len(starts):
        raise ArgumentError(
            f"`decoder_input_ids` must have {len(starts)} rows, one for each text of the encoder, "
            f"got {len(prompts.rows)}."
        )
    first = [row[0] for row in (prompts.rows if prompts.given is None else prompts.as_host())]
    return prompts if (np.array(first) == starts).any() else _prepended(prompts, starts)


def encode(model: Any, inputs: EncoderInputs, *, hidden_states: bool = False, attentions: bool = False) -> Encoded:
    """Runs the encoder once, unless its outputs are known; what decoder layers read of them is computed once too."""
    outputs, memories = model.encode_call(
        inputs.ids, inputs.mask.astype(np.int64), inputs.outputs, hidden_states, attentions
    )
    return Encoded(memories, outputs)


def last_hidden_state(encoder_outputs: Any) -> Any:
    """The vectors [R, S, D] of an output of an encoder, ours or another's, or of a tuple that begins with them."""
    if isinstance(encoder_outputs, Mapping):
        found = encoder_outputs.get("last_hidden_state")
    elif isinstance(encoder_outputs, (tuple, list)):
        found = encoder_outputs[0] if encoder_outputs else None
    else:
        found = getattr(encoder_outputs, "last_hidden_state", None)
    if getattr(found, "ndim", 0) != 3:
        raise ArgumentError(
            "`encoder_outputs` must hold `last_hidden_state`, an array [rows, columns, width], "
            f"got {type(encoder_outputs).__name__}. Pass what model.get_encoder() returned."
        )
    return found


def _prepended(prompts: Prompts, starts: np.ndarray) -> Prompts:
    rows = [np.concatenate([[start], row]).astype(np.int32) for start, row in zip(starts, prompts.rows, strict=True)]
    if prompts.given is None:
        return Prompts(rows)
    whole = np.concatenate([starts[:, None], prompts.as_host()], 1)
    assert prompts.mask is not None
    mask = np.concatenate([np.ones((len(starts), 1), bool), prompts.mask], 1)
    return Prompts(rows, given=arrays.of(prompts.given).asarray(whole, "int64", like=prompts.given), mask=mask)


def _rectangle(prompts: Prompts) -> tuple[np.ndarray, np.ndarray]:
    """Ids and mask, each [R, S]: as they were given, or lists padded on the right."""
    if prompts.given is not None:
        assert prompts.mask is not None
        return prompts.as_host(), prompts.mask
    width = max(map(len, prompts.rows))
    ids, mask = np.zeros((len(prompts.rows), width), np.int64), np.zeros((len(prompts.rows), width), bool)
    for row, tokens in enumerate(prompts.rows):
        ids[row, : len(tokens)], mask[row, : len(tokens)] = tokens, True
    return ids, mask
