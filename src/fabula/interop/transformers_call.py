"""One call of a transformers model, through the hook by which each model says what its forward takes."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.cache_utils import DynamicCache, EncoderDecoderCache

from fabula.adapters.calls import head_of
from fabula.adapters.torch_calls import Cache, Columns, Computed, Padding, Way
from fabula.interop.transformers_memory import encoder_inputs, memory_width

_PASTS = {  # what models call what they keep: in their output -> in their inputs
    "past_key_values": "past_key_values",
    "cache_params": "cache_params",
    "state": "state",
    "mems": "past_key_values",
    "past_buckets_states": "past_key_values",
}
_FULL_LENGTH = {"full_attention", "sliding_attention"}


class TransformersCall:
    """A model whose `prepare_inputs_for_generation` turns ids, mask and past into the arguments of its forward."""

    shows_states = True

    def __init__(self, model: PreTrainedModel) -> None:
        self.module: Any = model
        self.config = model.config.get_text_config(decoder=True)
        self.takes = frozenset(inspect.signature(model.forward).parameters)
        pad = model.generation_config.pad_token_id
        pad = getattr(self.config, "pad_token_id", None) if pad is None else pad
        self.padding_id = pad if isinstance(pad, int) and pad >= 0 else 0
        self.past_name = "cache_params" if "mamba" in type(model).__name__.lower() else "past_key_values"
        self.last_only = _adds_a_token(model)

    @property
    def device(self) -> torch.device:
        """Where the model's first parameters are."""
        return self.module.device

    @property
    def head(self) -> Callable[[torch.Tensor], torch.Tensor] | None:
        """The model's output embeddings."""
        return head_of(self.module)

    @property
    def ways(self) -> tuple[Way, ...]:
        """With a cache whose columns can be moved, with the model's own, and without any."""
        caches: list[Cache] = ["columns", "own"] if self._has_columns else ["own"]
        sides: list[Padding] = ["left", "none"]
        return (*(Way(cache, side) for cache in caches for side in sides), Way("none", "left"), Way("none", "none"))

    @property
    def truth(self) -> Way:
        """What the model's own generate() does with one prompt."""
        return Way("own", "none")

    @property
    def _has_columns(self) -> bool:
        """Whether every layer attends, so that a cache of full length serves it."""
        kinds = getattr(self.config, "layer_types", None) or ()
        return set(kinds) <= _FULL_LENGTH and type(self.module)._supports_default_dynamic_cache()

    def __call__(self, columns: Columns, past: Any, way: Way) -> Computed:
        """See ModuleCall."""
        arguments = self._arguments(columns, past, way)
        output = self.module(**arguments, return_dict=True)
        kept = None
        for name in (name for name in _PASTS if way.cache != "none" and getattr(output, name, None) is not None):
            self.past_name, kept = _PASTS[name], getattr(output, name)
        hidden = getattr(output, "decoder_hidden_states", None) or getattr(output, "hidden_states", None)
        return Computed(output.logits, kept, hidden)

    def _arguments(self, columns: Columns, past: Any, way: Way) -> dict[str, Any]:
        """What the model's own hook makes of the rectangle."""
        given: dict[str, Any] = {"use_cache": way.cache != "none"}
        side = "decoder_" if columns.memory else ""
        if f"{side}attention_mask" in self.takes:
            given[f"{side}attention_mask"] = columns.mask.long() if columns.padded else None
        if f"{side}position_ids" in self.takes and (columns.padded or not side):
            given[f"{side}position_ids"] = (columns.mask.long().cumsum(1) - 1).clamp(min=0)
        if columns.memory:
            given.update(encoder_inputs(columns.memory, memory_width(past)))
        if "logits_to_keep" in self.takes:
            given["logits_to_keep"] = columns.scored
        if columns.hidden:
            given["output_hidden_states"] = True
        kept = self._empty(way) if past is None else past
        if kept is not None:
            given[self.past_name] = kept
        following = columns.new if past is not None and way.cache != "none" else None
        return self.module.prepare_inputs_for_generation(
            columns.ids, next_sequence_length=following, is_first_iteration=past is None, **given
        )

    def _empty(self, way: Way) -> Any:
        """An empty cache; None where the model makes its own, or is to keep nothing."""
        if way.cache == "none" or not type(self.module)._supports_default_dynamic_cache():
            return None
        settings: dict[str, Any] = {} if way.cache == "columns" else {"config": self.config}
        if not self.module.config.is_encoder_decoder:
            return DynamicCache(**settings)
        return EncoderDecoderCache(DynamicCache(**settings), DynamicCache(**settings))


def _adds_a_token(model: Any) -> bool:
    """Whether the model appends a token of its own, in whose place it predicts: then no other place says anything."""
    if model.config.is_encoder_decoder:
        return False
    ids = torch.zeros((1, 3), dtype=torch.int64, device=model.device)
    prepared = model.prepare_inputs_for_generation(ids, is_first_iteration=True, use_cache=False)
    return prepared["input_ids"].shape[1] != ids.shape[1]
