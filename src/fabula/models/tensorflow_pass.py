"""One rectangle of rows through a family's layers: a program of TensorFlow, compiled by XLA once for each shape."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import tensorflow as tf

from fabula.models.tensorflow_weights import Weights
from fabula.ops.periods import shortened
from fabula.ops.rectangles import Rectangle
from fabula.ops.tensorflow import Frame, TensorFlowOps
from fabula.ops.tensorflow_layers import Shown, scanned
from fabula.taps import Taps

Tensor = Any  # a tf.Tensor
Stored = tuple[Tensor, Tensor] | None  # keys and values, Float["R B layers P heads features"]
Vectors = tuple[np.ndarray, np.ndarray] | None  # Float["R N D"] and where they are, Bool["R N"]


@dataclass(frozen=True, slots=True)
class Computed:
    """What a pass over a rectangle of R rows and N columns leaves, S positions of it scored."""

    logits: Tensor  # Float["S V"]: float32
    hidden: Tensor | None  # Float["S D"]: after the last norm, if tapped
    keys: Tensor  # Float["layers R N heads features"]: new ones
    values: Tensor
    states: dict[int, Tensor]  # tapped layer -> Float["S D"]
    early: dict[int, Tensor]  # tapped layer -> Float["S V"]: what the head makes of its output, float32
    attentions: dict[int, Tensor]  # tapped layer -> Float["R heads N keys"]


def compute(weights: Weights, frame: Frame, stored: Stored, taps: Taps) -> Computed:
    """The pass, eagerly or inside a trace. Nothing is written: new keys and values are among what it returns."""
    family, outside = weights.family, weights.outside
    positions = 0 if stored is None else stored[0].shape[1] * stored[0].shape[3]
    ops = TensorFlowOps(frame, family.layers, positions, outside.embed.dtype)
    x = family.embed(ops, outside)
    plan = shortened(weights.periods, taps.last_layer)
    states = (*taps.hidden_states, *taps.layer_logits)
    found = scanned(family, ops, x, plan, weights, stored, Shown(states, taps.attentions))
    hidden = family.final(ops, ops.scored(found.x), outside)

    def logits(x: Tensor) -> Tensor:
        return tf.cast(family.logits(ops, x, outside), tf.float32)

    def state(layer: int) -> Tensor:
        """What `layer` layers give, at the scored positions."""
        inputs = found.states
        return ops.scored(found.x) if inputs is None or layer >= inputs.shape[0] else inputs[layer]

    return Computed(
        logits(hidden),
        hidden if taps.final_hidden else None,
        found.keys,
        found.values,
        {layer: state(layer) for layer in taps.hidden_states},
        {layer: logits(state(layer)) for layer in taps.layer_logits},
        {} if found.weights is None else {layer: found.weights[layer] for layer in taps.attentions},
    )


class Programs:
    """A model's compiled passes, one for each shape and for what is tapped."""

    def __init__(self, weights: Weights) -> None:
        self.weights = weights
        self.width = int(weights.outside.embed.shape[-1])
        self.xla = True  # whether XLA compiles them; else TensorFlow runs their operations itself
        self.compiled: dict[tuple[Any, ...], Callable[..., Any]] = {}

    def run(self, part: Rectangle, stored: Stored, taps: Taps, vectors: Vectors = None) -> Computed:
        """What `compute` gives."""
        key = (taps, part.shape if stored is not None else (*part.shape[:2], 0, part.shape[3]), vectors is not None)
        program, given = self.compiled.get(key), _given(part, vectors)
        if program is None:
            program = self.compiled[key] = self._compiled(taps).get_concrete_function(given, stored)
        return Computed(**program(given, stored))

    def run_plainly(self, part: Rectangle, stored: Stored, taps: Taps, vectors: Vectors = None) -> Computed:
        """The same, operation by operation, so that a tf.GradientTape can follow."""
        return compute(self.weights, Frame(*_given(part, vectors)), stored, taps)

    def _compiled(self, taps: Taps) -> Any:
        @tf.function(jit_compile=self.xla, autograph=False)
        def program(given: tuple[Tensor, ...], stored: Stored) -> dict[str, Any]:
            computed = compute(self.weights, Frame(*given), stored, taps)
            return {field.name: getattr(computed, field.name) for field in fields(computed)}

        return program


def _given(part: Rectangle, vectors: Vectors) -> tuple[Tensor, ...]:
    """The fields of a `Frame`."""
    return tuple(map(tf.constant, (part.tokens, part.positions, part.lengths, part.scored, *(vectors or ()))))
