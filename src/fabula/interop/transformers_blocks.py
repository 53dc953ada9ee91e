"""Models of transformers over our blocks: rows of any lengths end to end in one call, nothing padded, nothing moved."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from fabula.adapters.calls import check_step, wants_states
from fabula.adapters.torch_calls import ModuleCall
from fabula.adapters.torch_ways import alone, evaluating, same_logits
from fabula.cache.blocks import BLOCK, blocks_for
from fabula.cache.kinds import DYNAMIC, CacheKind
from fabula.cache.torch import TorchCache
from fabula.cache.torch_kinds import new_torch_cache
from fabula.errors import NotSupportedError
from fabula.interop.transformers_attention import Asked, attending, configs_of
from fabula.ops.protocol import NO_TAPS, Batch, Forward, Taps
from fabula.ops.specs import AttentionSpec, LayerSpec
from fabula.ops.torch import TorchOps
from fabula.ops.torch_layout import Layout, build_layout

__all__ = ["OverBlocks", "over_blocks_of"]

TURNS_WITH_LENGTH = frozenset({"dynamic", "longrope"})  # ropes whose angles depend on the longest row of a call


@dataclass(frozen=True, slots=True)
class OverBlocks:
    """A model whose layers, all of them, attend through transformers' interface."""

    module: Any
    takes: frozenset[str]  # the arguments of its forward
    configs: Sequence[Any]  # that say how its layers attend
    layers: tuple[LayerSpec, ...]
    head: Any  # what makes logits of hidden states, if it can be had alone

    @property
    def windows(self) -> tuple[int | None, ...]:
        """The different ones."""
        return tuple(dict.fromkeys(layer.attention.window for layer in self.layers))

    def new_storage(self, kind: CacheKind, blocks: int) -> TorchCache:
        """Storage of this kind for so many blocks of keys and values, where the parameters are."""
        heads = [(layer.attention.kv_heads, layer.attention.head_dim) for layer in self.layers]
        return new_torch_cache(kind, heads, blocks, self.module.dtype, self.module.device)

    @torch.no_grad()
    def step(self, batch: Batch, cache: TorchCache, taps: Taps = NO_TAPS) -> Forward:
        """Computes a batch's positions, stores their keys and values, and scores what it wants scored.

        Raises NotSupportedError for vectors in place of ids, and for what the model does not return.
        """
        check_step(batch, taps, shows_states=True, head=self.head, method="forward")
        layout = build_layout(batch, self.windows, True, self.module.device)
        shown = wants_states(taps)
        output = self._output(layout, _Step(TorchOps(layout, cache), self.layers), shown)
        logits = _scored(output.logits[0], layout).float()
        if not shown:
            return Forward(logits)
        states = [_scored(state[0], layout) for state in output.hidden_states]
        return Forward(
            logits,
            states[-1] if taps.final_hidden else None,
            {layer: states[layer] for layer in taps.hidden_states} or None,
            layer_logits={layer: self.head(states[layer]).float() for layer in taps.layer_logits} or None,
        )

    def _output(self, layout: Layout, blocks: Any, states: bool = False) -> Any:
        """What the model returns for all rows in one; masks have four axes, so that it makes none of its own."""
        given: dict[str, Any] = {
            "input_ids": layout.tokens[None],
            "position_ids": layout.positions[None],
            "attention_mask": torch.ones((1, 1, 1, 1), dtype=torch.bool, device=layout.tokens.device),
            "blocks": blocks,
        }
        if states:
            given["output_hidden_states"] = True
        elif "logits_to_keep" in self.takes and layout.scored is not None:
            given["logits_to_keep"] = layout.scored
        with attending(self.configs):
            return self.module(**given, use_cache=False, return_dict=True)


