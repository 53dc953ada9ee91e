"""A model with an encoder in TensorFlow: a call for people, memories and a step for the engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import tensorflow as tf

from fabula.cache.blocks import blocks_for
from fabula.generation.prompts.frameworks import takes_tensors_of
from fabula.generation.prompts.rows import host_array, host_mask
from fabula.models.encoders.seq2seq import Seq2SeqLM, check_columns, check_row_count, refuse_float16, shown_of
from fabula.models.encoders.tensorflow_encoder import encode_rectangle, make_memories
from fabula.models.families.family import EncoderDecoder, Family
from fabula.models.passes.memories import Memories, Memory
from fabula.models.passes.output import Seq2SeqLMOutput
from fabula.models.passes.past import Seq2SeqPast, check_past
from fabula.models.passes.rectangle import check_labels
from fabula.models.passes.tensorflow_losses import label_loss
from fabula.models.passes.tensorflow_rectangle import (
    Rectangle,
    Scored,
    read_inputs,
    score_rectangle,
    weights_rectangle,
)
from fabula.models.tensorflow import TFCausalLM
from fabula.models.weights.tensorflow import StoredWeights, Weights, read_weights, tensorflow_dtype
from fabula.quant.formats import StoredTensor

Tensor = Any  # a tf.Tensor


class TFSeq2SeqLM(Seq2SeqLM, TFCausalLM):
    """The decoder is a causal language model whose rows each have a memory: the encoder's, of another text."""

    def __init__(self, family: Family, weights: Weights, encoder: Weights) -> None:
        """`weights`: the decoder's and what is outside both; `encoder`: the encoder's, in the same variables."""
        super().__init__(family, weights)
        self.encoder = encoder
        self.parameters = {**encoder.variables(), **weights.variables()}

    @classmethod
    def from_tensors(
        cls, family: Family, tensors: Mapping[str, StoredTensor], dtype: Any = "float32", device: str = "cpu"
    ) -> TFSeq2SeqLM:
        """The model of a checkpoint. Raises ModelFileError for wrong weights, NotSupportedError for float16."""
        assert isinstance(family, EncoderDecoder)
        refuse_float16(dtype, family.config.model_type)
        kind = tensorflow_dtype(dtype)
        encoder = read_weights(family.encoder, tensors, kind)
        return cls(family, read_weights(family, tensors, kind, encoder), encoder)

    @property
    def is_tied(self) -> bool:
        """Whether the embeddings are the head too."""
        places = self.weights.places(None)
        return places["head"] is places["embed"]

    @takes_tensors_of("tensorflow")
    def run_encoder(
        self,
        input_ids: Any = None,
        attention_mask: Any = None,
        inputs_embeds: Any = None,
        output_hidden_states: bool = False,
        output_attentions: bool = False,
        return_dict: bool = True,
        training: bool = False,
    ) -> Any:
        """What the encoder makes of a rectangle [R, S], padded on either side where `attention_mask` is 0."""
        shown = (output_hidden_states, output_attentions)
        given = Rectangle(input_ids, inputs_embeds, attention_mask, None, None, training, *shown)
        output = encode_rectangle(self, self.encoder, given)
        return output if return_dict else output.to_tuple()

    @takes_tensors_of("tensorflow")
    def memories(self, encoder_outputs: Any, attention_mask: Any = None, training: bool = False) -> Memories:
        """What the decoder's layers read of the encoder's output, all rows together: `each()` gives one a row."""
        return make_memories(self, encoder_outputs, attention_mask, training)

    @takes_tensors_of("tensorflow")
    def __call__(  # type: ignore[override]
        self,
        input_ids: Any = None,
        attention_mask: Any = None,
        decoder_input_ids: Any = None,
        decoder_attention_mask: Any = None,
        encoder_outputs: Any = None,
        past_key_values: Seq2SeqPast | None = None,
        inputs_embeds: Any = None,
        decoder_inputs_embeds: Any = None,
        labels: Any = None,
        use_cache: bool | None = None,
        output_hidden_states: bool = False,
        output_attentions: bool = False,
        return_dict: bool = True,
        training: bool = False,
    ) -> Any:
        """A Seq2SeqLMOutput: the logits of the decoder's rectangle, given the encoder's text or its `encoder_outputs`.

        Without decoder inputs the labels, moved one place to the right, are these. A past knows what its encoder left,
        so that a call that continues one needs no text. With `training=True` a tf.GradientTape can follow.
        Raises ArgumentError for inputs that do not fit.
        """
        kept = None if labels is None else tf.constant(host_array(labels, "labels"), tf.int32)
        ids, mask = decoder_input_ids, decoder_attention_mask
        if ids is None and decoder_inputs_embeds is None and kept is not None:
            ids = self.prepare_decoder_input_ids_from_labels(kept)
        shown, past = (output_hidden_states, output_attentions), past_key_values
        given = Rectangle(ids, decoder_inputs_embeds, mask, None, past, training, *shown, "decoder_")
        tokens, _ = read_inputs(self, given)
        check_labels(kept, (len(tokens), tokens.shape[1]))
        if past is None:
            if encoder_outputs is None:
                encoder_outputs = self.run_encoder(input_ids, attention_mask, inputs_embeds, *shown, training=training)
            past = self._new_past(tokens.shape, self.memories(encoder_outputs, attention_mask, training).each())
        check_past(past, len(tokens), self.new_cache(0))
        check_columns(host_mask(mask, "decoder_attention_mask"), (len(tokens), tokens.shape[1]), past)
        scored = score_rectangle(self, replace(given, past=past), past.memories)
        output = Seq2SeqLMOutput(
            None if kept is None else label_loss(scored.logits, kept),
            scored.logits,
            None if use_cache is False else past,
            scored.states,
            scored.attentions,
            _across(scored, past.memories) if output_attentions else None,
            *((None, None, None) if encoder_outputs is None else shown_of(encoder_outputs)),
        )
        return output if return_dict else output.to_tuple()

    def _new_past(self, shape: tuple[int, ...], memories: Sequence[Memory]) -> Seq2SeqPast:
        """Nothing yet, of rows that read these memories. Raises ArgumentError for another number of rows."""
        check_row_count(shape[0], len(memories))
        return Seq2SeqPast(self.new_cache(shape[0] * blocks_for(shape[1] + 1)), memories)

    def stored_weights(self) -> StoredWeights:
        """The weights as they are now, under the checkpoint's names."""
        return StoredWeights(self.encoder, self.weights)


def _across(scored: Scored, memories: Sequence[Memory]) -> tuple[Tensor, ...]:
    """Each layer's weights over the encoder's columns, [R, heads, T, S]; zero where there is padding."""
    counts = np.array([memory.of.columns for memory in memories])
    columns = np.arange(counts.max()) < counts[:, None]
    found = scored.forward.memory_attentions or {}
    return tuple(weights_rectangle(found[layer], scored.mask, columns) for layer in sorted(found))
