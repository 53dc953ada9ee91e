"""Many steps of closed rows, beams or texts in TensorFlow: a loop that XLA compiles, over keys and values of blocks."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from fabula.arrays import tensorflow as functions
from fabula.cache.groups import LayerGroup
from fabula.cache.tensorflow import Held, TFCache
from fabula.decoding.closed.beam_found import Made, made_by
from fabula.decoding.closed.beam_loop import decode_beams
from fabula.decoding.closed.beams import BeamForm, ClosedBeams, beam_leaves_of
from fabula.decoding.closed.contrastive import ClosedTexts, ContrastiveForm, SettledText, settled_of, text_leaves_of
from fabula.decoding.closed.contrastive_loop import decode_texts
from fabula.decoding.closed.loop import decode
from fabula.decoding.closed.record import Gained, blank, gained_of
from fabula.decoding.closed.rows import ClosedRows, Form, leaves_of
from fabula.models.bursts.shapes import Shaped, shaped, shaped_beams, shaped_texts
from fabula.models.passes.memories import Joined, columns_of, joined
from fabula.models.passes.tensorflow import compute
from fabula.models.passes.tensorflow_memory import own_memories, together
from fabula.models.weights.tensorflow import Place, Weights, weight_of
from fabula.ops.protocol import Batch
from fabula.ops.rectangles import bucket
from fabula.ops.tensorflow import FEW, Frame, MemoryRows
from fabula.taps import NO_TAPS, Taps

Tensor = Any  # a tf.Tensor
# Of a loop: the form, end tokens, columns S of memories (0: no encoder), how it is stored, rows R, blocks of a row B.
Alike = tuple[Form | BeamForm | ContrastiveForm, int, int, tuple[LayerGroup, ...]]
Key = tuple[Form | BeamForm | ContrastiveForm, int, int, tuple[LayerGroup, ...], int, int]
Dense = tuple[Held, ...]  # of each group, Float["R 1 layers L heads features"]
New = tuple[tuple[Tensor, Tensor], ...]  # of each group keys and values
Own = tuple[tuple[Tensor, Tensor], ...]  # of each group, ["layers R heads features"] of one position a row
Pass = Callable[[Tensor, Tensor, Dense], tuple[Any, Own]]  # (tokens, positions, what is stored) -> what they give
Step = Callable[[Taps], Pass]  # by what is tapped
# (that, what is stored, the rows' arrays) -> (what was decoded, what is stored then)
Loop = Callable[[Step, Dense, Sequence[Tensor]], tuple[Any, Dense]]

KEPT = 64  # compiled loops


class Bursts:
    """A model's compiled loops, one for each form of rows and each shape."""

    def __init__(self, weights: Weights) -> None:
        self.weights = weights
        self.compiled: OrderedDict[Key, Callable[..., Any]] = OrderedDict()  # last used last

    def run(self, batch: Batch, cache: TFCache, form: Form, rows: ClosedRows) -> list[Gained]:
        """What each row got, whose keys and values are in the cache then."""
        memories = joined(batch.memories, together)
        alike = (form, bucket(rows.ends.shape[1]), columns_of(memories), cache.groups)
        vocabulary = int(self.weights.family.config.vocab_size)
        burst = shaped(batch, form, rows, vocabulary, self._shapes(alike))
        leaves, rebuild = leaves_of(burst.closed)

        def decoded(step: Step, dense: Dense, leaves: Sequence[Tensor]) -> tuple[Any, Dense]:
            rows = rebuild(leaves)
            kept = blank(functions, form, rows, burst.steps, vocabulary)
            end = decode(_writing(step(Taps(layer_logits=form.layers))), dense, form, rows, kept=kept)
            return (end.tokens, end.lengths, end.kept), end.model

        (tokens, lengths, kept), new = self._run(alike, burst, memories, cache, leaves, decoded)
        made = (lengths - burst.closed.lengths).repeat(form.each)
        _store(cache, new, burst.slots(made, cache.nowhere))
        return gained_of(burst.closed, tokens, lengths, kept, len(rows.lengths))

    def run_beams(self, batch: Batch, cache: TFCache, form: BeamForm, beams: ClosedBeams) -> list[Made]:
        """What each group's turns chose from; the keys and values of what became of its rows are in the cache then."""
        memories = joined(batch.memories, together)
        alike = (form, bucket(beams.rows.ends.shape[1]), columns_of(memories), cache.groups)
        vocabulary = int(self.weights.family.config.vocab_size)
        burst = shaped_beams(batch, form, beams, vocabulary, self._shapes(alike))
        leaves, rebuild = beam_leaves_of(burst.closed)

        def searched(step: Step, dense: Dense, leaves: Sequence[Tensor]) -> tuple[Any, Dense]:
            forward = _writing(step(NO_TAPS))
            return decode_beams(forward, _reordered, dense, form, rebuild(leaves), vocabulary=vocabulary)

        found, new = self._run(alike, burst, memories, cache, leaves, searched)
        _store(cache, new, burst.slots(found.turns.repeat(form.each), cache.nowhere))
        return made_by(form, found, len(beams.hasty))

    def run_texts(self, batch: Batch, cache: TFCache, form: ContrastiveForm, texts: ClosedTexts) -> list[SettledText]:
        """What each text was settled to go on with, whose keys and values are in the cache then."""
        memories = joined(batch.memories, together)
        alike = (form, bucket(texts.rows.ends.shape[1]), columns_of(memories), cache.groups)
        vocabulary = int(self.weights.family.config.vocab_size)
        burst = shaped_texts(batch, form, texts, vocabulary, self._shapes(alike))
        leaves, rebuild = text_leaves_of(burst.closed)

        def settled(step: Step, dense: Dense, leaves: Sequence[Tensor]) -> tuple[Any, Dense]:
            texts = rebuild(leaves)
            kept = blank(functions, form.chain, texts.rows, burst.steps, vocabulary)
            forward = _putting_off(step(Taps(final_hidden=True)))
            state = _nothing_new(dense, texts.rows.position)
            found, state = decode_texts(forward, _shared, state, form, texts, burst.steps, kept)
            return found, _written(*state)

        found, new = self._run(alike, burst, memories, cache, leaves, settled)
        made, counts = np.zeros(len(burst.first), np.int32), found.lengths - burst.closed.rows.lengths
        written = form.first_of(len(made))
        made[written] = counts.repeat(form.chain.each)
        _store(cache, new, burst.slots(made, cache.nowhere))
        return settled_of(burst.closed, found, len(texts.alpha))

    def _shapes(self, alike: Alike) -> Iterator[tuple[int, int]]:
        """Of the loops that are compiled for such rows."""
        return (key[4:] for key in self.compiled if key[:4] == alike)

    def _run(
        self,
        alike: Alike,
        burst: Shaped[Any],
        memories: Joined | None,
        cache: TFCache,
        leaves: Sequence[np.ndarray],
        loop: Loop,
    ) -> tuple[Any, New]:
        """What the loop gives, on the host, and the keys and values to be stored."""
        rows = (own_memories(memories, len(burst.first)), tf.constant(burst.first), tuple(map(tf.constant, leaves)))
        given = (cache.read([burst.reach(group.window) for group in cache.groups]), *rows)
        outcome, new = self._program((*alike, *burst.tables.shape), loop, burst.steps, given)(*given)
        return tf.nest.map_structure(lambda part: part.numpy(), outcome), new

    def _program(self, key: Key, loop: Loop, steps: int, given: tuple[Any, ...]) -> Callable[..., Any]:
        """The loop of a key; the one that was not used for longest makes room for a new one."""
        if key not in self.compiled:
            if len(self.compiled) == KEPT:
                self.compiled.popitem(last=False)
            self.compiled[key] = self._compiled(loop, steps, key[3]).get_concrete_function(*given)
        self.compiled.move_to_end(key)
        return self.compiled[key]

    def _compiled(self, loop: Loop, steps: int, groups: Sequence[LayerGroup]) -> Any:
        @tf.function(jit_compile=True, autograph=False)
        def program(
            stored: Dense, memory: MemoryRows | None, first: Tensor, leaves: tuple[Tensor, ...]
        ) -> tuple[Any, New]:
            dense = tuple(Held(_dense(held.keys), _dense(held.values), held.starts) for held in stored)
            weights = Turned(self.weights) if first.shape[0] > FEW else self.weights
            outcome, dense = loop(partial(pass_of, weights, memory, groups), dense, leaves)
            return outcome, tuple(_new(held, first, steps) for held in dense)

        return program


