"""Weights' names as a causal language model's checkpoint has them, whatever it was saved from."""

from __future__ import annotations

import re
from collections.abc import Mapping

from fabula.errors import ModelFileError
from fabula.quant.formats import StoredTensor
from fabula.quant.lazy import LazyTensors

# Older and newer multimodal checkpoints keep the text model apart; a model saved without its head lacks the prefix.
_RENAMED = (
    (re.compile(r"language_model\.(model|lm_head)\."), r"\1."),
    (re.compile(r"model\.language_model\."), "model."),
    (re.compile(r"(embed_tokens|layers|norm)\."), r"model.\1."),
    (re.compile(r"(wte|wpe|h|ln_f)\."), r"transformer.\1."),
)
# What belongs to images and sounds, and causal masks that old GPT-2 checkpoints carry as if they were weights.
_LEFT_OUT = re.compile(
    r"(model\.)?(vision_tower|vision_model|visual|multi_modal_projector|audio_tower|embed_vision)\."
    r"|.*\.attn\.(masked_)?bias$|.*\.rotary_emb\.inv_freq$"
)


def standard_name(name: str) -> str:
    """The name in a causal language model's checkpoint."""
    for pattern, replacement in _RENAMED:
        renamed, count = pattern.subn(replacement, name, count=1) if pattern.match(name) else (name, 0)
        if count:
            return renamed
    return name


class StandardNames(LazyTensors):
    """The weights of a language model under their standard names."""

    def __init__(self, tensors: Mapping[str, StoredTensor]) -> None:
        self._tensors = tensors
        self._places: dict[str, str] = {}  # standard name -> the file's
        for name in tensors:
            if _LEFT_OUT.match(name):
                continue
            standard = standard_name(name)
            if standard in self._places:
                raise ModelFileError(
                    f"tensors {self._places[standard]!r} and {name!r} must not both stand for {standard!r}. "
                    "Save the model again."
                )
            self._places[standard] = name
        super().__init__(self._places)

    def __getitem__(self, name: str) -> StoredTensor:
        return self._tensors[self._places[name]]
