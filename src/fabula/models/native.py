"""A causal language model on the native backend: our kernels on the CPU, no framework."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from os import PathLike
from typing import Any

import numpy as np

from fabula import arrays
from fabula.cache.blocks import blocks_for
from fabula.cache.kinds import DYNAMIC, CacheKind
from fabula.decoding.closed.record import Gained
from fabula.decoding.closed.rows import ClosedRows, Form
from fabula.decoding.plain_rows import Sampler, plain_choices, plain_numbers
from fabula.decoding.recipe import Recipe
from fabula.decoding.sample import SAMPLE
from fabula.errors import AbsentAttributeError, ArgumentError, NotSupportedError
from fabula.generation.mixin import GenerationMixin
from fabula.generation.prompts.rows import check_room, host_array, host_mask, read_ids
from fabula.generation.settings.config import GenerationConfig
from fabula.models.families.family import Family
from fabula.models.native_refusals import MODULE_METHODS, check_coded, refuse
from fabula.models.passes.output import CausalLMOutput
from fabula.models.passes.past import Past, check_past, written_past
from fabula.models.passes.rectangle import column_mask, ragged_batch
from fabula.models.placement.place import Place
from fabula.models.weights import saving
from fabula.models.weights.native import placed_tensors
from fabula.models.weights.rounding import RoundedTensors
from fabula.models.weights.table import count_numbers
from fabula.ops.native import NativeModel, Placed, native_library
from fabula.ops.native_weights import Precision
from fabula.ops.protocol import NO_TAPS, Batch, Forward, Taps
from fabula.quant.formats import StoredTensor


class NativeCausalLM(GenerationMixin):
    """A loaded model. It generates, and gives logits when called; training and moving need backend="torch"."""

    device = Place("cpu")
    training = False
    _turn: tuple[int, threading.RLock] | None = None

    def __init__(
        self,
        family: Family,
        tensors: Mapping[str, StoredTensor],
        *,
        precision: Precision = "packed",
        threads: int | None = None,
        loaded: Callable[[int, int], None] | None = None,
    ) -> None:
        """`tensors` are computed on in the formats they have, or at another precision; `loaded` is told of the bytes
        packed, and of how many.

        Raises ModelFileError for a weight that is missing or misshapen, ArgumentError for one that cannot be packed.
        """
        self.family = family
        self.config = family.config
        self.generation_config = GenerationConfig.from_model_config(family.config.to_dict())
        self.name_or_path = ""
        self._tensors = tensors
        self._precision: Precision = precision
        placed = placed_tensors(family, tensors)
        self._embedding = placed[None, "embed"]
        self._native = self._programs(
            placed, precision=precision, threads=threads, library=native_library(), loaded=loaded
        )

    def _programs(self, placed: Placed, **options: Any) -> NativeModel:
        """What computes the model, of the weights for its family's fields."""
        return NativeModel(self.family, placed, **options)

    @property
    def hf_device_map(self) -> dict[str, int | str]:
        """Where its modules are: all of them on the CPU."""
        return {"": "cpu"}

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

    def storage_kind(self, kind: CacheKind) -> CacheKind:
        """What is offloaded elsewhere is on the CPU anyway here. Raises NotSupportedError."""
        if kind.name != "quantized":
            return DYNAMIC
        check_coded(kind, self.family.layers)
        return kind

    def new_storage(self, kind: CacheKind, blocks: int) -> Any:
        """Storage of this kind for so many blocks."""
        return self._native.new_cache(blocks, kind.bits, kind.group)

    def step(self, batch: Batch, cache: Any, taps: Taps = NO_TAPS) -> Forward:
        """One step of the engine: writes the batch's keys and values, gives the logits of the scored positions."""
        with self._alone:
            return self._native.step(self._embedded(batch), cache, taps)

    def takes_burst(self, recipes: Sequence[Recipe]) -> bool:
        """Whether the kernels can choose for rows of these recipes."""
        simple = all(recipe.strategy == SAMPLE and recipe.record.is_empty for recipe in recipes)
        return self.sampler is not None and simple and all(plain_numbers(recipe) is not None for recipe in recipes)

    def burst(self, batch: Batch, cache: Any, form: Form, rows: ClosedRows) -> list[Gained]:
        """The next tokens of each row, as the engine's bursts want them: as many of one row as of another."""
        steps = int(rows.room.min())
        choices, ends = plain_choices(form, rows, steps), np.ascontiguousarray(rows.ends, np.int32)
        with self._alone:
            return [Gained(new) for new in self._native.burst(batch, cache, choices, ends, steps).T]

    def step_apart(self, batch: Batch, cache: Any, taps: Taps = NO_TAPS) -> Forward:
        """A step that leaves alone the logits of the engine's last one, which it may still be choosing from."""
        with self._alone:
            return self._native.step_apart(self._embedded(batch), cache, taps)

    def _embedded(self, batch: Batch) -> Batch:
        """The batch with vectors at all places, where some are given."""
        if batch.places is None:
            return batch
        assert self._embedding is not None
        stored = self._embedding.rows(batch.tokens)
        vectors = stored.dequantize() * np.float32(self.family.embedding_scale)
        given = host_array(batch.vectors, "inputs_embeds")
        if given.shape[1:] != vectors.shape[1:]:
            raise ArgumentError(f"`inputs_embeds` must be {vectors.shape[1]} wide, got {given.shape[1]}.")
        vectors[batch.places] = given
        return replace(batch, vectors=vectors, places=None)

    @property
    def _alone(self) -> threading.RLock:
        """The kernels run one step at a time; a forked process has a lock of its own."""
        if self._turn is None or self._turn[0] != os.getpid():
            self._turn = (os.getpid(), threading.RLock())
        return self._turn[1]

    def __call__(
        self,
        input_ids: Any = None,
        attention_mask: Any = None,
        past_key_values: Any = None,
        use_cache: bool | None = None,
        return_dict: bool = True,
        token_type_ids: Any = None,
        **other: Any,
    ) -> Any:
        """The logits [R, L, V] of every position, in the framework of `input_ids`; zero where `attention_mask` is.

        `past_key_values` is what an earlier call returned: then `input_ids` are the columns that follow. No family
        here reads `token_type_ids`. Raises ArgumentError for shapes, ids or masks that make no sense,
        NotSupportedError for what only backend="torch" does.
        """
        refuse(other, input_ids)
        ids = read_ids(input_ids, self.vocabulary_size)
        past_key_values = written_past(past_key_values, self.new_cache, ids)
        check_past(past_key_values, len(ids), self.new_cache(0))
        past = past_key_values or Past(self.new_cache(len(ids) * blocks_for(ids.shape[1] + 1)), len(ids))
        given = as_given(self._scores(ids, host_mask(attention_mask), past), input_ids)
        output = CausalLMOutput(logits=given, past_key_values=None if use_cache is False else past)
        return output if return_dict else output.to_tuple()

    def _scores(self, ids: np.ndarray, mask: np.ndarray | None, past: Past, memories: Sequence[Any] = ()) -> np.ndarray:
        """Float32["R L V"]: the logits of a rectangle that goes on from a past, zero where there is padding."""
        kept = column_mask(mask, (ids.shape[0], ids.shape[1]), past)
        check_room(int((past.lengths + kept.sum(1)).max()), self.context_length)
        forward = self.step_apart(replace(ragged_batch(ids, kept, past), memories=memories), past.cache)
        logits = np.zeros((*ids.shape, self.vocabulary_size), np.float32)
        logits[kept] = forward.logits
        return logits

    forward = __call__

    def eval(self) -> NativeCausalLM:
        """Itself: a native model is never in training."""
        return self

    def cpu(self) -> NativeCausalLM:
        """Itself: that is where it is."""
        return self

    def to(self, device: Any = None, dtype: Any = None) -> NativeCausalLM:
        """Itself, for the CPU; raises NotSupportedError for another device or type."""
        if (device is not None and str(device) not in ("cpu", "cpu:0")) or dtype is not None:
            raise NotSupportedError(
                "a native model stays on the CPU in the formats of its weights: load with backend='torch'."
            )
        return self

    def save_pretrained(self, save_directory: str | PathLike[str], **settings: Any) -> None:
        """Writes a Hugging Face directory: configuration, generation config, weights (packed ones as float32)."""
        saving.refuse_settings(settings)
        saving.save_directory(save_directory, self, RoundedTensors(self.family, self._tensors, self._precision))

    def num_parameters(self, only_trainable: bool = False, exclude_embeddings: bool = False) -> int:
        """How many numbers the weights hold; tied weights count once. None of them is trainable here."""
        if only_trainable:
            return 0
        return count_numbers(self.family, self._tensors, exclude_embeddings)

    def __repr__(self) -> str:
        name = type(self).__name__
        return f"{name}({self.name_or_path!r}, {self.config.model_type}, {self.num_parameters():,} parameters)"

    def __getstate__(self) -> Any:
        raise NotSupportedError("a native model is not copied or pickled: load it again, or use backend='torch'.")

    def __getattr__(self, name: str) -> Any:
        if name in MODULE_METHODS:
            raise AbsentAttributeError(f"a native model has no {name}(): load with backend='torch'.")
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")


def as_given(x: np.ndarray, like: Any) -> Any:
    """Float32 numbers as an array of the framework, and at the place, of what a caller gave; of NumPy for lists."""
    like = like if hasattr(like, "shape") else x
    return arrays.of(like).asarray(x, "float32", like=like)