@dataclass(frozen=True, slots=True)
class _Step:
    """One step's blocks, as layers attend to them."""

    ops: TorchOps
    layers: tuple[LayerSpec, ...]

    def attend(self, asked: Asked, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """See `Attends`."""
        layer = self.layers[asked.index]
        return self.ops.attend(layer, q.flatten(1), k.flatten(1), v.flatten(1)).view(q.shape)


class _Noted:
    """How each layer attends, from the call of a single position, which sees itself."""

    def __init__(self) -> None:
        self.found: dict[int, AttentionSpec] = {}

    def attend(self, asked: Asked, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """See `Attends`. Raises NotSupportedError for a layer that attends twice."""
        if asked.index in self.found:
            raise NotSupportedError(f"a layer must attend once for blocks, got twice for layer {asked.index}.")
        spec = self.found[asked.index] = asked.spec(q, k, v)
        return v.repeat_interleave(spec.heads // spec.kv_heads, 1)


def over_blocks_of(module: Any, call: ModuleCall, takes: frozenset[str], vocabulary: int) -> OverBlocks | None:
    """The model over blocks; None where that is not what the model makes of each row alone, or cannot be had.

    Tried are rows of different lengths, beyond a block, continued by one position and by several.
    """
    try:
        with torch.no_grad(), evaluating(module):
            return _tried(module, call, takes, vocabulary)
    except Exception:  # a model that cannot be called like this: another way suits it
        return None


def _tried(module: Any, call: ModuleCall, takes: frozenset[str], vocabulary: int) -> OverBlocks | None:
    if module.config.is_encoder_decoder or call.last_only or "position_ids" not in takes:
        return None
    if len({parameter.device for parameter in module.parameters()}) != 1 or _turns_with_length(module.config):
        return None
    configs = configs_of(module)
    noted, model = _Noted(), OverBlocks(module, takes, configs, (), call.head)
    model._output(build_layout(_batch([(np.zeros(1, np.int32), 0)]), (), False, module.device), noted)
    config = module.config.get_text_config(decoder=True)
    if sorted(noted.found) != list(range(config.num_hidden_layers)):
        return None
    layers = tuple(LayerSpec(index, _within(config, index, noted.found[index])) for index in sorted(noted.found))
    model = OverBlocks(module, takes, configs, layers, call.head)
    cache = model.new_storage(DYNAMIC, 4)
    for step in _steps(vocabulary):
        logits = model.step(_batch(step), cache).logits
        right = [alone(call, call.truth, tokens, prompt=len(tokens)) for tokens, _ in step]
        if not all(same_logits(mine, other) for mine, other in zip(logits, right, strict=True)):
            return None
    return model


def _turns_with_length(config: Any) -> bool:
    """Whether a row's positions are turned by angles that depend on rows beside it."""
    rope = getattr(config.get_text_config(decoder=True), "rope_parameters", None) or {}
    nested = [value for value in rope.values() if isinstance(value, dict)]
    return any(one.get("rope_type") in TURNS_WITH_LENGTH for one in (rope, *nested))


def _within(config: Any, index: int, spec: AttentionSpec) -> AttentionSpec:
    """The layer's spec, if its window is that of the configuration, of which the masks are made.

    Raises NotSupportedError where the two say different things.
    """
    kinds = getattr(config, "layer_types", None)
    told = getattr(config, "sliding_window", None) if getattr(config, "use_sliding_window", True) else None
    known = {"full_attention": None, "sliding_attention": told}
    if kinds is not None and kinds[index] not in known:
        raise NotSupportedError(f"layer {index} must be one of {', '.join(known)} for blocks, got {kinds[index]!r}.")
    window = told if kinds is None else known[kinds[index]]
    if spec.window != window:
        raise NotSupportedError(f"layer {index} must have the window {window} for blocks, got {spec.window}.")
    return spec


def _scored(x: torch.Tensor, layout: Layout) -> torch.Tensor:
    """[S, ...] of x [T, ...], or x itself where the model has chosen already."""
    return x if layout.scored is None or len(x) == len(layout.scored) else x[layout.scored]


_Rows = list[tuple[np.ndarray, int]]  # tokens, and how many of them are in the cache


def _steps(vocabulary: int) -> Iterator[_Rows]:
    """Two rows at once, the longer of which leaves its first block; then each is continued."""
    tokens = ((np.arange(BLOCK + 12) * 37 + 11) % vocabulary).astype(np.int32)
    long, short = tokens[: BLOCK + 3], tokens[-8:]
    yield [(long[: BLOCK - 1], 0), (short[:3], 0)]
    yield [(long[:BLOCK], BLOCK - 1), (short[:6], 3)]
    yield [(long, BLOCK), (short[:7], 6)]


def _batch(rows: _Rows) -> Batch:
    """What is missing of the rows, of which the last position is scored; they have two blocks each."""
    ends = np.cumsum([len(tokens) - first for tokens, first in rows])
    return Batch(
        tokens=np.concatenate([tokens[first:] for tokens, first in rows]),
        starts=np.array([0, *ends], np.int32),
        first=np.array([first for _, first in rows], np.int32),
        tables=np.arange(2 * len(rows), dtype=np.int32).reshape(-1, 2)[:, : blocks_for(max(len(t) for t, _ in rows))],
        scored=(ends - 1).astype(np.int32),
    )
