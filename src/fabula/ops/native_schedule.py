"""From a graph to a program: which nodes become one instruction, and in which order."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from fabula.cache.native import NativeLayout
from fabula.kernels.program import (
    GROUP,
    Attention,
    Buffer,
    Instruction,
    Matrix,
    Operation,
    Program,
    Rope,
    Segment,
    Value,
)
from fabula.kernels.stored import Stored
from fabula.kernels.structures import SEGMENTS
from fabula.ops.native_graph import Node, StoredWeight, ancestors, gather_early, users_of
from fabula.ops.native_weights import NativeWeights
from fabula.ops.specs import AttentionSpec, RopeSpec

OUTLIER = 6.0  # times a row's root mean square: from there a group of activations has second codes
EVERYWHERE = 0.0  # every group has


def schedule(
    outputs: Sequence[Node], weights: NativeWeights, cache: NativeLayout, memory: NativeLayout | None = None
) -> Program:
    """The program that computes these nodes at the scored positions, in this order of outputs.

    `cache`: what is written to; `memory`: what is only read of an encoder.
    """
    return Scheduler(gather_early(outputs), weights, cache, memory).program()


class Scheduler:
    """Walks the nodes, inputs first, and emits instructions. Three things are fused, where a result has no other use:

    linears of one input go together; a linear takes the sum behind it along as its residual; and a gated pair of packed
    linears gives the quantized row that the next packed linear reads.
    """

    def __init__(
        self, outputs: Sequence[Node], weights: NativeWeights, cache: NativeLayout, memory: NativeLayout | None
    ) -> None:
        self.outputs = outputs
        self.weights = weights
        self.cache = cache
        self.memory = memory
        self.order = list(ancestors(outputs))
        self.users = users_of(self.order)
        self.instructions: list[Instruction] = []
        self.values: dict[Node, Value] = {}
        self.quantized: dict[Node, Value] = {}
        self.ropes: dict[RopeSpec, Rope] = {}
        self.numbers = {node: number for number, node in enumerate(outputs)}
        self.waiting = {linear for node in self.order if (linear := self._fused_linear(node)) is not None}

    def program(self) -> Program:
        for node in self.order:
            if node not in self.values and node not in self.waiting:
                self._emitters().get(node.operation, self._emit_rows)(node)
        results = [self._output(node) for node in self.outputs if node.operation != "store"]
        return Program(tuple(self.instructions), tuple(value.buffer for value in results))

    def _emitters(self) -> Mapping[str, Callable[[Node], None]]:
        return {
            "linear": self._emit_linears,
            "add": self._emit_add,
            "gate": self._emit_gate,
            "slice": self._emit_slice,
            "gather": self._emit_gather,
            "attend": self._emit_attend,
            "attend_memory": self._emit_attend_memory,
            "store": self._emit_store,
        }

    def _value(self, node: Node, by_rows: bool = True) -> Value:
        """A fresh buffer for a node."""
        number = self.numbers.get(node) if node.scored else None
        self.values[node] = Value(Buffer(node.width, node.scored, output=number, by_rows=by_rows), 0, node.width)
        return self.values[node]

    def _output(self, node: Node) -> Value:
        """Where an output lies: copied there if it is a part or a view of something else."""
        value = self.values[node]
        if value.buffer.output != self.numbers[node]:
            copy = Value(Buffer(node.width, True, output=self.numbers[node]), 0, node.width)
            self.instructions.append(Instruction(Operation.COPY, True, (value,), copy))
            return copy
        return value

    # What is fused.

    def _matrix(self, node: Node) -> Matrix:
        return self.weights.matrix(node.details["weight"])

    def _single_use(self, node: Node) -> bool:
        return len(self.users.get(node, ())) == 1 and node not in self.numbers

    def _fused_linear(self, node: Node) -> Node | None:
        """The linear that takes this sum along: one that nobody else reads."""
        if node.operation != "add" or node.inputs[0] is node.inputs[1]:
            return None
        for linear in reversed(node.inputs):
            if linear.operation == "linear" and self._single_use(linear):
                return linear
        return None

    def _gives_quantized(self, node: Node) -> bool:
        """Whether a gate's only use is as the quantized input of packed linears, and it comes in whole groups."""
        if node.operation != "gate" or node in self.numbers or node.width % GROUP:
            return False
        users = self.users.get(node, ())
        return (
            bool(users)
            and all(user.operation == "linear" and self._matrix(user).layout.packed for user in users)
            and all(self._single_use(each) and self._matrix(each).layout.packed for each in node.inputs)
            and all(each.details["bias"] is None for each in node.inputs)
        )

    # Inputs.

    def _input(self, node: Node, matrix: Matrix) -> Value:
        """What a matmul reads: floats, or the quantized row of them."""
        return self._quantized(node) if matrix.layout.packed else self.values[node]

    def _quantized(self, node: Node) -> Value:
        if node not in self.quantized:
            if node.operation == "gather" and self._packed_elsewhere(node.inputs[0]):
                whole = self._quantized(node.inputs[0])
                self.quantized[node] = Value(whole.buffer, whole.start, whole.width, gathered=True)
            else:
                value = Value(Buffer(node.width, node.scored, quantized=True), 0, node.width)
                far = self._far(node)
                self.instructions.append(
                    Instruction(Operation.QUANTIZE, node.scored, (self.values[node],), value, number=far)
                )
                self.quantized[node] = value
        return self.quantized[node]

    def _far(self, node: Node) -> float:
        """How far above its row a group of this quantized node has second codes."""
        users = self.users.get(node, ())
        early = any(user.operation == "linear" and user.details["weight"].early for user in users)
        return EVERYWHERE if early else OUTLIER

    def _packed_elsewhere(self, node: Node) -> bool:
        """Whether all positions of a node are quantized anyway."""
        users = self.users.get(node, ())
        return any(user.operation == "linear" and self._matrix(user).layout.packed for user in users)

    # Instructions.

    def _emit_linears(self, node: Node) -> None:
        """A linear, and with it those of the same input that are waiting for nothing else."""
        packed = self._matrix(node).layout.packed
        if any(self._gives_quantized(user) for user in self.users.get(node, ())):
            return
        together = [
            each
            for each in self.users[node.inputs[0]]
            if each.operation == "linear"
            and each not in self.values
            and each not in self.waiting
            and self._matrix(each).layout.packed == packed
            and not any(self._gives_quantized(user) for user in self.users.get(each, ()))
        ][:SEGMENTS]
        source = self._input(node.inputs[0], self._matrix(node))
        segments = tuple(Segment(self._matrix(each), self._value(each, False), self._bias(each)) for each in together)
        self.instructions.append(Instruction(Operation.MATMUL, node.scored, (source,), segments=segments))

    def _bias(self, node: Node) -> np.ndarray | None:
        bias = node.details["bias"]
        return None if bias is None else self.weights.vector(bias)

    def _emit_add(self, node: Node) -> None:
        linear = self._fused_linear(node)
        if linear is None or linear in self.values:
            self._emit_rows(node)
            return
        residual = node.inputs[0] if node.inputs[1] is linear else node.inputs[1]
        source = self._input(linear.inputs[0], self._matrix(linear))
        out = self._value(node, by_rows=False)
        segment = Segment(self._matrix(linear), out, self._bias(linear), self.values[residual])
        self.instructions.append(Instruction(Operation.MATMUL, node.scored, (source,), segments=(segment,)))

    def _emit_gate(self, node: Node) -> None:
        if not self._gives_quantized(node):
            self._emit_rows(node)
            return
        source = self._input(node.inputs[0].inputs[0], self._matrix(node.inputs[0]))
        out = Value(Buffer(node.width, node.scored, quantized=True, by_rows=False), 0, node.width)
        self.values[node] = self.quantized[node] = out
        segments = tuple(Segment(self._matrix(each)) for each in node.inputs)
        kind = node.details["kind"]
        self.instructions.append(
            Instruction(
                Operation.GATED_MATMUL, node.scored, (source,), out, segments, activation=kind, number=self._far(node)
            )
        )

    def _emit_slice(self, node: Node) -> None:
        whole = self.values[node.inputs[0]]
        self.values[node] = Value(whole.buffer, whole.start + node.details["start"], node.width, whole.gathered)

    def _emit_gather(self, node: Node) -> None:
        whole = self.values[node.inputs[0]]
        self.values[node] = Value(whole.buffer, whole.start, whole.width, gathered=True)

    def _emit_attend(self, node: Node) -> None:
        layer = node.details["layer"]
        spec, weight = layer.attention, node.details["bias"]
        bias = None if weight is None else self.weights.distances(weight, spec)
        attention = _attention(spec, self.cache.layers[layer.index], bias)
        inputs = tuple(self.values[each] for each in node.inputs)
        out = self._value(node, by_rows=False)
        operation = Operation.ATTEND if spec.causal else Operation.ATTEND_BOTH
        self.instructions.append(Instruction(operation, node.scored, inputs, out, attention=attention))

    def _emit_attend_memory(self, node: Node) -> None:
        layer = node.details["layer"]
        assert self.memory is not None
        attention = _attention(layer.memory, self.memory.layers[layer.index])
        query, out = self.values[node.inputs[0]], self._value(node, by_rows=False)
        self.instructions.append(Instruction(Operation.ATTEND_MEMORY, node.scored, (query,), out, attention=attention))

    def _emit_store(self, node: Node) -> None:
        layer = node.details["layer"]
        attention = _attention(layer.memory, self.cache.layers[layer.index])
        inputs = tuple(self.values[each] for each in node.inputs)
        self.instructions.append(Instruction(Operation.STORE, node.scored, inputs, attention=attention))

    def _emit_rows(self, node: Node) -> None:
        inputs = tuple(self.values[each] for each in node.inputs)
        operation = Operation[node.operation.upper()]
        extra = self._row_details(node)
        self.instructions.append(Instruction(operation, node.scored, inputs, self._value(node), **extra))

    def _row_details(self, node: Node) -> dict[str, Any]:
        details = node.details
        match node.operation:
            case "embed" | "embed_positions":
                return {"table": self.weights.table(details["weight"]), "number": details["scale"]}
            case "rms_norm":
                vector = self.weights.vector(details["weight"], details["offset"])
                return {"weights": (vector,), "group": len(vector), "number": details["eps"]}
            case "layer_norm":
                both = self.weights.vector(details["weight"]), self.weights.vector(details["bias"])
                return {"weights": both, "number": details["eps"]}
            case "rope":
                return {"rope": self._rope(details["rope"])}
            case "activate" | "gate":
                return {"activation": details["kind"]}
            case "softcap":
                return {"number": details["cap"]}
            case "scale":
                return {"number": details["factor"]}
        return {}

    def _rope(self, spec: RopeSpec) -> Rope:
        if spec not in self.ropes:
            self.ropes[spec] = Rope(spec.head_dim, spec.inverse_frequencies, spec.attention_factor)
        return self.ropes[spec]


def _attention(spec: AttentionSpec, stored: Stored, bias: np.ndarray | None = None) -> Attention:
    return Attention(spec.heads, spec.scale, spec.window, spec.softcap, stored, bias)


def linear_weights(outputs: Sequence[Node]) -> list[StoredWeight]:
    """The weights of the linears, in the order in which they are used."""
    nodes = ancestors(outputs)
    return list(dict.fromkeys(node.details["weight"] for node in nodes if node.operation == "linear"))
