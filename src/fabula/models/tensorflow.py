"""A model in TensorFlow: a tf.Module of the checkpoint's weights, whose steps XLA compiles."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from typing import Any

import numpy as np
import tensorflow as tf

from fabula.cache.kinds import DYNAMIC, CacheKind
from fabula.cache.stamp import Stamp
from fabula.cache.tensorflow import TFCache
from fabula.decoding.closed.beam_found import Made
from fabula.decoding.closed.beams import BeamForm, ClosedBeams
from fabula.decoding.closed.contrastive import ClosedTexts, ContrastiveForm, SettledText
from fabula.decoding.closed.record import Gained
from fabula.decoding.closed.rows import ClosedRows, Form
from fabula.decoding.plain_rows import Sampler
from fabula.generation.prompts.frameworks import takes_tensors_of
from fabula.generation.settings.config import GenerationConfig
from fabula.generation.tensorflow_mixin import TFGenerationMixin
from fabula.models.bursts.tensorflow import Bursts
from fabula.models.bursts.tensorflow_sampler import tensorflow_sampler
from fabula.models.families.family import Family
from fabula.models.passes.storage_kinds import kind_there
from fabula.models.passes.tensorflow import Programs
from fabula.models.passes.tensorflow_rectangle import Rectangle, forward_rectangle
from fabula.models.passes.tensorflow_step import run_step
from fabula.models.placement.tensorflow import best_device
from fabula.models.weights import saving
from fabula.models.weights.table import count_numbers
from fabula.models.weights.tensorflow import StoredWeights, Weights, read_weights, tensorflow_dtype
from fabula.ops.layer_groups import groups_of
from fabula.ops.protocol import NO_TAPS, Batch, Forward, Taps
from fabula.quant.formats import StoredTensor


class TFCausalLM(TFGenerationMixin, tf.Module):
    """A family with its weights as variables; those of layers that repeat are stacked, [layers, ...]."""

    name_or_path = ""

    def __init__(self, family: Family, weights: Weights) -> None:
        super().__init__(name=str(family.config.model_type))
        self.family = family
        self.config = family.config
        self.generation_config = GenerationConfig.from_model_config(family.config.to_dict())
        self.weights = weights
        self.programs = Programs(weights)
        self.bursts = Bursts(weights)
        self.parameters = weights.variables()  # where tf.Module finds them

    @classmethod
    def from_tensors(
        cls, family: Family, tensors: Mapping[str, StoredTensor], dtype: Any = "float32", device: str = "cpu"
    ) -> TFCausalLM:
        """The model of a checkpoint, packed weights dequantized. Raises ModelFileError for weights that do not fit."""
        return cls(family, read_weights(family, tensors, tensorflow_dtype(dtype)))

    @property
    def layers(self) -> tuple[Any, ...]:
        """What each layer is."""
        return self.family.layers

    @property
    def dtype(self) -> tf.DType:
        """The type of the weights."""
        return next(iter(self.parameters.values())).dtype

    def weights_stamp(self) -> Stamp:
        """What is another after a variable was written to; on a GPU always.

        The values are kept, which costs their memory once more from the first write on.
        """
        values = [tf.convert_to_tensor(one) for one in self.parameters.values()]
        if any("CPU" not in one.device for one in values):
            return Stamp((object(),))
        return Stamp(tuple(np.asarray(one).ctypes.data for one in values), kept=tuple(values))

    def new_cache(self, blocks: int) -> TFCache:
        """Storage for so many blocks of keys and values."""
        return self.new_storage(DYNAMIC, blocks)

    def new_storage(self, kind: CacheKind, blocks: int) -> TFCache:
        """Storage of this kind for so many blocks."""
        return TFCache(groups_of(self.layers, kind), blocks, self.dtype)

    def storage_kind(self, kind: CacheKind) -> CacheKind:
        """What is offloaded is where it would be anyway, if the model is on the CPU; else NotSupportedError."""
        return kind_there(kind, best_device(), "TensorFlow")

    @property
    def sampler(self) -> Sampler | None:
        """Chooses tokens in one call of the kernels; None where they are not built, or the model is on a GPU."""
        return tensorflow_sampler() if best_device() == "cpu" else None

    def step(self, batch: Batch, cache: TFCache, taps: Taps = NO_TAPS) -> Forward:
        """One step of the engine: writes the batch's keys and values, gives the logits of the scored positions."""
        return run_step(self.programs.run, self.programs.width, batch, cache, taps)

    def burst(self, batch: Batch, cache: TFCache, form: Form, rows: ClosedRows) -> list[Gained]:
        """Many steps of the engine at once: what each row got (engine/burst.py)."""
        return self.bursts.run(batch, cache, form, rows)

    def burst_beams(self, batch: Batch, cache: TFCache, form: BeamForm, beams: ClosedBeams) -> list[Made]:
        """Many turns of beam search at once: what each chose from, by group (engine/burst.py)."""
        return self.bursts.run_beams(batch, cache, form, beams)

    def burst_texts(self, batch: Batch, cache: TFCache, form: ContrastiveForm, texts: ClosedTexts) -> list[SettledText]:
        """Many turns of contrastive search at once: what each text was settled to go on with (engine/burst.py)."""
        return self.bursts.run_texts(batch, cache, form, texts)

    @takes_tensors_of("tensorflow")
    def __call__(
        self,
        input_ids: Any = None,
        attention_mask: Any = None,
        position_ids: Any = None,
        past_key_values: Any = None,
        inputs_embeds: Any = None,
        use_cache: bool | None = None,
        output_hidden_states: bool = False,
        output_attentions: bool = False,
        return_dict: bool = True,
        training: bool = False,
        token_type_ids: Any = None,
    ) -> Any:
        """A CausalLMOutput: the logits [R, L, V] of every position; zero where `attention_mask` is.

        `past_key_values` is what an earlier call returned: then the inputs are the columns that follow. Positions count
        tokens; `position_ids` may say the same. With `training=True` a tf.GradientTape can follow; no dropout is
        applied. No family here reads `token_type_ids`.
        Raises ArgumentError for inputs that make no sense, ContextLengthError for rows that are too long.
        """
        given = Rectangle(
            input_ids,
            inputs_embeds,
            attention_mask,
            position_ids,
            past_key_values,
            training,
            output_hidden_states,
            output_attentions,
        )
        output = forward_rectangle(self, given, use_cache is not False)
        return output if return_dict else output.to_tuple()

    def stored_weights(self) -> StoredWeights:
        """The weights as they are now, under the checkpoint's names."""
        return StoredWeights(self.weights)

    def save_pretrained(self, save_directory: str | PathLike[str], **settings: Any) -> None:
        """Writes the weights as they are now, the configuration and the generation settings to a directory."""
        saving.refuse_settings(settings)
        saving.save_directory(save_directory, self, self.stored_weights())

    def num_parameters(self, only_trainable: bool = False, exclude_embeddings: bool = False) -> int:
        """How many numbers the weights hold; tied weights count once."""
        return count_numbers(self.family, self.stored_weights(), exclude_embeddings)
