"""Many steps of closed rows, beams or texts in JAX: a compiled `lax.while_loop` over keys and values out of blocks."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeAlias, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from fabula.arrays import jax as functions
from fabula.cache.blocks import BLOCK
from fabula.cache.groups import LayerGroup
from fabula.cache.jax import JaxCache, State
from fabula.decoding.closed.beam_found import Found, Made, made_by
from fabula.decoding.closed.beam_loop import decode_beams
from fabula.decoding.closed.beams import BeamForm, ClosedBeams, beam_leaves_of
from fabula.decoding.closed.contrastive import ClosedTexts, ContrastiveForm, SettledText, settled_of, text_leaves_of
from fabula.decoding.closed.contrastive_loop import FoundTexts, decode_texts
from fabula.decoding.closed.loop import decode
from fabula.decoding.closed.record import Gained, blank, gained_of
from fabula.decoding.closed.rows import ClosedRows, Form, leaves_of
from fabula.models.bursts.shapes import Shaped, shaped, shaped_beams, shaped_texts
from fabula.models.passes.jax import Program
from fabula.models.passes.jax_memory import own_memories, together
from fabula.models.passes.memories import Joined, columns_of, joined
from fabula.models.weights.jax import Weights
from fabula.ops.jax import OwnMemories
from fabula.ops.protocol import Batch
from fabula.ops.rectangles import bucket

Array = jax.Array
Closed = TypeVar("Closed")
Rebuild: TypeAlias = Callable[[Sequence[Any]], Closed]
# Of a loop: the form, end tokens, columns S of memories (0: no encoder), how it is stored, rows R, blocks of a row B.
Alike = tuple[Form | BeamForm | ContrastiveForm, int, int, tuple[LayerGroup, ...]]
Key = tuple[Form | BeamForm | ContrastiveForm, int, int, tuple[LayerGroup, ...], int, int]

__all__ = ["Bursts"]

KEPT = 64  # compiled loops


class Bursts:
    """A model's compiled loops, one for each form of rows and each shape."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.compiled: OrderedDict[Key, Callable[..., Any]] = OrderedDict()  # last used last

    def run(self, weights: Weights, batch: Batch, cache: JaxCache, form: Form, rows: ClosedRows) -> list[Gained]:
        """What each row got, whose keys and values are in the cache then."""
        memories = joined(batch.memories, together)
        alike = (form, bucket(rows.ends.shape[1]), columns_of(memories), cache.groups)
        burst = shaped(batch, form, rows, self._vocabulary, self._shapes(alike))
        leaves, rebuild = leaves_of(burst.closed)
        traced = partial(self._decoded, form, rebuild, burst.steps)
        found, new = self._run(alike, burst, memories, cache, weights, leaves, traced)
        tokens, lengths, kept = jax.tree.map(np.asarray, found)
        made = (lengths - burst.closed.lengths).repeat(form.each)
        cache.state = _stored(cache.state, new, burst.slots(made, cache.nowhere))
        return gained_of(burst.closed, tokens, lengths, kept, len(rows.lengths))

    def run_beams(
        self, weights: Weights, batch: Batch, cache: JaxCache, form: BeamForm, beams: ClosedBeams
    ) -> list[Made]:
        """What each group's turns chose from; the keys and values of what became of its rows are in the cache then."""
        memories = joined(batch.memories, together)
        alike = (form, bucket(beams.rows.ends.shape[1]), columns_of(memories), cache.groups)
        burst = shaped_beams(batch, form, beams, self._vocabulary, self._shapes(alike))
        leaves, rebuild = beam_leaves_of(burst.closed)
        traced = partial(self._searched, form, rebuild, burst.steps)
        found, new = self._run(alike, burst, memories, cache, weights, leaves, traced)
        found = found.on_host(np.asarray)
        cache.state = _stored(cache.state, new, burst.slots(found.turns.repeat(form.each), cache.nowhere))
        return made_by(form, found, len(beams.hasty))

    def run_texts(
        self, weights: Weights, batch: Batch, cache: JaxCache, form: ContrastiveForm, texts: ClosedTexts
    ) -> list[SettledText]:
        """What each text was settled to go on with, whose keys and values are in the cache then."""
        memories = joined(batch.memories, together)
        alike = (form, bucket(texts.rows.ends.shape[1]), columns_of(memories), cache.groups)
        burst = shaped_texts(batch, form, texts, self._vocabulary, self._shapes(alike))
        leaves, rebuild = text_leaves_of(burst.closed)
        traced = partial(self._settled, form, rebuild, burst.steps)
        found, new = self._run(alike, burst, memories, cache, weights, leaves, traced)
        found = jax.tree.map(np.asarray, found)
        made = (found.lengths - burst.closed.rows.lengths).repeat(form.each)
        slots = burst.slots(made, cache.nowhere)
        cache.state = _stored(cache.state, new, slots[form.first_of(len(slots))])
        return settled_of(burst.closed, found, len(texts.alpha))

    @property
    def _vocabulary(self) -> int:
        return int(self.program.family.config.vocab_size)

    def _shapes(self, alike: Alike) -> Iterator[tuple[int, int]]:
        """Of the loops that are compiled for such rows."""
        return (key[4:] for key in self.compiled if key[:4] == alike)

    def _run(
        self,
        alike: Alike,
        burst: Shaped[Any],
        memories: Joined | None,
        cache: JaxCache,
        weights: Weights,
        leaves: Sequence[np.ndarray],
        traced: Callable[..., Any],
    ) -> tuple[Any, State]:
        """What the loop found, and the keys and values of its rows' new positions."""
        program = self._program((*alike, *burst.tables.shape), traced)
        memory = own_memories(memories, len(burst.first))
        found: tuple[Any, State] = program(weights, memory, _read(cache.state, burst), burst.first, leaves)
        return found

    def _program(self, key: Key, traced: Callable[..., Any]) -> Callable[..., Any]:
        """The loop of a key; the one that was not used for longest makes room for a new one."""
        if key not in self.compiled:
            if len(self.compiled) == KEPT:
                self.compiled.popitem(last=False)
            self.compiled[key] = jax.jit(traced)
        self.compiled.move_to_end(key)
        return self.compiled[key]

    def _decoded(
        self,
        form: Form,
        rebuild: Rebuild[ClosedRows],
        steps: int,
        weights: Weights,
        memory: OwnMemories | None,
        dense: State,
        first: Array,
        leaves: Sequence[Array],
    ) -> tuple[tuple[Array, Array, Any], State]:
        """Traced: the rows' tokens, lengths and records, and the keys and values of their new positions."""
        rows, program = rebuild(leaves), self.program
        if rows.last.shape[0] == 1:  # XLA sums along columns where a single row meets a matrix [in, out]: turned once
            program, weights = program.turned(weights)
        kept = blank(functions, form, rows, steps, self._vocabulary)
        forward = partial(program.in_dense, weights, memory, layers=form.layers)
        end = decode(forward, dense, form, rows, kept=kept)
        return (end.tokens, end.lengths, end.kept), _new(first, steps, end.model)

    def _searched(
        self,
        form: BeamForm,
        rebuild: Rebuild[ClosedBeams],
        steps: int,
        weights: Weights,
        memory: OwnMemories | None,
        dense: State,
        first: Array,
        leaves: Sequence[Array],
    ) -> tuple[Found, State]:
        """Traced: what the turns chose from, and the keys and values of the last blocks of what became of the rows."""
        forward = partial(self.program.in_dense, weights, memory)
        found, dense = decode_beams(forward, _reordered, dense, form, rebuild(leaves), vocabulary=self._vocabulary)
        return found, _new(first, steps, dense)

    def _settled(
        self,
        form: ContrastiveForm,
        rebuild: Rebuild[ClosedTexts],
        steps: int,
        weights: Weights,
        memory: OwnMemories | None,
        dense: State,
        first: Array,
        leaves: Sequence[Array],
    ) -> tuple[FoundTexts, State]:
        """Traced: what was settled, and the keys and values of it, each text's as its first candidate has them."""
        texts = rebuild(leaves)
        kept = blank(functions, form.chain, texts.rows, steps, self._vocabulary)
        forward = partial(self.program.shown_in_dense, weights, memory)
        found, dense = decode_texts(forward, _shared, dense, form, texts, steps, kept)
        written = form.first_of(len(first))
        return found, _new(first[written], steps, _chosen(dense, written))


