"""What a call gives the model to read, by whichever names it came."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fabula.errors import ArgumentError, NotSupportedError
from fabula.generation.prompts.encoder import last_hidden_state


@dataclass(frozen=True, slots=True)
class ModelInputs:
    """As they were passed; None: not given."""

    ids: Any = None  # `inputs` or `input_ids`
    mask: Any = None
    positions: Any = None
    vectors: Any = None  # `inputs_embeds` Float["R L D"]
    encoder_outputs: Any = None
    decoder_ids: Any = None
    decoder_mask: Any = None

    @classmethod
    def taken_from(cls, inputs: Any, call: dict[str, Any], encodes: bool) -> ModelInputs:
        """Takes them out of the call; a tokenizer's whole answer may be `inputs`. `encodes`: the model has an encoder.

        Raises ArgumentError for what is given twice, NotSupportedError for segments that would be ignored.
        """
        if isinstance(inputs, Mapping):
            twice = [name for name in inputs if call.get(name) is not None]
            if twice:
                raise ArgumentError(f"`{twice[0]}` must be given once, got it in `inputs` and by name. Leave one out.")
            call.update(inputs)
            inputs = None
        named = call.pop("input_ids", None)
        if inputs is not None and named is not None:
            raise ArgumentError("give the prompts once, as `inputs` or as `input_ids`, not both.")
        _check_segments(call.pop("token_type_ids", None))
        names: tuple[str, ...] = ("attention_mask", "position_ids", "inputs_embeds")
        names += ("encoder_outputs", "decoder_input_ids", "decoder_attention_mask") if encodes else ()
        return cls(named if inputs is None else inputs, *(call.pop(name, None) for name in names))

    @property
    def named(self) -> dict[str, Any]:
        """All of them, as a call names them."""
        return {
            "input_ids": self.ids,
            "attention_mask": self.mask,
            "position_ids": self.positions,
            "inputs_embeds": self.vectors,
            "encoder_outputs": self.encoder_outputs,
            "decoder_input_ids": self.decoder_ids,
            "decoder_attention_mask": self.decoder_mask,
        }

    @property
    def prompts(self) -> int:
        """How many prompts there are."""
        hidden = None if self.encoder_outputs is None else last_hidden_state(self.encoder_outputs)
        found = next((x for x in (self.ids, self.vectors, hidden) if x is not None), None)
        if isinstance(found, (list, tuple)):
            return max(1, len(found))
        shape: Any = getattr(found, "shape", ())
        return max(1, shape[0] or 1) if len(shape) else 1  # in a trace it may be unknown, or its length


def _check_segments(token_type_ids: Any) -> None:
    """Tokenizers pass zeros along, which mean nothing; other segment ids would change the answer."""
    if token_type_ids is not None and np.asarray(token_type_ids).any():
        raise NotSupportedError("`token_type_ids` must be 0 everywhere, got other segments. Leave them out.")
