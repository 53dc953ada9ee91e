"""One rectangle of rows through a family's layers: a program of TensorFlow, compiled by XLA once for each shape."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import tensorflow as tf

from fabula.cache.groups import LayerGroup
from fabula.cache.tensorflow import Held
from fabula.models.families.family import Family
from fabula.models.weights.tensorflow import Weights
from fabula.ops.periods import shortened
from fabula.ops.tensorflow import Frame, TensorFlowOps
from fabula.ops.tensorflow_layers import Shown, scanned
from fabula.taps import Taps

Tensor = Any  # a tf.Tensor
Stored = Sequence[Held] | None  # of each group of layers; None: nothing is stored


@dataclass(frozen=True, slots=True)
class Computed:
    """What a pass over a rectangle of R rows and N columns leaves, S positions of it scored."""

    logits: Tensor  # Float["S V"]: float32; None: an encoder has none
    hidden: Tensor | None  # Float["S D"]: after the last norm, if tapped
    keys: Tensor  # what is to be stored, Float["layers R N heads features"]; None: an encoder's are for nobody else
    values: Tensor
    states: dict[int, Tensor]  # tapped layer -> Float["S D"]
    early: dict[int, Tensor]  # tapped layer -> Float["S V"]: what the head makes of its output, float32
    attentions: dict[int, Tensor]  # tapped layer -> Float["R heads N keys"]
    memory_attentions: dict[int, Tensor]  # tapped layer -> Float["R heads N columns"], over an encoder's


def compute(weights: Weights, frame: Frame, stored: Stored, taps: Taps, groups: Sequence[LayerGroup] = ()) -> Computed:
    """The pass, eagerly or inside a trace. Nothing is written: new keys and values are among what it returns.

    `groups`: how the layers' are stored; none: they are not.
    """
    family, outside = weights.family, weights.outside
    ops = TensorFlowOps(frame, family.layers, stored, groups, outside.embed.dtype)
    x = family.embed(ops, outside)
    plan = shortened(weights.periods, taps.last_layer)
    states = (*taps.hidden_states, *taps.layer_logits)
    found = scanned(family, ops, x, plan, weights, stored, Shown(states, taps.attentions))
    hidden = family.final(ops, ops.scored(found.x), outside)

    def logits(x: Tensor) -> Tensor:
        assert isinstance(family, Family)
        return tf.cast(family.logits(ops, x, outside), tf.float32)

    def state(layer: int) -> Tensor:
        """What `layer` layers give, at the scored positions."""
        inputs = found.states
        return ops.scored(found.x) if inputs is None or layer >= inputs.shape[0] else inputs[layer]

    generates = isinstance(family, Family)
    return Computed(
        logits(hidden) if generates else None,
        hidden if taps.final_hidden else None,
        found.keys if generates else None,
        found.values if generates else None,
        {layer: state(layer) for layer in taps.hidden_states},
        {layer: logits(state(layer)) for layer in taps.layer_logits},
        {} if found.weights is None else {layer: found.weights[layer] for layer in taps.attentions},
        {} if found.memory_weights is None else {layer: found.memory_weights[layer] for layer in taps.attentions},
    )


class Programs:
    """A model's compiled passes, one for each shape and for what is tapped."""

    def __init__(self, weights: Weights) -> None:
        self.weights = weights
        self.width = int(weights.outside.embed.shape[-1])
        self.xla = True  # whether XLA compiles them; else TensorFlow runs their operations itself
        self.compiled: dict[tuple[Any, ...], Callable[..., Any]] = {}

    def run(self, frame: Frame, stored: Stored, taps: Taps, groups: Sequence[LayerGroup]) -> Computed:
        """A pass of the model's own layers."""
        return self.compute(self.weights, frame, stored, taps, groups)

    def compute(
        self, weights: Weights, frame: Frame, stored: Stored, taps: Taps, groups: Sequence[LayerGroup] = ()
    ) -> Computed:
        """What the function of this name gives, which a tf.GradientTape can follow and which is not compiled."""

        def pass_of(frame: Frame, stored: Stored) -> dict[str, Any]:
            computed = compute(weights, frame, stored, taps, groups)
            return {field.name: getattr(computed, field.name) for field in fields(computed)}

        return Computed(**self.called((weights, taps, tuple(groups)), pass_of, frame, stored))

    def called(self, name: Hashable, function: Callable[..., Any], *given: Any) -> Any:
        """`function(*given)`, compiled once for each name and for each shape of the tensors it is given."""
        key = (name, *(None if one is None else one.shape for one in tf.nest.flatten(given)))
        program = self.compiled.get(key)
        if program is None:
            compiled = tf.function(function, jit_compile=self.xla, autograph=False)
            program = self.compiled[key] = compiled.get_concrete_function(*given)
        return program(*given)
