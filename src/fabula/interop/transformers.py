"""A model of the transformers library behind Fabula's generate(): the same engine, strategies and processors."""

from __future__ import annotations

import sys
from functools import cached_property
from typing import Any

import torch
from transformers import PreTrainedModel

from fabula.adapters.torch_calls import ModuleCall
from fabula.adapters.torch_stamp import module_stamp
from fabula.cache.kinds import DYNAMIC, CacheKind
from fabula.cache.stamp import Stamp
from fabula.cache.torch import TorchCache
from fabula.cache.torch_kinds import kind_on
from fabula.engine.engine import Engine
from fabula.errors import ArgumentError
from fabula.generation.mixin import GenerationMixin
from fabula.generation.settings.config import GenerationConfig
from fabula.interop.transformers_blocks import OverBlocks, over_blocks_of
from fabula.interop.transformers_call import TransformersCall
from fabula.interop.transformers_memory import Memory, encode
from fabula.ops.protocol import NO_TAPS, Batch, Forward, Taps


class WrappedModel(GenerationMixin, torch.nn.Module):
    """Computes with a PreTrainedModel, which it holds as `model`; calling it is calling that."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model
        self._place = model.device, model.dtype  # where the engine's storage is
        settings = model.generation_config.to_diff_dict()
        settings.pop("use_cache", None)  # it changes no token, and whether anything is kept is found out
        self.generation_config = GenerationConfig.from_dict(settings)

    @property
    def config(self) -> Any:
        """The model's own configuration, of its text part where it has several."""
        return self.model.config.get_text_config(decoder=True)

    @property
    def vocabulary_size(self) -> int:
        """How many ids the head scores."""
        head = self.model.get_output_embeddings()
        weight = getattr(head, "weight", None)
        return super().vocabulary_size if weight is None else int(weight.shape[0])

    @property
    def context_length(self) -> int:
        """How many positions the model was made for; without end where its configuration says so or nothing."""
        told = getattr(self.config, "max_position_embeddings", None)
        return told if isinstance(told, int) and told > 0 else sys.maxsize

    @property
    def layers(self) -> range:
        """Its layers, by number."""
        return range(int(getattr(self.config, "num_hidden_layers", 0)))

    def module_call(self) -> ModuleCall:
        """How the model is called with rows as rectangles."""
        return TransformersCall(self.model)

    @cached_property
    def over_blocks(self) -> OverBlocks | None:
        """The model over blocks, if it can be had; found out when it is first asked for."""
        call = TransformersCall(self.model)
        return over_blocks_of(self.model, call, call.takes, self.vocabulary_size)

    def weights_stamp(self) -> Stamp:
        """What is another after the model was trained, or a part, a hook or a setting of it changed."""
        return module_stamp(self.model)

    def engine_for(self, kind: CacheKind) -> Engine:
        """The engine whose keys and values are stored in this way; another one after the model was moved."""
        place = self.model.device, self.model.dtype
        if place != self._place:
            self._engine, self._place = None, place
            self.__dict__.pop("over_blocks", None)
        return super().engine_for(kind)

    def storage_kind(self, kind: CacheKind) -> CacheKind:
        """The kind that serves where this one is asked for. Raises NotSupportedError where the model has its own."""
        return super().storage_kind(kind) if self.over_blocks is None else kind_on([self.model.device], kind)

    def new_storage(self, kind: CacheKind, blocks: int) -> Any:
        """Storage of keys and values for so many blocks, or of tokens where the model keeps keys and values itself."""
        return super().new_cache(blocks) if self.over_blocks is None else self.over_blocks.new_storage(kind, blocks)

    def new_cache(self, blocks: int) -> Any:
        """That of the usual kind."""
        return self.new_storage(DYNAMIC, blocks)

    def step(self, batch: Batch, cache: Any, taps: Taps = NO_TAPS) -> Forward:
        """One step of the engine."""
        if isinstance(cache, TorchCache):
            assert self.over_blocks is not None
            return self.over_blocks.step(batch, cache, taps)
        return super().step(batch, cache, taps)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the model returns."""
        return self.model(*args, **kwargs)


class WrappedSeq2SeqModel(WrappedModel):
    """The same of a model with an encoder, which runs once for each prompt; what is generated is the decoder's."""

    is_encoder_decoder = True

    def get_encoder(self) -> Any:
        """What makes `encoder_outputs` of ids."""
        return self.model.get_encoder()

    @torch.no_grad()
    def encode_call(
        self, ids: Any, mask: Any, outputs: Any = None, hidden_states: bool = False, attentions: bool = False
    ) -> tuple[Any, list[Memory]]:
        """The encoder's outputs [R, S], with what else is asked of them, and one memory a row for the engine.

        Each row is encoded alone, so that its memory does not depend on the padding beside it.
        """
        device = self.model.device
        kept = torch.as_tensor(mask, device=device).bool()
        if outputs is not None:
            states = outputs[0] if isinstance(outputs, (tuple, list)) else outputs["last_hidden_state"]
            return outputs, [Memory(row[seen]) for row, seen in zip(states.to(device), kept, strict=True)]
        rows = torch.as_tensor(ids, device=device)
        memories = [encode(self.model, row[seen]) for row, seen in zip(rows, kept, strict=True)]
        if hidden_states or attentions:
            shown = {"output_hidden_states": hidden_states, "output_attentions": attentions, "return_dict": True}
            outputs = self.get_encoder()(input_ids=rows, attention_mask=kept.long(), **shown)
        return outputs, memories


def wrap(model: Any) -> WrappedModel:
    """See `fabula.interop.wrap`."""
    if not isinstance(model, PreTrainedModel):
        raise ArgumentError(
            f"`model` must be a PreTrainedModel of transformers, got {type(model).__name__}. "
            "Let a class of your own inherit fabula.GenerationMixin."
        )
    return WrappedSeq2SeqModel(model) if model.config.is_encoder_decoder else WrappedModel(model)
