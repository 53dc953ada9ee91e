"""What a module of one's own takes and gives, whatever its framework."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from typing import Any

from fabula.errors import ArgumentError, NotSupportedError
from fabula.ops.protocol import Batch
from fabula.taps import Taps


def arguments(call: Callable[..., Any]) -> frozenset[str]:
    """The names of what a call takes, the first one aside: that gets the ids."""
    parameters = list(inspect.signature(call).parameters.values())
    named = {inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY}
    return frozenset(one.name for one in parameters[1:] if one.kind in named)


def named(output: Any, name: str, place: int | None) -> Any:
    """A part of an output by its name, its key, or its place in a tuple."""
    if isinstance(output, Mapping):
        return output.get(name)
    if isinstance(output, (tuple, list)) and not hasattr(output, name):
        return output[place] if place is not None and place < len(output) else None
    return getattr(output, name, None)


def logits_of(output: Any, tensor: Any, method: str) -> Any:
    """The logits, a `tensor`, in what a module's method returns. Raises ArgumentError where there are none."""
    logits = output if isinstance(output, tensor) else named(output, "logits", 0)
    if not isinstance(logits, tensor):
        raise ArgumentError(
            f"`{method}` must return logits, or an object or tuple with them, got {type(output).__name__}. "
            "Return a tensor of the shape [rows, columns, vocabulary]."
        )
    return logits


def check_shape(logits: Any, rows: int, columns: Collection[int], method: str) -> None:
    """Raises ArgumentError for logits that are not [rows, columns, vocabulary], with any of these columns."""
    if len(logits.shape) == 3 and logits.shape[0] == rows and logits.shape[1] in columns:
        return
    raise ArgumentError(
        f"`{method}` must return logits of the shape [rows, columns, vocabulary], here "
        f"[{rows}, {max(columns)}, V], got {list(logits.shape)}. Return them for every column that it is given."
    )


def head_of(module: Any) -> Any:
    """What makes logits of hidden states: the module's `get_output_embeddings()`, if it has one."""
    own = getattr(module, "get_output_embeddings", None)
    return None if own is None else own()


def wants_states(taps: Taps) -> bool:
    """Whether hidden states are asked for, or what is made of them."""
    return taps.final_hidden or bool(taps.hidden_states or taps.layer_logits)


def check_step(batch: Batch, taps: Taps, shows_states: bool, head: Any, method: str) -> None:
    """Raises NotSupportedError for vectors in place of ids, and for hidden states that a module does not show.

    Without a head there are no logits of them either.
    """
    if batch.vectors is not None:
        raise NotSupportedError("`inputs_embeds` must be left out for this model, got some. Pass `input_ids`.")
    if taps.attentions:
        raise NotSupportedError("`output_attentions` must be False for this model, got True. Call the model itself.")
    if taps.last_layer is not None:
        raise NotSupportedError("`assistant_early_exit` must be left out for this model: it runs as a whole.")
    if wants_states(taps) and not shows_states:
        raise NotSupportedError(
            f"`{method}` must take `output_hidden_states` for what was asked of generate(), and this model's does not. "
            "Give it that argument, and return `hidden_states`, or choose another way to decode."
        )
    if taps.layer_logits and head is None:
        raise NotSupportedError(
            "`get_output_embeddings` must give the model's head for `dola_layers`, got none. "
            "Define it, or leave them out."
        )
