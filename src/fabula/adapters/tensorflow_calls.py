"""One call of a module of TensorFlow or Keras: ids go in, logits come out, and what it keeps for its next call."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from fabula.errors import ArgumentError, NotSupportedError
from fabula.taps import Taps

Tensor = Any  # a tf.Tensor


@dataclass(frozen=True, slots=True)
class Called:
    """What a call of R rows and N new columns gave."""

    logits: Tensor  # Float["R N V"]
    past: Any = None  # to be handed to the next call
    hidden: tuple[Tensor, ...] | None = None  # the embeddings, then each layer: Float["R N D"]


def call_module(
    module: Any, ids: np.ndarray, lengths: np.ndarray, past: Any = None, before: int = 0, hidden: bool = False
) -> Called:
    """Computes the columns of ids Int["R C"] from `before` on; `past` is what a call left of those before.

    Row r has lengths[r] tokens; what follows is padding.
    """
    accepts = arguments(module)
    rows, columns = ids.shape
    positions = np.broadcast_to(np.arange(before, columns), (rows, columns - before))
    given = {
        "attention_mask": (np.arange(columns) < lengths[:, None]).astype(np.int32),
        "position_ids": positions.astype(np.int32),
        "past_key_values": past,
        "use_cache": keeps(module),
        "output_hidden_states": hidden,
        "training": False,
    }
    wanted = {name: _tensor(value) for name, value in given.items() if name in accepts}
    output = module(tf.constant(ids[:, before:], tf.int32), **wanted)
    logits = _logits(output)
    if len(logits.shape) != 3 or tuple(logits.shape[:2]) != (rows, columns - before):
        raise ArgumentError(
            f"`__call__` must return logits of the shape [rows, columns, vocabulary], here "
            f"[{rows}, {columns - before}, V], got {list(logits.shape)}. Return them for every column that it is given."
        )
    kept = _named(output, "past_key_values", 1) if keeps(module) else None
    return Called(tf.cast(logits, tf.float32), kept, _named(output, "hidden_states", None))


def arguments(module: Any) -> frozenset[str]:
    """The names of what a call takes, the first one aside: that gets the ids."""
    call = module.call if hasattr(module, "call") else module.__call__
    parameters = list(inspect.signature(call).parameters.values())
    named = {inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY}
    return frozenset(one.name for one in parameters[1:] if one.kind in named)


def keeps(module: Any) -> bool:
    """Whether the module has a cache of its own."""
    return {"past_key_values", "use_cache"} <= arguments(module)


def is_of_rows(past: Any, rows: int) -> bool:
    """Whether what a module keeps is tensors, in tuples, lists and dicts, whose first axis may be that of the rows."""
    parts = [part for part in tf.nest.flatten(past) if part is not None]
    return bool(parts) and all(isinstance(one, tf.Tensor) and len(one.shape) and one.shape[0] == rows for one in parts)


def chosen_rows(past: Any, rows: np.ndarray) -> Any:
    """What a module keeps of the rows Int["R"], which may occur several times."""
    return tf.nest.map_structure(lambda part: None if part is None else tf.gather(part, rows), past)


def check_taps(module: Any, taps: Taps) -> None:
    """Raises NotSupportedError for what the module does not show."""
    if taps.attentions:
        raise NotSupportedError("`output_attentions` must be False for this model, got True. Call the model itself.")
    if taps.last_layer is not None:
        raise NotSupportedError("`assistant_early_exit` must be left out for this model: it runs as a whole.")
    if (taps.final_hidden or taps.hidden_states or taps.layer_logits) and "output_hidden_states" not in arguments(
        module
    ):
        raise NotSupportedError(
            "`__call__` must take `output_hidden_states` for what was asked of generate(), and this model's does not. "
            "Give it that argument, and return `hidden_states`, or choose another way to decode."
        )
    if taps.layer_logits and head_of(module) is None:
        raise NotSupportedError(
            "`get_output_embeddings` must give the model's head for `dola_layers`, got none. "
            "Define it, or leave them out."
        )


def head_of(module: Any) -> Any:
    """What makes logits of hidden states: the module's `get_output_embeddings()`, if it has one."""
    own = getattr(module, "get_output_embeddings", None)
    return None if own is None else own()


def _tensor(value: Any) -> Any:
    return tf.constant(value) if isinstance(value, np.ndarray) else value


def _logits(output: Any) -> Tensor:
    """The logits in what a module returns. Raises ArgumentError where there are none."""
    logits = output if isinstance(output, tf.Tensor) else _named(output, "logits", 0)
    if not isinstance(logits, tf.Tensor):
        raise ArgumentError(
            f"`__call__` must return logits, or an object or tuple with them, got {type(output).__name__}. "
            "Return a tensor of the shape [rows, columns, vocabulary]."
        )
    return logits


def _named(output: Any, name: str, place: int | None) -> Any:
    """A part of an output by its name, its key, or its place in a tuple."""
    if isinstance(output, Mapping):
        return output.get(name)
    if isinstance(output, (tuple, list)) and not hasattr(output, name):
        return output[place] if place is not None and place < len(output) else None
    return None if isinstance(output, tf.Tensor) else getattr(output, name, None)
