"""A model with an encoder on the native backend: our kernels on the CPU, no framework."""

from __future__ import annotations

from typing import Any

import numpy as np

from fabula.cache.blocks import blocks_for
from fabula.cache.native_memory import NativeMemories
from fabula.errors import ArgumentError
from fabula.generation.prompts.encoder import last_hidden_state
from fabula.generation.prompts.rows import host_array, host_mask, read_ids
from fabula.models.encoders.seq2seq import Seq2SeqLM, check_columns, check_row_count, encoder_mask, is_one_run, shown_of
from fabula.models.families.family import EncoderDecoder
from fabula.models.native import NativeCausalLM, as_given
from fabula.models.native_refusals import refuse_seq2seq, refuse_weights
from fabula.models.passes.output import EncoderOutput, Seq2SeqLMOutput
from fabula.models.passes.past import Seq2SeqPast, check_past
from fabula.models.passes.rectangle import check_one_kind
from fabula.models.weights.native import placed_tensors
from fabula.ops.native import Placed
from fabula.ops.native_seq2seq import NativeSeq2Seq


class NativeSeq2SeqLM(Seq2SeqLM, NativeCausalLM):
    """The decoder is a causal language model whose rows each have a memory: the encoder's, of another text.

    It generates, and gives logits when called; training and moving need backend="torch".
    """

    family: EncoderDecoder
    _native: NativeSeq2Seq

    def _programs(self, placed: Placed, **options: Any) -> NativeSeq2Seq:
        self._tied = placed[None, "head"] is placed[None, "embed"]
        return NativeSeq2Seq(self.family, placed, placed_tensors(self.family.encoder, self._tensors), **options)

    @property
    def layers(self) -> Any:
        """The decoder's."""
        return self.family.layers

    @property
    def is_tied(self) -> bool:
        """Whether the embeddings are the head too."""
        return self._tied

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

        Outputs are of the framework of what was given. Raises ArgumentError for shapes, ids or masks that make no
        sense, NotSupportedError for attention weights.
        """
        check_one_kind(input_ids, inputs_embeds)
        refuse_weights(output_attentions)
        ids, vectors = self._encoder_inputs(input_ids, inputs_embeds)
        mask = encoder_mask(host_mask(attention_mask), (ids.shape[0], ids.shape[1]))
        rows = [row[kept] for row, kept in zip(ids, mask, strict=True)]
        given = None if vectors is None else [row[kept] for row, kept in zip(vectors, mask, strict=True)]
        columns = None if is_one_run(mask).all() else [np.flatnonzero(kept) for kept in mask]
        every = tuple(range(len(self.family.encoder.layers))) if output_hidden_states else ()
        with self._alone:
            found = self._native.encode(rows, given, every, columns)
        like = input_ids if inputs_embeds is None else inputs_embeds
        hidden, *states = (as_given(_spread(each, mask), like) for each in found)
        output = EncoderOutput(hidden, (*states, hidden) if output_hidden_states else None)
        return output if return_dict else output.to_tuple()

    def _encoder_inputs(self, input_ids: Any, inputs_embeds: Any) -> tuple[np.ndarray, np.ndarray | None]:
        """Ids Int["R S"], and vectors Float32["R S D"] in their place."""
        if inputs_embeds is None:
            return read_ids(input_ids, self.vocabulary_size), None
        vectors = self._vectors(inputs_embeds, "inputs_embeds")
        return np.zeros(vectors.shape[:2], np.int32), vectors

    def _vectors(self, given: Any, name: str) -> np.ndarray:
        """Float32["R S D"]. Raises ArgumentError for another width."""
        assert self._embedding is not None
        vectors, width = host_array(given, name), self._embedding.shape[1]
        if vectors.ndim != 3 or vectors.shape[2] != width:
            got = vectors.shape[2] if vectors.ndim == 3 else f"the shape {list(vectors.shape)}"
            raise ArgumentError(f"`{name}` must be {width} wide, got {got}.")
        return vectors.astype(np.float32)

    def memories(self, encoder_outputs: Any, attention_mask: Any = None) -> NativeMemories:
        """What the decoder's layers read of the encoder's output, all rows together: `each()` gives one a row."""
        hidden = self._vectors(last_hidden_state(encoder_outputs), "encoder_outputs")
        mask = encoder_mask(host_mask(attention_mask), (hidden.shape[0], hidden.shape[1]))
        with self._alone:
            return NativeMemories(self._native.remember([row[kept] for row, kept in zip(hidden, mask, strict=True)]))

    def __call__(  # type: ignore[override]
        self,
        input_ids: Any = None,
        attention_mask: Any = None,
        decoder_input_ids: Any = None,
        decoder_attention_mask: Any = None,
        encoder_outputs: Any = None,
        past_key_values: Any = None,
        use_cache: bool | None = None,
        return_dict: bool = True,
        **other: Any,
    ) -> Any:
        """A Seq2SeqLMOutput: the logits of the decoder's rectangle, given the encoder's text or its `encoder_outputs`.

        A past knows what its encoder left, so that a call that continues one needs no text. Logits are of the framework
        of `decoder_input_ids`. Raises ArgumentError for inputs that do not fit, NotSupportedError for what only
        backend="torch" does.
        """
        known = (input_ids, encoder_outputs, past_key_values)
        refuse_seq2seq(other, decoder_input_ids, any(each is not None for each in known))
        ids = read_ids(decoder_input_ids, self.vocabulary_size, "decoder_input_ids")
        past = past_key_values
        if past is None:
            if encoder_outputs is None:
                encoder_outputs = self.run_encoder(input_ids, attention_mask)
            memories = self.memories(encoder_outputs, attention_mask).each()
            check_row_count(len(ids), len(memories))
            past = Seq2SeqPast(self.new_cache(len(ids) * blocks_for(ids.shape[1] + 1)), memories)
        check_past(past, len(ids), self.new_cache(0))
        mask = host_mask(decoder_attention_mask, "decoder_attention_mask")
        check_columns(mask, (ids.shape[0], ids.shape[1]), past)
        logits = as_given(self._scores(ids, mask, past, past.memories), decoder_input_ids)
        encoded = (None, None, None) if encoder_outputs is None else shown_of(encoder_outputs)
        kept = None if use_cache is False else past
        output = Seq2SeqLMOutput(None, logits, kept, None, None, None, *encoded)
        return output if return_dict else output.to_tuple()

    forward = __call__  # type: ignore[assignment]


def _spread(x: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Float32["T D"] of the columns that are tokens as Float32["R S D"], zero elsewhere."""
    whole = np.zeros((*mask.shape, x.shape[1]), np.float32)
    whole[mask] = x
    return whole
