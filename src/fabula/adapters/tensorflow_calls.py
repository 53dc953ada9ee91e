"""One call of a module of TensorFlow or Keras: ids go in, logits come out, and what it keeps for its next call."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from fabula.adapters.calls import arguments, check_shape, logits_of, named

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
    accepts = accepted(module)
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
    logits = logits_of(output, tf.Tensor, "__call__")
    check_shape(logits, rows, [columns - before], "__call__")
    kept = named(output, "past_key_values", 1) if keeps(module) else None
    return Called(tf.cast(logits, tf.float32), kept, named(output, "hidden_states", None))


def accepted(module: Any) -> frozenset[str]:
    """The names of what the module's call takes beside the ids."""
    return arguments(module.call if hasattr(module, "call") else module.__call__)


def keeps(module: Any) -> bool:
    """Whether the module has a cache of its own."""
    return {"past_key_values", "use_cache"} <= accepted(module)


def is_of_rows(past: Any, rows: int) -> bool:
    """Whether what a module keeps is tensors, in tuples, lists and dicts, whose first axis may be that of the rows."""
    parts = [part for part in tf.nest.flatten(past) if part is not None]
    return bool(parts) and all(isinstance(one, tf.Tensor) and len(one.shape) and one.shape[0] == rows for one in parts)


def chosen_rows(past: Any, rows: np.ndarray) -> Any:
    """What a module keeps of the rows Int["R"], which may occur several times."""
    return tf.nest.map_structure(lambda part: None if part is None else tf.gather(part, rows), past)


def _tensor(value: Any) -> Any:
    return tf.constant(value) if isinstance(value, np.ndarray) else value