class Turned:
    """A model's weights in a trace, matrices taken from [in, out]: XLA multiplies several rows by those faster."""

    def __init__(self, weights: Weights) -> None:
        self.family, self.periods = weights.family, weights.periods
        self._weights = weights
        self._turned: dict[int, Tensor] = {}  # by id(variable), matrices alone
        for _, _, place in weights.named():
            if len(place.variable.shape) == 2 + (place.index is not None):
                self._turned[id(place.variable)] = tf.linalg.matrix_transpose(place.variable.read_value())

    @property
    def outside(self) -> SimpleNamespace:
        """The weights outside the layers, by field."""
        return SimpleNamespace(**{field: self._value(place) for field, place in self._weights.places(None).items()})

    def layer(self, number: int, turn: Tensor) -> SimpleNamespace:
        """The weights of the layer that lies `turn` repeats behind this one, by field."""
        own = self._weights.places(number)
        return SimpleNamespace(**{field: self._value(place, turn) for field, place in own.items()})

    def _value(self, place: Place | None, turn: Tensor | None = None) -> Tensor | None:
        """A weight as [out, in] again, which is no work within a product."""
        whole = None if place is None else self._turned.get(id(place.variable))
        if place is None or whole is None:
            return weight_of(place, turn)
        if place.index is not None:
            whole = whole[place.index if turn is None else place.index + turn]
        return tf.linalg.matrix_transpose(whole)


