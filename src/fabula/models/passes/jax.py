"""One pass of a family over a rectangle in JAX, as a function that is compiled once for each shape."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp

from fabula.cache.blocks import BLOCK
from fabula.cache.jax import State
from fabula.models.families.family import Family, Stack
from fabula.models.weights.jax import Plan, Weights
from fabula.ops.jax import Inputs, JaxOps, Shared
from fabula.ops.jax_layers import Passed, run_layers
from fabula.ops.jax_sources import BlockSource, DenseSource, OwnSource, Source
from fabula.taps import NO_TAPS, Taps

Array = jax.Array

__all__ = ["Outputs", "Program", "Rows"]


@dataclass(frozen=True, slots=True)
class Rows:
    """A rectangle of R rows and N positions, as a program is given it. A pytree; see ops/rectangles.py."""

    tokens: Any  # Int["R N"]
    positions: Any  # Int["R N"]
    slots: Any = None  # Int["R N"]
    tables: Any = None  # of each group of layers Int["R B"]: the blocks that are read
    starts: Any = None  # of each Int["R"]: the position at which the first of them begins
    scored: Any = None  # Int["S"]; None: all
    vectors: Any = None  # Float["T D"]
    chosen: Any = None  # Bool["T"]: where the vectors count; None: everywhere
    embedded: Any = None  # Int["R N"]: positions for the position embedding, where they are others
    memory: Any = None  # MemoryRows or OwnMemories: what an encoder left for the rows

    def inputs(self) -> Inputs:
        """What the operations see of it."""
        return Inputs(self.tokens, self.positions, self.scored, self.vectors, self.chosen, self.embedded, self.memory)


@dataclass(frozen=True, slots=True)
class Outputs:
    """What a program gives for S scored positions. A pytree."""

    logits: Any  # Float32["S V"]; None: an encoder has none
    hidden: Any = None  # Float["S D"]: after the last norm
    states: dict[int, Any] = field(default_factory=dict)  # layer -> Float["S D"]
    attentions: dict[int, Any] = field(default_factory=dict)  # layer -> Float["R heads N K"]
    layer_logits: dict[int, Any] = field(default_factory=dict)  # layer -> Float32["S V"]
    memory_attentions: dict[int, Any] = field(default_factory=dict)  # layer -> Float["R heads N S"]


for _class in (Rows, Outputs):
    jax.tree_util.register_dataclass(_class, data_fields=list(_class.__slots__), meta_fields=[])


class Program:
    """A family's passes. Compiled for each shape and set of taps; `compiled` counts how often."""

    def __init__(self, family: Stack, plan: Plan) -> None:
        self.family = family
        self.plan = plan
        self.compiled = 0  # passes over blocks that were traced
        self._in_blocks = jax.jit(self._over_blocks, static_argnames="taps", donate_argnames="state")
        self._alone = jax.jit(self._over_itself, static_argnames="taps")

    def in_blocks(self, weights: Weights, state: Any, rows: Rows, taps: Taps = NO_TAPS) -> tuple[Outputs, Any]:
        """What the rows give, and the cache's state with their keys and values; the given state is used up."""
        return self._in_blocks(weights=weights, state=state, rows=rows, taps=taps)

    def alone(self, weights: Weights, rows: Rows, valid: Array | None, taps: Taps = NO_TAPS) -> Outputs:
        """What rows give that are whole, without a cache; `valid` Bool["R N"]: which positions are tokens."""
        return self._alone(weights=weights, rows=rows, valid=valid, taps=taps)

    def in_dense(
        self,
        weights: Weights,
        memory: Any,
        tokens: Array,
        positions: Array,
        state: State,
        layers: tuple[int, ...] = (),
    ) -> tuple[Any, State]:
        """Traced: logits Float32["R V"] of one token a row Int["R"] at positions Int["R"], and the state after it.

        `memory`: OwnMemories, if there is an encoder; `state`: keys and values, each an array a group of layers
        [layers, R, heads, L, features]. `layers`: after which so many layers the head is asked too; then the logits are
        a list, the last layer's first.
        """
        outputs, state = self._over_dense(weights, memory, tokens, positions, state, Taps(layer_logits=layers))
        early = [outputs.layer_logits[layer] for layer in layers]
        return [outputs.logits, *early] if early else outputs.logits, state

    def shown_in_dense(
        self, weights: Weights, memory: Any, tokens: Array, positions: Array, state: State
    ) -> tuple[tuple[Array, Array], State]:
        """Traced: the same, and behind the logits the final hidden states Float["R D"]."""
        outputs, state = self._over_dense(weights, memory, tokens, positions, state, Taps(final_hidden=True))
        return (outputs.logits, outputs.hidden), state

    def _over_dense(
        self, weights: Weights, memory: Any, tokens: Array, positions: Array, state: State, taps: Taps
    ) -> tuple[Outputs, State]:
        rows = Rows(tokens[:, None], positions[:, None], memory=memory)
        return self.traced(weights, rows, DenseSource(state, positions[:, None]), taps)

    def turned(self, weights: Weights) -> tuple[Program, Weights]:
        """Traced: the same passes with every matrix of a layer as [out, in], and their weights."""
        plan, weights = self.plan.turned(weights)
        return Program(self.family, plan), weights

    def _over_blocks(self, weights: Weights, state: Any, rows: Rows, taps: Taps) -> tuple[Outputs, Any]:
        self.compiled += 1  # runs while it is traced
        return self.traced(weights, rows, BlockSource(state, rows.slots, rows.tables, rows.starts, BLOCK), taps)

    def _over_itself(self, weights: Weights, rows: Rows, valid: Array | None, taps: Taps) -> Outputs:
        return self.traced(weights, rows, OwnSource(rows.positions, valid), taps)[0]

    def traced(self, weights: Weights, rows: Rows, source: Source, taps: Taps = NO_TAPS) -> tuple[Outputs, Any]:
        """The pass itself, in whatever trace; `source` says where keys and values lie."""
        family, inputs, outside = self.family, rows.inputs(), self.plan.prepared_outside(weights.outside)
        ops = JaxOps(inputs, Shared(inputs, (), source, jnp.float32), source)
        wanted = {*taps.hidden_states, *taps.layer_logits}
        passed = run_layers(
            family,
            inputs,
            source,
            family.embed(ops, outside),
            self.plan.periods,
            weights.stacks,
            partial(self.plan.prepared, weights.shared),
            states=wanted,
            attentions=taps.attentions,
            last=taps.last_layer,
        )
        return self._outputs(ops, passed, outside, taps), source.state

    def _outputs(self, ops: JaxOps, passed: Passed, outside: SimpleNamespace, taps: Taps) -> Outputs:
        hidden = self.family.final(ops, ops.scored(passed.x), outside)
        logits = partial(self._logits, ops, outside)
        return Outputs(
            logits(hidden),
            hidden if taps.final_hidden else None,
            {layer: passed.states[layer] for layer in taps.hidden_states},
            passed.attentions,
            {layer: logits(passed.states[layer]) for layer in taps.layer_logits},
            passed.memory_attentions,
        )

    def _logits(self, ops: JaxOps, outside: SimpleNamespace, hidden: Array) -> Array | None:
        if not isinstance(self.family, Family):
            return None
        return self.family.logits(ops, hidden, outside).astype(jnp.float32)
