"""One call of a module of Flax, compiled where it can be: ids go in, logits come out, and what it keeps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from fabula.adapters.calls import arguments, check_shape, logits_of, named

Array = jax.Array

_NOT_COMPILED = (jax.errors.JAXTypeError, jax.errors.JAXIndexError, TypeError)  # what a trace of host code raises


@dataclass(frozen=True, slots=True)
class Called:
    """What a call of R rows and N new columns gave."""

    logits: np.ndarray  # Float32["R N V"]
    past: Any = None  # to be handed to the next call
    hidden: tuple[np.ndarray, ...] | None = None  # the embeddings, then each layer: Float["R N D"]


class Caller:
    """Calls one module as it is now; its parameters are read anew at each call."""

    def __init__(self, module: Any) -> None:
        self._graph: Any = None
        self._compiled: Any = None
        self._eager = False  # whether a trace has failed
        self.accepts = accepted(module)

    @property
    def keeps(self) -> bool:
        """Whether the module has a cache of its own, which it grows."""
        return {"past_key_values", "use_cache"} <= self.accepts

    def starts(self, module: Any) -> bool:
        """Whether the module has a cache of its own of a length that is given: `init_cache(rows, length)`, as in v4."""
        return "past_key_values" in self.accepts and hasattr(module, "init_cache")

    def __call__(
        self,
        module: Any,
        ids: np.ndarray,
        lengths: np.ndarray,
        past: Any = None,
        before: int = 0,
        hidden: bool = False,
        room: int | None = None,
    ) -> Called:
        """Computes the columns of ids Int["R C"] from `before` on; `past` is what a call left of those before.

        Row r has lengths[r] tokens; what follows is padding. `room`: the columns of a cache that `init_cache` made.
        """
        rows, columns = ids.shape
        whole = columns if room is None else room
        given = {
            "attention_mask": (np.arange(whole) < (lengths[:, None] if room is None else whole)).astype(np.int32),
            "position_ids": np.broadcast_to(np.arange(before, columns, dtype=np.int32), (rows, columns - before)),
            "past_key_values": past,
        }
        fixed = {"use_cache": self.keeps, "output_hidden_states": hidden}
        fixed |= {"train": False, "training": False, "deterministic": True}
        wanted = {name: value for name, value in given.items() if name in self.accepts}
        settings = tuple((name, value) for name, value in fixed.items() if name in self.accepts)
        output = self._called(module, np.ascontiguousarray(ids[:, before:], np.int32), wanted, settings)
        return _read(output, (rows, columns - before), self.keeps or room is not None)

    def _called(self, module: Any, ids: np.ndarray, given: dict[str, Any], settings: tuple[Any, ...]) -> Any:
        graph, state = _parts(module, self.accepts)
        if self._compiled is None or graph != self._graph:
            self._graph, self._compiled = graph, _compiled(graph)
        if not self._eager:
            try:
                return self._compiled(state, ids, given, settings=settings)
            except _NOT_COMPILED:
                self._eager = True  # host code, such as an `if` on values; and if it is another error, it comes again
        return _applied(graph, state, jnp.asarray(ids), given, settings)


def state_of(module: Any) -> list[Any]:
    """The arrays that a module computes with."""
    return jax.tree.leaves(_parts(module, accepted(module))[1])


def _parts(module: Any, accepts: frozenset[str]) -> tuple[Any, Any]:
    """What a module is, and the arrays that it computes with: a tree of Flax, or `params` that its call takes."""
    if isinstance(module, nnx.Module):
        return nnx.split(module)
    return module, getattr(module, "params", None) if "params" in accepts else None


def _compiled(graph: Any) -> Any:
    def run(state: Any, ids: Array, given: dict[str, Any], settings: tuple[Any, ...]) -> Any:
        return _plain(_applied(graph, state, ids, given, settings))

    return jax.jit(run, static_argnames="settings")


def _applied(graph: Any, state: Any, ids: Array, given: dict[str, Any], settings: tuple[Any, ...]) -> Any:
    if isinstance(graph, nnx.GraphDef):
        module = nnx.merge(graph, state)
        module.eval()  # this copy: without dropout
        return module(ids, **given, **dict(settings))
    return graph(ids, **given, **dict(settings), **({} if state is None else {"params": state}))


def _plain(output: Any) -> dict[str, Any]:
    """What is read of an output, as a dictionary, which a compiled function may return."""
    names = {"logits": 0, "past_key_values": 1, "hidden_states": None}
    if isinstance(output, jax.Array):
        return {"logits": output}
    return {name: named(output, name, place) for name, place in names.items()}


def _read(output: Any, rectangle: tuple[int, int], keeps: bool) -> Called:
    """The parts of an output. Raises ArgumentError where there are no logits for every column."""
    parts = output if isinstance(output, dict) else _plain(output)
    logits = logits_of(parts.get("logits"), (jax.Array, np.ndarray), "__call__")
    check_shape(logits, rectangle[0], [rectangle[1]], "__call__")
    states = parts.get("hidden_states")
    hidden = None if states is None else tuple(np.asarray(state, np.float32) for state in states)
    return Called(np.asarray(logits, np.float32), parts.get("past_key_values") if keeps else None, hidden)


def accepted(module: Any) -> frozenset[str]:
    """The names of what the module's call takes beside the ids."""
    return arguments(module.__call__)
