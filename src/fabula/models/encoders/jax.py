"""A model with an encoder in JAX: a pass for people that may be traced, memories and a step for the engine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fabula.arrays.jax_meshes import mesh_of, within
from fabula.generation.prompts.encoder import last_hidden_state
from fabula.generation.prompts.frameworks import takes_tensors_of
from fabula.generation.prompts.rows import host_array, host_mask, read_ids
from fabula.models.encoders.seq2seq import Seq2SeqLM, encoder_mask, refuse_float16, shown_of
from fabula.models.families.family import EncoderDecoder, Family
from fabula.models.jax import JaxCausalLM, read_arrays
from fabula.models.passes.jax import Outputs, Program, Rows
from fabula.models.passes.jax_losses import label_loss
from fabula.models.passes.jax_memory import memories_of, memory_arrays
from fabula.models.passes.memories import Memories
from fabula.models.passes.output import EncoderOutput, Seq2SeqLMOutput
from fabula.models.passes.rectangle import check_one_kind
from fabula.models.weights.jax import plan_of, present_in
from fabula.ops.jax import MemoryRows
from fabula.ops.rectangles import bucket
from fabula.quant.formats import StoredTensor
from fabula.taps import Taps


class JaxSeq2SeqLM(Seq2SeqLM, JaxCausalLM):
    """The decoder is a causal language model whose rows each have a memory: the encoder's, of another text."""

    def __init__(self, program: Program, arrays: Mapping[str, Any], reader: Program) -> None:
        """`program`: the decoder's; `reader`: the encoder's; `arrays`: one for each field of either's plan."""
        self.reader = reader
        super().__init__(program, arrays)

    @classmethod
    def from_tensors(
        cls, family: Family, tensors: Mapping[str, StoredTensor], dtype: Any = "float32", device: str | None = None
    ) -> JaxSeq2SeqLM:
        """The model of a checkpoint. Raises ModelFileError for wrong weights, NotSupportedError for float16."""
        assert isinstance(family, EncoderDecoder)
        refuse_float16(dtype, family.config.model_type)
        plans = [(stack, plan_of(stack, present_in(stack, tensors))) for stack in (family.encoder, family)]
        arrays = {name: x for pair in plans for name, x in read_arrays(*pair, tensors, dtype, device).items()}
        reader, program = (Program(*pair) for pair in plans)
        return cls(program, arrays, reader)

    def programs(self) -> tuple[Program, ...]:
        """The encoder's and the decoder's."""
        return (self.reader, self.program)

    @property
    def is_tied(self) -> bool:
        """Whether the embeddings are the head too."""
        return all(one.field != "head" for one in self.program.plan.outside)

    @takes_tensors_of("jax")
    def run_encoder(
        self,
        input_ids: Any = None,
        attention_mask: Any = None,
        inputs_embeds: Any = None,
        output_hidden_states: bool = False,
        output_attentions: bool = False,
        return_dict: bool = True,
    ) -> Any:
        """What the encoder makes of a rectangle [R, S], padded on either side where `attention_mask` is 0.

        It may be traced; with numbers at hand it is computed in a bucket of rows and columns.
        """
        check_one_kind(input_ids, inputs_embeds)
        given = input_ids if inputs_embeds is None else inputs_embeds
        wanted = (output_hidden_states, output_attentions)
        if isinstance(given, jax.core.Tracer) or isinstance(attention_mask, jax.core.Tracer):
            found = self._read(input_ids, attention_mask, inputs_embeds, *wanted)
        else:
            found = self._read_in_bucket(input_ids, attention_mask, inputs_embeds, *wanted)
        output = EncoderOutput(*found)
        return output if return_dict else output.to_tuple()

    def _read(self, ids: Any, mask: Any, vectors: Any, states: bool, attentions: bool) -> tuple[Any, Any, Any]:
        """The encoder's vectors [R, S, D], states and weights, of a rectangle as it is."""
        given = ids if vectors is None else vectors
        shape = (int(given.shape[0]), int(given.shape[1]))
        columns = jnp.broadcast_to(jnp.arange(shape[1], dtype=jnp.int32), shape)
        kept = jnp.ones(shape, bool) if mask is None else jnp.asarray(mask) != 0
        tokens = columns if ids is None else jnp.asarray(ids, jnp.int32)
        flat = None if vectors is None else jnp.asarray(vectors).reshape(shape[0] * shape[1], -1)
        every = tuple(range(len(self.reader.family.layers)))
        taps = Taps(every if states else (), every if attentions else (), final_hidden=True)
        rows = Rows(tokens, columns, vectors=flat)
        outputs = self.reader.alone(self.weights_of(self.reader), rows, kept, taps)
        return _shown(outputs, kept, states, attentions)

    def _read_in_bucket(self, ids: Any, mask: Any, vectors: Any, states: bool, attentions: bool) -> tuple[Any, ...]:
        """The same with rows and columns of padding, so that there are few shapes; what they gave is cut off."""
        ids = None if ids is None else read_ids(ids, self.vocab_size)
        shape = tuple(int(size) for size in (vectors if ids is None else ids).shape[:2])
        more = ((0, bucket(shape[0]) - shape[0]), (0, bucket(shape[1], 16) - shape[1]))
        wide = None if ids is not None else np.pad(host_array(vectors, "inputs_embeds"), (*more, (0, 0)))
        whole = np.pad(_mask(mask, (shape[0], shape[1])), more)
        found = self._read(None if ids is None else np.pad(ids, more), whole, wide, states, attentions)

        def cut(x: Any) -> Any:
            ends = (shape[0], slice(None), shape[1], shape[1]) if x.ndim == 4 else (*shape, x.shape[-1])
            return jnp.asarray(np.asarray(x)[tuple(end if isinstance(end, slice) else slice(end) for end in ends)])

        return tuple(jax.tree.map(cut, part) for part in found)

    @takes_tensors_of("jax")
    def memories(self, encoder_outputs: Any, attention_mask: Any = None) -> Memories:
        """What the decoder's layers read of the encoder's output, all rows together: `each()` gives one a row."""
        hidden = host_array(last_hidden_state(encoder_outputs), "encoder_outputs").astype(np.float32)
        weights = self.weights()
        with within(mesh_of(weights)):
            return memories_of(self.program, weights, hidden, _mask(attention_mask, hidden.shape[:2]))

    @takes_tensors_of("jax")
    def __call__(  # type: ignore[override]
        self,
        input_ids: Any = None,
        attention_mask: Any = None,
        decoder_input_ids: Any = None,
        decoder_attention_mask: Any = None,
        encoder_outputs: Any = None,
        inputs_embeds: Any = None,
        decoder_inputs_embeds: Any = None,
        labels: Any = None,
        output_hidden_states: bool = False,
        output_attentions: bool = False,
        return_dict: bool = True,
    ) -> Any:
        """A Seq2SeqLMOutput: the logits of the decoder's rectangle, given the encoder's text or its `encoder_outputs`.

        It may be traced and differentiated, and keeps no past: generate() does. Without decoder inputs the labels,
        moved one place to the right, are these. Raises ArgumentError for inputs that do not fit.
        """
        shown = (output_hidden_states, output_attentions)
        if encoder_outputs is None:
            encoder_outputs = EncoderOutput(*self._read(input_ids, attention_mask, inputs_embeds, *shown))
        ids = decoder_input_ids
        if ids is None and decoder_inputs_embeds is None and labels is not None:
            ids = self.prepare_decoder_input_ids_from_labels(jnp.asarray(labels, jnp.int32))
        check_one_kind(ids, decoder_inputs_embeds, "decoder_")
        hidden, *encoded = shown_of(encoder_outputs)
        read = jnp.ones(hidden.shape[:2], bool) if attention_mask is None else jnp.asarray(attention_mask) != 0
        outputs, kept = self._decoded(ids, decoder_attention_mask, decoder_inputs_embeds, hidden, read, shown)
        logits = jnp.where(kept[..., None], outputs.logits.reshape(*kept.shape, -1), 0)
        _, states, attentions = _shown(outputs, kept, *shown)
        across = [jnp.where(kept[:, None, :, None], outputs.memory_attentions[k], 0) for k in outputs.memory_attentions]
        output = Seq2SeqLMOutput(
            None if labels is None else label_loss(logits, jnp.asarray(labels)),
            logits,
            None,
            states,
            attentions,
            tuple(across) or None,
            hidden,
            *encoded,
        )
        return output if return_dict else output.to_tuple()

    def _decoded(
        self, ids: Any, mask: Any, vectors: Any, hidden: Any, read: Any, shown: tuple[bool, bool]
    ) -> tuple[Outputs, Any]:
        """The decoder's pass over a rectangle, and which of its columns are tokens."""
        given = ids if vectors is None else vectors
        shape = (int(given.shape[0]), int(given.shape[1]))
        weights = self.weights()
        columns = jnp.broadcast_to(jnp.arange(shape[1], dtype=jnp.int32), shape)
        kept = jnp.ones(shape, bool) if mask is None else jnp.asarray(mask) != 0
        memory = MemoryRows(*memory_arrays(self.program, weights, jnp.asarray(hidden)), read, jnp.arange(shape[0]))
        flat = None if vectors is None else jnp.asarray(vectors).reshape(shape[0] * shape[1], -1)
        tokens = columns if ids is None else jnp.asarray(ids, jnp.int32)
        every = tuple(range(len(self.layers)))
        taps = Taps(every if shown[0] else (), every if shown[1] else (), final_hidden=True)
        return self.program.alone(weights, Rows(tokens, columns, vectors=flat, memory=memory), kept, taps), kept


def _shown(outputs: Outputs, kept: Any, states: bool, attentions: bool) -> tuple[Any, Any, Any]:
    """Vectors after the last norm, states and weights of a rectangle, zero where there is padding."""

    def spread(x: Any) -> Any:
        return jnp.where(kept[..., None], x.reshape(*kept.shape, -1), 0)

    hidden = spread(outputs.hidden)
    layers = [spread(outputs.states[layer]) for layer in sorted(outputs.states)]
    weights = [jnp.where(kept[:, None, :, None], outputs.attentions[k], 0) for k in sorted(outputs.attentions)]
    return hidden, (*layers, hidden) if states else None, tuple(weights) if attentions else None


def _mask(attention_mask: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Bool["R S"]: which columns are tokens. Raises ArgumentError for a row without any."""
    return encoder_mask(host_mask(attention_mask), (shape[0], shape[1]))
