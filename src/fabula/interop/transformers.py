"""A model of the transformers library behind Fabula's generate(): the same engine, strategies and processors."""

from __future__ import annotations

from typing import Any

import torch
from transformers import PreTrainedModel

from fabula.adapters.torch_calls import ModuleCall
from fabula.errors import ArgumentError
from fabula.generation.config import GenerationConfig
from fabula.generation.mixin import GenerationMixin
from fabula.interop.transformers_call import TransformersCall


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

    def module_call(self) -> ModuleCall:
        """How the model is called."""
        return TransformersCall(self.model)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the model returns."""
        return self.model(*args, **kwargs)


def wrap(model: Any) -> WrappedModel:
    """See `fabula.interop.wrap`."""
    if not isinstance(model, PreTrainedModel):
        raise ArgumentError(
            f"`model` must be a PreTrainedModel of transformers, got {type(model).__name__}. "
            "Let a class of your own inherit fabula.GenerationMixin."
        )
    return WrappedModel(model)
