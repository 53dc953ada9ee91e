"""Records a family's forward pass as a graph: what is computed from what, not yet how."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from fabula.errors import NotSupportedError
from fabula.ops.protocol import Activation
from fabula.ops.specs import LayerSpec, RopeSpec
from fabula.quant.formats import StoredTensor

NORMS = ("rms_norm", "layer_norm")
ROW_WISE = frozenset(
    (
        *("embed", "embed_positions", "linear", *NORMS, "slice", "add", "scale"),
        *("rope", "activate", "gate", "softcap", "attend_memory"),
    )
)


@dataclass(frozen=True, eq=False, slots=True)
class StoredWeight:
    """A weight that a family names; what it is prepared for follows from how it is used."""

    tensor: StoredTensor
    transposed: bool = False  # stored [in, out]
    head: bool = False  # gives the logits
    early: bool = False  # of one of the first layers, whose rounding all others see

    @property
    def shape(self) -> tuple[int, ...]:
        """As it is used: [out, in]."""
        return self.tensor.shape[::-1] if self.transposed else self.tensor.shape


@dataclass(frozen=True, eq=False, slots=True)
class Node:
    """One result: `width` features of every position, or of every scored one."""

    operation: str
    inputs: tuple[Node, ...]
    width: int
    scored: bool = False
    details: Mapping[str, Any] = field(default_factory=dict)  # what else the operation needs


class RecordingOps:
    """The operations of ops/protocol.py over nodes."""

    def embed(self, weight: StoredWeight, scale: float = 1.0) -> Node:
        return Node("embed", (), weight.shape[1], details={"weight": weight, "scale": scale})

    def embed_positions(self, weight: StoredWeight) -> Node:
        return Node("embed_positions", (), weight.shape[1], details={"weight": weight, "scale": 1.0})

    def linear(self, x: Node, weight: StoredWeight, bias: StoredWeight | None = None) -> Node:
        assert weight.shape[1] == x.width, (weight.tensor.name, weight.shape, x.width)
        return Node("linear", (x,), weight.shape[0], x.scored, {"weight": weight, "bias": bias})

    def rms_norm(self, x: Node, weight: StoredWeight, eps: float, offset: float = 0.0) -> Node:
        return Node("rms_norm", (x,), x.width, x.scored, {"weight": weight, "eps": eps, "offset": offset})

    def layer_norm(self, x: Node, weight: StoredWeight, bias: StoredWeight, eps: float) -> Node:
        return Node("layer_norm", (x,), x.width, x.scored, {"weight": weight, "bias": bias, "eps": eps})

    def split(self, x: Node, sizes: Sequence[int]) -> tuple[Node, ...]:
        starts = [sum(sizes[:i]) for i in range(len(sizes))]
        return tuple(
            Node("slice", (x,), size, x.scored, {"start": start}) for start, size in zip(starts, sizes, strict=True)
        )

    def add(self, x: Node, y: Node) -> Node:
        return Node("add", (x, y), x.width, x.scored)

    def rope(self, x: Node, rope: RopeSpec) -> Node:
        return Node("rope", (x,), x.width, x.scored, {"rope": rope})

    def scale(self, x: Node, factor: float) -> Node:
        return Node("scale", (x,), x.width, x.scored, {"factor": factor})

    def attend_memory(self, layer: LayerSpec, q: Node) -> Node:
        return Node("attend_memory", (q,), q.width, q.scored, {"layer": layer})

    def store(self, layer: LayerSpec, k: Node, v: Node) -> Node:
        """Writes k and v to a memory: nothing that another node reads."""
        return Node("store", (k, v), 0, details={"layer": layer})

    def attend(self, layer: LayerSpec, q: Node, k: Node, v: Node, bias: StoredWeight | None = None) -> Node:
        if not layer.attention.causal and layer.attention.window is not None:
            raise NotSupportedError("the native backend has windows in causal layers only. Load with backend='torch'.")
        width = layer.attention.heads * layer.attention.head_dim
        return Node("attend", (q, k, v), width, q.scored, {"layer": layer, "bias": bias})

    def activate(self, x: Node, kind: Activation) -> Node:
        return Node("activate", (x,), x.width, x.scored, {"kind": kind})

    def gated_mlp(self, x: Node, gate: StoredWeight, up: StoredWeight, kind: Activation) -> Node:
        both = self.linear(x, gate), self.linear(x, up)
        return Node("gate", both, both[0].width, x.scored, {"kind": kind})

    def scored(self, x: Node) -> Node:
        return x if x.scored else Node("gather", (x,), x.width, scored=True)

    def softcap(self, x: Node, cap: float) -> Node:
        return Node("softcap", (x,), x.width, x.scored, {"cap": cap})


def ancestors(nodes: Iterable[Node]) -> dict[Node, None]:
    """These nodes and all that they are computed from, inputs first."""
    order: dict[Node, None] = {}
    stack = [(node, False) for node in reversed(list(nodes))]
    while stack:
        node, inputs_done = stack.pop()
        if node in order:
            continue
        if inputs_done:
            order[node] = None
        else:
            stack.append((node, True))
            stack.extend((each, False) for each in reversed(node.inputs))
    return order


def gather_early(outputs: Sequence[Node]) -> list[Node]:
    """The same outputs, with `gather` moved before all that only scored positions need.

    What a later layer's keys and values depend on is needed at every position; the rest of the last layer is not.
    """
    everywhere = ancestors(
        part for node in ancestors(outputs) if node.operation == "attend" for part in node.inputs[1:]
    )
    moved: dict[Node, Node] = {}

    def at_scored(node: Node) -> Node:
        if node.scored:
            return rebuilt(node)
        if node not in moved:
            moved[node] = _gathered(node, everywhere, at_scored)
        return moved[node]

    done: dict[Node, Node] = {}

    def rebuilt(node: Node) -> Node:
        if node not in done:
            if node.operation == "gather":
                done[node] = at_scored(node.inputs[0])
            elif node.scored:
                done[node] = replace(node, inputs=tuple(at_scored(each) for each in node.inputs))
            else:
                done[node] = node
        return done[node]

    return [rebuilt(node) for node in outputs]


def _gathered(node: Node, everywhere: Mapping[Node, None], at_scored: Any) -> Node:
    """A node at the scored positions only, computed there if nobody needs it elsewhere."""
    if node in everywhere or node.operation not in (*ROW_WISE, "attend"):
        return Node("gather", (node,), node.width, scored=True)
    if node.operation == "attend":
        query, key, value = node.inputs
        return replace(node, inputs=(at_scored(query), key, value), scored=True)
    return replace(node, inputs=tuple(at_scored(each) for each in node.inputs), scored=True)


def users_of(order: Iterable[Node]) -> dict[Node, list[Node]]:
    """Who reads each node."""
    users: dict[Node, list[Node]] = {}
    for node in order:
        for each in node.inputs:
            users.setdefault(each, []).append(node)
    return users