class Late(NamedTuple):
    """A loop's keys and values, those of the last step not yet among them.

    So what it wrote can be another row's without being read again: XLA would copy all that is dense for that.
    """

    dense: Dense
    position: Tensor  # Int["R"]: of the last step's
    own: Own


def pass_of(weights: Any, memory: MemoryRows | None, groups: Sequence[LayerGroup], taps: Taps) -> Pass:
    """One position a row over dense keys and values; the new ones are not put into them.

    It gives the logits; or a list of them and those after each tapped layer; or them and the final hidden states.
    """

    def one(last: Tensor, position: Tensor, dense: Dense) -> tuple[Any, Own]:
        frame = Frame(last[:, None], position[:, None], position + 1, tf.range(last.shape[0]), memory=memory)
        found = compute(weights, frame, dense, taps, groups)
        whole = found.keys[:, :, 0], found.values[:, :, 0]
        own = tuple((_of(group, whole[0]), _of(group, whole[1])) for group in groups)
        others = [found.hidden] if taps.final_hidden else [found.early[layer] for layer in taps.layer_logits]
        return [found.logits, *others] if others else found.logits, own

    return one


def _writing(one: Pass) -> Callable[[Tensor, Tensor, Dense], tuple[Any, Dense]]:
    """The forward of a loop, which puts what is new where it belongs."""

    def forward(last: Tensor, position: Tensor, dense: Dense) -> tuple[Any, Dense]:
        given, own = one(last, position, dense)
        return given, _written(dense, position, own)

    return forward


