"""A causal language model on the native backend: our kernels on the CPU, no framework."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from os import PathLike
from typing import Any

import numpy as np

from fabula import arrays
from fabula.cache.blocks import blocks_for
from fabula.decoding.plain_rows import Sampler
from fabula.errors import NotSupportedError
from fabula.generation.config import GenerationConfig
from fabula.generation.mixin import GenerationMixin
from fabula.generation.prompts import check_room, read_ids
from fabula.models import saving
from fabula.models.family import Family
from fabula.models.native_weights import placed_tensors
from fabula.models.output import CausalLMOutput
from fabula.models.past import Past
from fabula.models.rectangle import column_mask, ragged_batch
from fabula.ops.native import NativeModel, native_library
from fabula.ops.protocol import NO_TAPS, Batch, Forward, Taps
from fabula.quant.formats import StoredTensor


class NativeCausalLM(GenerationMixin):
    """A loaded model. It generates, and gives logits when called; training and moving need backend="torch"."""

    device = "cpu"
    training = False

    def __init__(
        self,
        family: Family,
        tensors: Mapping[str, StoredTensor],
        *,
        threads: int | None = None,
        loaded: Callable[[int, int], None] | None = None,
    ) -> None:
        """`tensors` are computed on in the formats they have; `loaded` is told of the bytes packed, and of how many.

        Raises ModelFileError for a weight that is missing or misshapen.
        """
        self.family = family
        self.config = family.config
        self.generation_config = GenerationConfig.from_model_config(family.config.to_dict())
        self.name_or_path = ""
        self._tensors = tensors
        placed = placed_tensors(family, tensors)
        self._native = NativeModel(family, placed, threads=threads, library=native_library(), loaded=loaded)

    @property
    def dtype(self) -> str:
        """The type that activations have."""
        return "float32"

    @property
    def sampler(self) -> Sampler | None:
        """Chooses tokens in one call of the kernels; None where the NumPy twin computes."""
        return self._native.sampler

    def new_cache(self, blocks: int) -> Any:
        """Storage for so many blocks of keys and values."""
        return self._native.new_cache(blocks)

    def step(self, batch: Batch, cache: Any, taps: Taps = NO_TAPS) -> Forward:
        """One step of the engine: writes the batch's keys and values, gives the logits of the scored positions."""
        return self._native.step(batch, cache, taps)

    def __call__(
        self, input_ids: Any, attention_mask: Any = None, past_key_values: Any = None, use_cache: bool | None = None
    ) -> CausalLMOutput:
        """The logits [R, L, V] of every position, in the framework of `input_ids`; zero where `attention_mask` is.

        `past_key_values` is what an earlier call returned: then `input_ids` are the columns that follow.
        Raises ArgumentError for shapes, ids or masks that make no sense.
        """
        ids = read_ids(input_ids, self.vocabulary_size)
        past = past_key_values or Past(self.new_cache(len(ids) * blocks_for(ids.shape[1] + 1)), len(ids))
        mask = column_mask(None if attention_mask is None else np.asarray(attention_mask), ids.shape, past)
        check_room(past.get_seq_length() + ids.shape[1], self.context_length)
        forward = self.step(ragged_batch(ids, mask, past), past.cache)
        logits = np.zeros((*ids.shape, self.vocabulary_size), np.float32)
        logits[mask] = forward.logits
        like = input_ids if hasattr(input_ids, "shape") else logits
        given = arrays.of(like).asarray(logits, "float32", like=like)
        return CausalLMOutput(logits=given, past_key_values=None if use_cache is False else past)

    forward = __call__

    def eval(self) -> NativeCausalLM:
        """Itself: a native model is never in training."""
        return self

    def to(self, device: Any = None, dtype: Any = None) -> NativeCausalLM:
        """Itself, for the CPU; raises NotSupportedError for another device or type."""
        if (device is not None and str(device) != "cpu") or dtype is not None:
            raise NotSupportedError(
                "a native model stays on the CPU in the formats of its weights: load with backend='torch'."
            )
        return self

    def save_pretrained(self, save_directory: str | PathLike[str]) -> None:
        """Writes a Hugging Face directory: configuration, generation config, weights (packed ones as float32)."""
        saving.save_directory(save_directory, self, self._tensors)

    def num_parameters(self) -> int:
        """How many numbers the weights hold; tied weights count once."""
        return sum(int(np.prod(self._tensors[name].shape)) for name in self._tensors)

    def __getattr__(self, name: str) -> Any:
        if name in _MODULE_METHODS:
            raise NotSupportedError(f"a native model has no {name}(): load with backend='torch'.")
        raise AttributeError(f"NativeCausalLM has no attribute {name!r}")


_MODULE_METHODS = frozenset(
    (
        *("parameters", "named_parameters", "state_dict", "load_state_dict", "requires_grad_", "zero_grad", "train"),
        *("cuda", "half", "bfloat16", "float", "modules", "named_modules", "children", "apply", "compile"),
    )
)