def _shared(dense: State, parents: Array, position: Array) -> State:
    """["layers R heads L features"]: at each row's position Int["R"] what the row Int["R"] has there."""
    rows = jnp.arange(len(parents))

    def one(array: Array, start: Array) -> Array:
        column = position - start
        return array.at[:, rows, :, column].set(array[:, parents, :, column])

    return _by_group(one, dense, dense.starts)


def _reordered(dense: State, parents: Array) -> State:
    """["layers R heads L features"]: the keys and values of the rows that each row continues, Int["R"]."""
    return _chosen(dense, parents)


def _chosen(dense: State, rows: Array | np.ndarray) -> State:
    """The same of some rows."""
    keys, values = (tuple(array[:, rows] for array in part) for part in (dense.keys, dense.values))
    return State(keys, values, dense.groups, tuple(start[rows] for start in dense.starts))


def _read(state: State, burst: Shaped[Any]) -> State:
    """["layers R heads L features"] of what a burst's rows see within each group's window."""
    tables, starts = zip(*(burst.reach(group.window) for group in state.groups), strict=True)
    return _dense(state, tables, starts)


@jax.jit
def _dense(state: State, tables: Sequence[Array], starts: tuple[Array, ...]) -> State:
    """The same of blocks Int["R C"] of each group, of which the first begins at a position Int["R"]."""

    def one(array: Array, tables: Array) -> Array:
        blocks = array.reshape(array.shape[0], -1, BLOCK, *array.shape[2:])[:, tables]
        return jnp.swapaxes(blocks.reshape(array.shape[0], tables.shape[0], -1, *array.shape[2:]), 2, 3)

    return replace(_by_group(one, state, tables), starts=starts)


@partial(jax.jit, donate_argnums=0)
def _stored(state: State, new: State, slots: Array) -> State:
    """The cache's state with new keys and values ["layers R K heads features"] at slots Int["R K"]."""
    return jax.tree.map(lambda array, part: array.at[:, slots].set(part, mode="drop"), state, new)


def _new(first: Array, steps: int, dense: State) -> State:
    """["layers R K heads features"]: what is dense at the K positions of each row from its first Int["R"] on."""

    def one(array: Array, start: Array) -> Array:
        places = jnp.minimum((first - start)[:, None] + jnp.arange(steps), array.shape[3] - 1)
        return jnp.take_along_axis(array, places[None, :, None, :, None], 3).swapaxes(2, 3)

    return replace(_by_group(one, dense, dense.starts), starts=())


def _by_group(function: Callable[[Array, Array], Array], state: State, given: Sequence[Array]) -> State:
    """What a function makes of each array, and of what is given for its group."""
    keys, values = (tuple(map(function, part, given)) for part in (state.keys, state.values))
    return State(keys, values, state.groups, state.starts)