def _putting_off(one: Pass) -> Callable[[Tensor, Tensor, Late], tuple[Any, Late]]:
    """The forward of a loop, which puts what the step before it made where it belongs."""

    def forward(last: Tensor, position: Tensor, late: Late) -> tuple[Any, Late]:
        dense = _written(*late)
        given, own = one(last, position, dense)
        pairs = zip(own, dense, strict=True)
        own = tuple((tf.cast(new[0], held.keys.dtype), tf.cast(new[1], held.values.dtype)) for new, held in pairs)
        return given, Late(dense, position, own)

    return forward


def _nothing_new(dense: Dense, position: Tensor) -> Late:
    """Before the first step, whose positions Int["R"] nothing of is read."""

    def blank(part: Tensor) -> Tensor:
        rows, _, layers, _, *head = part.shape
        return tf.zeros((layers, rows, *head), part.dtype)

    return Late(dense, position, tuple((blank(held.keys), blank(held.values)) for held in dense))


def _shared(late: Late, parents: Tensor, position: Tensor) -> Late:
    """At each row's position what the row Int["R"] that is named for it has there."""
    own = tuple((tf.gather(keys, parents, axis=1), tf.gather(values, parents, axis=1)) for keys, values in late.own)
    return late._replace(own=own)


def _of(group: LayerGroup, new: Tensor) -> Tensor:
    """["layers R heads features"]: a group's layers of all."""
    return new if len(group.layers) == new.shape[0] else tf.gather(new, group.layers)


def _written(dense: Dense, position: Tensor, new: Own) -> Dense:
    """What is dense with each group's ["layers R heads features"] at each row's position Int["R"]."""
    found = []
    for (keys, values, starts), (new_keys, new_values) in zip(dense, new, strict=True):
        column = position - starts
        found.append(Held(_put(keys, column, new_keys), _put(values, column, new_values), starts))
    return tuple(found)


def _put(dense: Tensor, column: Tensor, new: Tensor) -> Tensor:
    """["R 1 layers L heads features"] with ["layers R heads features"] in each row's column Int["R"]."""
    layers, rows = new.shape[:2]
    row, layer = tf.range(rows)[None, :], tf.range(layers)[:, None]
    parts = (row, tf.zeros_like(row), layer, column[None, :])
    places = tf.stack([tf.broadcast_to(part, (layers, rows)) for part in parts], -1)
    return tf.tensor_scatter_nd_update(dense, places, tf.cast(new, dense.dtype))


def _dense(stored: Tensor) -> Tensor:
    """["R 1 layers L heads features"] of blocks ["R B layers P heads features"]."""
    rows, blocks, layers, size, *head = stored.shape
    return tf.reshape(tf.transpose(stored, (0, 2, 1, 3, 4, 5)), (rows, 1, layers, blocks * size, *head))


def _reordered(dense: Dense, parents: Tensor) -> Dense:
    """["R 1 layers L heads features"]: the keys and values of the rows that each row continues, Int["R"]."""
    return tf.nest.map_structure(lambda part: tf.gather(part, parents), dense)


def _store(cache: TFCache, new: New, slots: np.ndarray) -> None:
    """Puts each group's keys and values ["layers R K heads features"] at slots Int["R K"]."""
    for index, pair in enumerate(new):
        flat = (tf.reshape(part, (part.shape[0], -1, *part.shape[3:])) for part in pair)
        cache.put(index, slots.reshape(-1), *flat)


def _new(held: Held, first: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """["layers R K heads features"]: what is dense at the K positions of each row from its first Int["R"] on."""
    columns = (first - held.starts)[:, None] + tf.range(steps)[None, :]

    def one(dense: Tensor) -> Tensor:
        rows = tf.transpose(dense[:, 0], (0, 2, 1, 3, 4))
        found = tf.gather(rows, tf.minimum(columns, dense.shape[3] - 1), batch_dims=1)
        return tf.transpose(found, (2, 0, 1, 3, 4))

    return one(held.keys), one(held.values)
