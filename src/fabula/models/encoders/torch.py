"""A model with an encoder in PyTorch: a forward pass for people, memories and a step for the engine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from fabula.generation.prompts.encoder import last_hidden_state
from fabula.models.encoders.seq2seq import Seq2SeqLM, refuse_float16
from fabula.models.encoders.torch_decoder import decode_rectangle
from fabula.models.encoders.torch_encoder import encode_rectangle, make_memories
from fabula.models.families.family import EncoderDecoder, Family
from fabula.models.passes.past import Seq2SeqPast
from fabula.models.passes.torch import Weights
from fabula.models.passes.torch_rectangle import Rectangle, check_inputs
from fabula.models.torch import TorchCausalLM, tensor_of
from fabula.ops.torch_memory import Memories
from fabula.quant.formats import StoredTensor


class TorchSeq2SeqLM(Seq2SeqLM, TorchCausalLM):
    """The decoder is a causal language model whose rows each have a memory: the encoder's, of another text."""

    family: EncoderDecoder

    @classmethod
    def from_tensors(
        cls,
        family: Family,
        tensors: Mapping[str, StoredTensor],
        dtype: str | torch.dtype = "float32",
        device: str | torch.device | Mapping[str, str] = "cpu",
    ) -> TorchCausalLM:
        """The model of a checkpoint. Raises ModelFileError for wrong weights, NotSupportedError for float16."""
        refuse_float16(dtype, family.config.model_type)
        return super().from_tensors(family, tensors, dtype, device)

    @property
    def is_tied(self) -> bool:
        """Whether the embeddings are the head too."""
        outside = self.weights().outside
        return outside.head is outside.embed

    def encoder_weights(self) -> Weights:
        """The encoder's parameters under its field names."""
        return self._stacks[0].weights()

    def run_encoder(
        self,
        input_ids: Any = None,
        attention_mask: Any = None,
        inputs_embeds: torch.Tensor | None = None,
        output_hidden_states: bool = False,
        output_attentions: bool = False,
        return_dict: bool = True,
    ) -> Any:
        """What the encoder makes of a rectangle [R, S], padded on either side where `attention_mask` is 0."""
        ids, mask = tensor_of(input_ids, "input_ids"), tensor_of(attention_mask, "attention_mask")
        vectors = tensor_of(inputs_embeds, "inputs_embeds")
        given = Rectangle(ids, vectors, mask, None, None, None, 0, output_hidden_states, output_attentions)
        output = encode_rectangle(self, given)
        return output if return_dict else output.to_tuple()

    def memories(self, encoder_outputs: Any, attention_mask: Any = None) -> Memories:
        """What the decoder's layers read of the encoder's output, all rows together: `each()` gives one a row."""
        hidden = tensor_of(last_hidden_state(encoder_outputs), "encoder_outputs")
        assert hidden is not None
        return make_memories(self.family, self.weights(), hidden, tensor_of(attention_mask, "attention_mask"))

    encode_call = torch.no_grad()(Seq2SeqLM.encode_call)

    def forward(  # type: ignore[override]
        self,
        input_ids: Any = None,
        attention_mask: Any = None,
        decoder_input_ids: Any = None,
        decoder_attention_mask: Any = None,
        encoder_outputs: Any = None,
        past_key_values: Seq2SeqPast | None = None,
        inputs_embeds: torch.Tensor | None = None,
        decoder_inputs_embeds: torch.Tensor | None = None,
        labels: Any = None,
        use_cache: bool | None = None,
        output_hidden_states: bool = False,
        output_attentions: bool = False,
        return_dict: bool = True,
    ) -> Any:
        """A Seq2SeqLMOutput: the logits of the decoder's rectangle, given the encoder's text or its `encoder_outputs`.

        Without decoder inputs the labels, moved one place to the right, are these. A past knows what its encoder left,
        so that a call that continues one needs no text. In training no past is kept unless `use_cache=True` asks.
        Raises ArgumentError for inputs that do not fit.
        """
        kept = tensor_of(labels, "labels")
        ids = tensor_of(decoder_input_ids, "decoder_input_ids")
        vectors = tensor_of(decoder_inputs_embeds, "decoder_inputs_embeds")
        if ids is None and vectors is None and kept is not None:
            ids = self.prepare_decoder_input_ids_from_labels(kept)
        mask = tensor_of(decoder_attention_mask, "decoder_attention_mask")
        shown = (output_hidden_states, output_attentions)
        given = Rectangle(ids, vectors, mask, None, past_key_values, kept, 0, *shown, "decoder_")
        check_inputs(self, given)
        if encoder_outputs is None and past_key_values is None:
            encoder_outputs = self.run_encoder(input_ids, attention_mask, inputs_embeds, *shown)
        memories = (
            self.memories(encoder_outputs, attention_mask).each()
            if past_key_values is None
            else past_key_values.memories
        )
        wanted = past_key_values is not None or (self.config.get("use_cache", True) and not self.training)
        output = decode_rectangle(self, given, memories, encoder_outputs, wanted if use_cache is None else use_cache)
        return output if return_dict else output.to_tuple()
