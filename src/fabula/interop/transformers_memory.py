"""What a transformers model's encoder made of prompts, as its decoder's calls take it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers.modeling_outputs import BaseModelOutput


@dataclass(frozen=True, eq=False, slots=True)
class Memory:
    """What an encoder made of one prompt."""

    states: torch.Tensor  # Float["S D"]: its last layer's output
    kind: type[Any] = BaseModelOutput  # of the output that it came in


def encode(model: Any, ids: torch.Tensor) -> Memory:
    """The memory of one prompt, Int["S"]."""
    output = model.get_encoder()(input_ids=ids[None], return_dict=True)
    return Memory(output.last_hidden_state[0], type(output))


def encoder_inputs(memories: Sequence[Memory], width: int | None) -> dict[str, Any]:
    """The arguments that hand memories to a decoder, padded on the right; `width` is that of the call before."""
    lengths = [len(memory.states) for memory in memories]
    width = max(lengths) if width is None else width
    states = memories[0].states.new_zeros((len(memories), width, memories[0].states.shape[1]))
    mask = torch.zeros((len(memories), width), dtype=torch.int64, device=states.device)
    for row, (memory, length) in enumerate(zip(memories, lengths, strict=True)):
        states[row, :length] = memory.states
        mask[row, :length] = 1
    given: dict[str, Any] = {"encoder_outputs": memories[0].kind(last_hidden_state=states)}
    return given if bool(mask.all()) else {**given, "attention_mask": mask}


def memory_width(past: Any) -> int | None:
    """How many of an encoder's positions the decoder's cache has keys and values of; None: not any yet."""
    crossed = getattr(past, "cross_attention_cache", None)
    layers = [layer for layer in getattr(crossed, "layers", ()) if layer.is_initialized]
    return layers[0].keys.shape[2] if layers else None
