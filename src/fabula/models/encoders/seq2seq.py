"""What models with an encoder have in common in every framework: a part of their surface, and what a call may say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fabula import arrays
from fabula.errors import ArgumentError, NotSupportedError
from fabula.generation.mixin import GenerationMixin
from fabula.generation.prompts.encoder import last_hidden_state
from fabula.models.passes.output import EncoderOutput
from fabula.models.passes.past import Past
from fabula.models.passes.rectangle import IGNORED, column_mask

__all__ = [
    "Seq2SeqLM",
    "check_columns",
    "check_row_count",
    "encoder_mask",
    "is_one_run",
    "refuse_float16",
    "shown_of",
]

ROOM = 1 << 15  # positions a row may have: distances have no end, but a cache has


class Seq2SeqLM(GenerationMixin):
    """The decoder is a causal language model whose rows each have a memory: the encoder's, of another text.

    A framework's class adds `run_encoder`, `memories`, and a call of the whole.
    """

    is_encoder_decoder = True
    layers: Any  # the decoder's
    run_encoder: Callable[..., Any]  # (ids, mask, vectors, hidden states, attentions) -> EncoderOutput
    memories: Callable[..., Any]  # (encoder outputs, mask) -> what decoder layers read; `each()` gives one a row

    @property
    def context_length(self) -> int:
        """How many positions the decoder may reach."""
        return ROOM

    @property
    def layer_count(self) -> int:
        """How many layers the decoder has."""
        return len(self.layers)

    def get_encoder(self) -> Callable[..., EncoderOutput]:
        """What makes `encoder_outputs` of input_ids."""
        return self.run_encoder

    def encode(self, input_ids: Any, attention_mask: Any = None) -> list[Any]:
        """One memory a row, for `Batch.memories`: every decoder layer's keys and values of the encoder's output."""
        return self.encode_call(input_ids, attention_mask)[1]

    def encode_call(
        self,
        input_ids: Any = None,
        attention_mask: Any = None,
        encoder_outputs: Any = None,
        output_hidden_states: bool = False,
        output_attentions: bool = False,
    ) -> tuple[Any, list[Any]]:
        """The encoder's outputs, computed unless they are given, and one memory a row."""
        if encoder_outputs is None:
            shown = (output_hidden_states, output_attentions)
            encoder_outputs = self.run_encoder(input_ids, attention_mask, None, *shown)
        return encoder_outputs, self.memories(encoder_outputs, attention_mask).each()

    def prepare_decoder_input_ids_from_labels(self, labels: Any) -> Any:
        """The labels one place to the right, behind the start token; where there is no label, the pad token."""
        start, pad = self.config.get("decoder_start_token_id"), self.config.get("pad_token_id")
        start = self.generation_config.decoder_start_token_id if start is None else start
        for name, value in (("decoder_start_token_id", start), ("pad_token_id", pad)):
            if value is None:
                raise ArgumentError(f"`config.{name}` must be set to make inputs of `labels`, got None. Set it.")
        xp = arrays.of(labels)
        moved = xp.concat([xp.zeros_like(labels[:, :1]) + start, labels[:, :-1]], 1)
        return xp.where(moved == IGNORED, xp.zeros_like(moved) + pad, moved)


def refuse_float16(dtype: Any, model_type: str) -> None:
    """Raises NotSupportedError for weights in float16, by its name or a framework's."""
    name = str(getattr(dtype, "name", None) or getattr(dtype, "__name__", dtype))
    if name.removeprefix("torch.") == "float16":
        raise NotSupportedError(
            f"`dtype` must be bfloat16 or float32 for {model_type}: its activations exceed float16."
        )


def encoder_mask(attention_mask: np.ndarray | None, shape: tuple[int, int]) -> np.ndarray:
    """Bool["R S"]: which columns are tokens. Raises ArgumentError for a row without any."""
    mask = column_mask(attention_mask, shape, None)
    if not mask.any(1).all():
        raise ArgumentError(
            "`attention_mask` must mark at least one token in each row, got a row without. Drop the row."
        )
    return mask


def is_one_run(mask: np.ndarray) -> np.ndarray:
    """Bool["R"]: which rows of Bool["R S"] have no padding between tokens."""
    edges = np.diff(mask.astype(np.int8), axis=1, prepend=0)
    return (edges == 1).sum(1) <= 1


def check_columns(attention_mask: np.ndarray | None, shape: tuple[int, int], past: Past | None) -> None:
    """Raises for a decoder's mask that does not fit, or that has padding between a row's tokens, old or new."""
    mask = column_mask(attention_mask, shape, past)
    whole = mask if past is None else np.concatenate([past.mask, mask], 1)
    if not is_one_run(whole).all():
        raise NotSupportedError(
            "`decoder_attention_mask` must have its zeros before or behind a row's tokens, got some between them. "
            "Leave those tokens out."
        )


def check_row_count(rows: int, encoded: int) -> None:
    """Raises ArgumentError unless the decoder has a row for each that was encoded."""
    if rows != encoded:
        raise ArgumentError(
            f"`decoder_input_ids` must have {encoded} rows, one for each that was encoded, got {rows}. "
            "Repeat the rows of `encoder_outputs`, or drop some."
        )


def shown_of(encoder_outputs: Any) -> tuple[Any, Any, Any]:
    """The encoder's vectors, hidden states and attentions; None for those that it does not show."""
    hidden = last_hidden_state(encoder_outputs)
    if isinstance(encoder_outputs, (tuple, list)):
        states, attentions = (*encoder_outputs[1:3], None, None)[:2]
    else:
        states, attentions = (getattr(encoder_outputs, name, None) for name in ("hidden_states", "attentions"))
    return hidden, states, attentions
