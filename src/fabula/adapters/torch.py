"""What the engine asks of a model, answered for any `torch.nn.Module` that has a forward of its own."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from fabula.adapters.calls import check_step, wants_states
from fabula.adapters.remembered import RememberedTokens
from fabula.adapters.torch_calls import Columns, ModuleCall, OwnCall, Way
from fabula.adapters.torch_lanes import Lanes, Output, Wanted
from fabula.adapters.torch_stamp import module_stamp
from fabula.adapters.torch_ways import ALONE, choose_way, evaluating
from fabula.cache.blocks import BLOCK
from fabula.cache.stamp import Stamp
from fabula.ops.protocol import NO_TAPS, Batch, Forward, Taps


@dataclass(slots=True)
class Adapted:
    """A module's call, and what was found out about it; a copy of the module finds out for itself."""

    owner: weakref.ref[torch.nn.Module]
    call: ModuleCall
    way: Way | None = None  # None: not tried yet
    vocabulary: int | None = None

    def __deepcopy__(self, memo: Any) -> None:
        return None

    def __reduce__(self) -> Any:
        return type(None), ()


@dataclass(slots=True)
class _Held:
    """What a module keeps of rows, good as long as its parameters are what they were."""

    lanes: Lanes = field(default_factory=Lanes)
    parameters: list[weakref.ref[torch.Tensor]] = field(default_factory=list)
    stamp: tuple[Any, ...] = ()
    seen: Stamp | None = None  # what all that the module's answers depend on was


def adapt(module: torch.nn.Module) -> Adapted:
    """The module's call, made once."""
    adapted = module.__dict__.get("_adapted")
    if adapted is None or adapted.owner() is not module:  # a copy has brought along its original's
        make = getattr(module, "module_call", None)
        call = OwnCall(module) if make is None else make()
        adapted = module.__dict__["_adapted"] = Adapted(weakref.ref(module), call)
    return adapted


def vocabulary_size(module: torch.nn.Module) -> int:
    """How many logits the module gives for a token."""
    adapted = adapt(module)
    if adapted.vocabulary is None:
        ids = torch.zeros((1, 1), dtype=torch.int64, device=adapted.call.device)
        with torch.no_grad(), evaluating(module):
            computed = adapted.call(Columns(ids, torch.ones_like(ids, dtype=torch.bool), False, 1, 1), None, ALONE)
        adapted.vocabulary = int(computed.logits.shape[-1])
    return adapted.vocabulary


def inputs_like(module: torch.nn.Module) -> torch.Tensor:
    """A tensor where outputs go that have no inputs to follow."""
    return next(module.parameters(), torch.zeros(0))


def new_cache(blocks: int) -> RememberedTokens:
    """Storage for so many blocks of tokens; what the module keeps beside them grows with its rows."""
    return RememberedTokens(blocks, _Held())


@torch.no_grad()
def step(module: Any, batch: Batch, cache: RememberedTokens, taps: Taps = NO_TAPS) -> Forward:
    """Computes the rows of which something is scored; the others wait with their tokens until it is.

    Raises NotSupportedError for vectors in place of ids, and for what the module does not return.
    """
    adapted = adapt(module)
    check_step(batch, taps, adapted.call.shows_states, adapted.call.head, "forward")
    rows = cache.rows(batch)
    asked = _asked(batch, rows, adapted.call.last_only)
    if not asked:
        return Forward(torch.zeros((0, module.vocabulary_size), device=adapted.call.device))
    if adapted.way is None:
        with evaluating(module):
            adapted.way = choose_way(adapted.call, module.vocabulary_size, _two_memories(asked))
    continued = bool((batch.first % BLOCK).all()) and len(batch.tokens) == len(batch.first)  # else a row may begin
    lanes = _lanes(module, cache, continued)
    return _forward(adapted.call, lanes.compute(adapted.call, adapted.way, asked, wants_states(taps)), taps)


def _asked(batch: Batch, rows: Sequence[np.ndarray], last_only: bool) -> list[Wanted]:
    """The rows with scored positions, in the order of these. Where only the last column counts, a row a position."""
    asked = []
    for row, tokens in enumerate(rows):
        start, end = batch.starts[row], batch.starts[row + 1]
        scored = batch.scored[(batch.scored >= start) & (batch.scored < end)] - start + batch.first[row]
        memory = batch.memories[row] if batch.memories else None
        whole = len(scored) and len(scored) == len(tokens) - scored[0]
        if whole and not last_only:
            asked.append(Wanted(tokens, int(scored[0]), memory))
        else:
            asked += [Wanted(tokens[: position + 1], int(position), memory) for position in scored]
    return asked


def _two_memories(asked: Sequence[Wanted]) -> tuple[Any, Any]:
    """What two rows' encoders made, to try ways with."""
    return asked[0].memory, asked[-1].memory


def _lanes(module: torch.nn.Module, cache: RememberedTokens, continued: bool) -> Lanes:
    """What the module keeps; nothing, if its parameters were changed or moved since.

    They are looked up anew only where rows begin, with its settings, as that takes longer than all else here.
    """
    known = [one() for one in cache.held.parameters] if continued else []
    parameters = [one for one in known if one is not None]
    if not parameters or len(parameters) < len(known):
        parameters = list(module.parameters())
        cache.held.parameters = [weakref.ref(one) for one in parameters]
    place = (parameters[0].device, parameters[0].dtype) if parameters else ()
    stamp = (*place, *((id(one), one._version) for one in parameters))
    seen = cache.held.seen if continued and cache.held.seen is not None else module_stamp(module)
    if cache.held.stamp != stamp or cache.held.seen is None or not cache.held.seen.stands(seen):
        cache.held = _Held(parameters=cache.held.parameters, stamp=stamp, seen=seen)
    return cache.held.lanes


def _forward(call: ModuleCall, outputs: Sequence[Output], taps: Taps) -> Forward:
    logits = torch.cat([output.logits for output in outputs]).float()
    if outputs[0].hidden is None:
        return Forward(logits)
    states = [torch.cat(layer) for layer in zip(*(output.hidden or () for output in outputs), strict=True)]
    head = call.head
    return Forward(
        logits,
        states[-1] if taps.final_hidden else None,
        {layer: states[layer] for layer in taps.hidden_states} or None,
        layer_logits={layer: head(states[layer]).float() for layer in taps.layer_logits} if head else None,
    )
