"""What a native model does not do, by name: the methods and arguments of a torch module."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from fabula.cache.kinds import CacheKind
from fabula.errors import ArgumentError, NotSupportedError, UnknownArgumentError
from fabula.kernels.stored import LANES, MOST_FEATURES
from fabula.ops.specs import LayerSpec

MODULE_METHODS = frozenset(
    (
        *("parameters", "named_parameters", "state_dict", "load_state_dict", "requires_grad_", "zero_grad", "train"),
        *("cuda", "half", "bfloat16", "float", "double", "type", "modules", "named_modules", "children", "apply"),
        *("named_children", "buffers", "named_buffers", "register_buffer", "register_parameter", "add_module"),
        *("register_forward_hook", "register_forward_pre_hook", "get_submodule", "get_parameter", "share_memory"),
        *("get_input_embeddings", "compile"),
    )
)
CALL_ARGUMENTS = (
    *("position_ids", "inputs_embeds", "labels", "logits_to_keep", "num_logits_to_keep", "cache_position"),
    *("output_hidden_states", "output_attentions"),
)
SEQ2SEQ_ARGUMENTS = (
    *("inputs_embeds", "decoder_inputs_embeds", "labels", "cache_position"),
    *("output_hidden_states", "output_attentions"),
)
TAKEN = ("input_ids", "attention_mask", "past_key_values", "use_cache", "return_dict")
SEQ2SEQ_TAKEN = (*TAKEN, "decoder_input_ids", "decoder_attention_mask", "encoder_outputs")


def refuse(arguments: Mapping[str, Any], input_ids: Any) -> None:
    """Raises for what a call of the model was given and a native one would ignore, and where there are no ids."""
    _refuse(arguments, CALL_ARGUMENTS, TAKEN)
    if input_ids is None:
        raise ArgumentError("`input_ids` must be given, got None. Pass what the tokenizer returns.")


def refuse_seq2seq(arguments: Mapping[str, Any], decoder_input_ids: Any, has_text: bool) -> None:
    """The same of a model with an encoder; `has_text`: there is something to encode, or that was."""
    _refuse(arguments, SEQ2SEQ_ARGUMENTS, SEQ2SEQ_TAKEN)
    if not has_text:
        raise ArgumentError("`input_ids` must be given, got None. Pass what the tokenizer returns.")
    if decoder_input_ids is None:
        raise ArgumentError(
            "`decoder_input_ids` must be given, got None. Pass the decoder's start token, or use generate()."
        )


def _refuse(arguments: Mapping[str, Any], refused: Sequence[str], taken: Sequence[str]) -> None:
    for name, value in arguments.items():
        if name not in refused:
            near = difflib.get_close_matches(name, (*taken, *refused), n=1)
            raise UnknownArgumentError(
                f"a model's call has no argument `{name}`.{f' Did you mean `{near[0]}`?' if near else ''}"
            )
        if value is not None and value is not False:
            raise NotSupportedError(f"a native model's call takes no `{name}`: load with backend='torch'.")


def refuse_weights(output_attentions: bool) -> None:
    """Raises NotSupportedError where an encoder's attention weights are asked for."""
    if output_attentions:
        raise NotSupportedError(
            "`output_attentions` must be False for a native model: its kernels keep no attention weights. "
            "Load with backend='torch'."
        )


def check_coded(kind: CacheKind, layers: Sequence[LayerSpec]) -> None:
    """Raises NotSupportedError for groups, or heads, of a quantized cache that the kernels do not read."""
    features = max(layer.attention.head_dim for layer in layers)
    advice = "Choose another, or load with backend='torch'."
    if kind.group % LANES and kind.group < features:
        raise NotSupportedError(
            f"`q_group_size` of `cache_config` must be a multiple of {LANES} for a native model, got {kind.group}. "
            + advice
        )
    if features > MOST_FEATURES or any(layer.attention.head_dim % 2 for layer in layers):
        raise NotSupportedError(
            f"`cache_implementation` must not be 'quantized' for a native model with heads of {features} features: "
            f"an even number of at most {MOST_FEATURES} is. {advice}"
        )
