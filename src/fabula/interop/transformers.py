"""A model of the transformers library behind Fabula's generate(): the same engine, strategies and processors."""

from __future__ import annotations

from typing import Any

import torch
from transformers import PreTrainedModel

from fabula.adapters.torch_calls import ModuleCall
from fabula.errors import ArgumentError
from fabula.generation.config import GenerationConfig
from fabula.generation.mixin import GenerationMixin
from fabula.interop.seq2seq import generate_seq2seq
from fabula.interop.transformers_call import TransformersCall
from fabula.interop.transformers_memory import Memory, encode


class WrappedModel(GenerationMixin, torch.nn.Module):
    """Computes with a PreTrainedModel, which it holds as `model`; calling it is calling that."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model
        self.generation_config = GenerationConfig.from_dict(model.generation_config.to_diff_dict())

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

    def module_call(self) -> ModuleCall:
        """How the model is called."""
        return TransformersCall(self.model)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the model returns."""
        return self.model(*args, **kwargs)


class WrappedSeq2SeqModel(WrappedModel):
    """The same of a model with an encoder, which runs once for each prompt; what is generated is the decoder's."""

    @torch.no_grad()
    def encode(self, input_ids: Any, attention_mask: Any = None) -> list[Memory]:
        """What the encoder makes of each row of ids [R, S], of those that the mask lets through."""
        ids = torch.as_tensor(input_ids, device=self.model.device)
        mask = torch.ones_like(ids) if attention_mask is None else torch.as_tensor(attention_mask, device=ids.device)
        return [encode(self.model, row[kept.bool()]) for row, kept in zip(ids, mask, strict=True)]

    def generate(  # type: ignore[override]
        self, inputs: Any = None, generation_config: Any = None, *, streamer: Any = None, **call: Any
    ) -> Any:
        """The decoder's tokens after each prompt, its start token first; see `GenerationMixin.generate`.

        The prompts are the encoder's; the decoder starts from `decoder_input_ids`, or from its start token.
        """
        return generate_seq2seq(self, inputs, generation_config, streamer, call)


def wrap(model: Any) -> WrappedModel:
    """See `fabula.interop.wrap`."""
    if not isinstance(model, PreTrainedModel):
        raise ArgumentError(
            f"`model` must be a PreTrainedModel of transformers, got {type(model).__name__}. "
            "Let a class of your own inherit fabula.GenerationMixin."
        )
    return WrappedSeq2SeqModel(model) if model.config.is_encoder_decoder else WrappedModel(model)
