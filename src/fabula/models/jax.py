"""A model in JAX: a Flax module with parameters under the checkpoint's names, for people and for the engine."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
from flax import nnx

from fabula.arrays.jax_meshes import mesh_of, within
from fabula.cache.jax import JaxCache
from fabula.cache.kinds import DYNAMIC, CacheKind
from fabula.cache.stamp import Stamp
from fabula.decoding.closed.beam_found import Made
from fabula.decoding.closed.beams import BeamForm, ClosedBeams
from fabula.decoding.closed.contrastive import ClosedTexts, ContrastiveForm, SettledText
from fabula.decoding.closed.record import Gained
from fabula.decoding.closed.rows import ClosedRows, Form
from fabula.generation.jax_mixin import FlaxGenerationMixin
from fabula.generation.prompts.frameworks import takes_tensors_of
from fabula.generation.settings.config import GenerationConfig
from fabula.models.bursts.jax import Bursts
from fabula.models.families.family import Family, Stack
from fabula.models.passes.jax import Program
from fabula.models.passes.jax_rectangle import Rectangle, forward_rectangle
from fabula.models.passes.jax_step import step
from fabula.models.passes.storage_kinds import kind_there
from fabula.models.placement.jax import device_named
from fabula.models.placement.jax_sharding import Settled, cache_sharding, field_sharding
from fabula.models.weights.jax import Field, Plan, Weights, jax_dtype, plan_of, present_in, read_field
from fabula.models.weights.jax_saving import save_model
from fabula.models.weights.saving import refuse_settings
from fabula.models.weights.table import EMBEDDINGS
from fabula.ops.layer_groups import groups_of
from fabula.ops.protocol import NO_TAPS, Batch, Forward, Taps
from fabula.ops.specs import LayerSpec
from fabula.quant.formats import StoredTensor


class Branch(nnx.Module):
    """A place in the tree of names."""


class JaxCausalLM(FlaxGenerationMixin, nnx.Module):
    """A family with its weights as `nnx.Param`, under transformers' names.

    Layers that repeat a pattern share an array, so that they are compiled once: it stands under the name of the first
    of them, `model.layers.0.self_attn.q_proj.weight`, and has a first axis of layers. `named_weights` gives each
    layer's under its own name.
    """

    def __init__(self, program: Program, arrays: Mapping[str, Any]) -> None:
        """`arrays`: one for each field of the program's plan, by its name; see `from_tensors`."""
        self.program = program
        self.bursts = Bursts(program)
        self.settled = Settled()
        for field in self.fields():
            path, _, name = field.name.rpartition(".")
            setattr(_branch(self, path), name, nnx.Param(arrays[field.name]))

    @classmethod
    def from_tensors(
        cls, family: Family, tensors: Mapping[str, StoredTensor], dtype: Any = "float32", device: str | None = None
    ) -> JaxCausalLM:
        """The model of a checkpoint, packed weights dequantized. Raises ModelFileError for weights that do not fit."""
        plan = plan_of(family, present_in(family, tensors))
        return cls(Program(family, plan), read_arrays(family, plan, tensors, dtype, device))

    def programs(self) -> tuple[Program, ...]:
        """Those of all the family's stacks."""
        return (self.program,)

    def fields(self) -> Iterable[Field]:
        """Every array of the model, by its name."""
        return {field.name: field for program in self.programs() for field in program.plan.fields()}.values()

    def _first_config(self) -> GenerationConfig:
        return GenerationConfig.from_model_config(self.config.to_dict())

    @property
    def family(self) -> Family:
        """What is computed."""
        assert isinstance(self.program.family, Family)
        return self.program.family

    @property
    def config(self) -> Any:
        """The configuration that it was made from."""
        return self.program.family.config

    @property
    def layers(self) -> Sequence[LayerSpec]:
        """What each layer is."""
        return self.program.family.layers

    @property
    def vocab_size(self) -> int:
        """How many tokens have a score."""
        return int(self.config.vocab_size)

    @property
    def dtype(self) -> Any:
        """The type of the parameters."""
        return self._parameter(self.program.plan.outside[0]).dtype

    @property
    def device(self) -> Any:
        """Where the parameters are, or the first of the devices."""
        return next(iter(self._parameter(self.program.plan.outside[0]).devices()))

    @property
    def inputs_like(self) -> jax.Array:
        """An array of the framework of outputs that have no inputs to follow."""
        return self._parameter(self.program.plan.outside[0])

    def num_parameters(self, only_trainable: bool = False, exclude_embeddings: bool = False) -> int:
        """How many numbers the parameters hold, shared ones once; all of them can be trained."""
        left_out = EMBEDDINGS if exclude_embeddings else ()
        outside = self.program.plan.outside
        tables = {one.name for one in outside if one.field in left_out}
        return sum(self._parameter(one).size for one in self.fields() if one.name not in tables)

    def named_weights(self) -> Iterator[tuple[str, jax.Array]]:
        """Each weight under the checkpoint's name; those that share an array one by one, copied out of it."""
        for field in self.fields():
            array = self._parameter(field)
            parts = array if field.stacked else (array,)
            yield from zip(field.names, parts, strict=True)

    def weights(self) -> Weights:
        """The parameters under the family's field names."""
        return self.weights_of(self.program)

    def weights_of(self, program: Program) -> Weights:
        """The parameters of one stack."""
        plan = program.plan
        stacks = tuple(tuple({f.field: self._parameter(f) for f in place} for place in stack) for stack in plan.stacks)
        outside, shared = ({one.field: self._parameter(one) for one in part} for part in (plan.outside, plan.shared))
        return Weights(outside, stacks, shared)

    def _parameter(self, field: Field) -> Any:
        return self.settled(raw(self._variable(field)))

    def _variable(self, field: Field) -> Any:
        found: Any = self
        for name in field.name.split("."):
            found = getattr(found, name)
        return found

    def shard(self, mesh: jax.sharding.Mesh, axis: str | None = None) -> None:
        """Spreads the parameters over a mesh's devices, along its `axis` (None: the last); its other axes repeat them.

        Parameters may as well be put anywhere by hand: `jax.device_put` with a NamedSharding. generate() computes where
        they are. Raises ArgumentError for an axis that the mesh does not have.
        """
        name = str(mesh.axis_names[-1]) if axis is None else axis
        for field in self.fields():
            variable = self._variable(field)
            put(variable, jax.device_put(raw(variable), field_sharding(mesh, name, field)))

    def weights_stamp(self) -> Stamp:
        """What is another after a parameter was given another array."""
        arrays = [raw(self._variable(field)) for field in self.fields()]
        return Stamp(tuple(map(id, arrays)), tuple(map(weakref.ref, arrays)))

    def new_cache(self, blocks: int) -> JaxCache:
        """Storage for this many blocks of keys and values."""
        return self.new_storage(DYNAMIC, blocks)

    def new_storage(self, kind: CacheKind, blocks: int) -> JaxCache:
        """Storage of this kind for so many blocks."""
        groups = groups_of(self.layers, kind)
        place = cache_sharding(self.weights(), min(group.kv_heads for group in groups)) if groups else None
        return JaxCache(groups, blocks, self.dtype, place)

    def storage_kind(self, kind: CacheKind) -> CacheKind:
        """What is offloaded is where it would be anyway, if the model is on the CPU; else NotSupportedError."""
        return kind_there(kind, self.device.platform, "JAX")

    def step(self, batch: Batch, cache: JaxCache, taps: Taps = NO_TAPS) -> Forward:
        """Computes a batch's positions, stores their keys and values, and scores what it wants scored.

        What comes back is on the host: there shapes may change from step to step. Tapped attentions are a tuple of
        Float["heads new keys"], one for each row that computes anything.
        """
        weights = self.weights()
        with within(mesh_of(weights)), self._whole(cache):
            return step(self.program, weights, batch, cache, taps)

    def burst(self, batch: Batch, cache: JaxCache, form: Form, rows: ClosedRows) -> list[Gained]:
        """Many steps of the engine at once: what each row got (engine/burst.py)."""
        weights = self.weights()
        with within(mesh_of(weights)), self._whole(cache):
            return self.bursts.run(weights, batch, cache, form, rows)

    def burst_beams(self, batch: Batch, cache: JaxCache, form: BeamForm, beams: ClosedBeams) -> list[Made]:
        """Many turns of beam search at once: what each chose from, by group (engine/burst.py)."""
        weights = self.weights()
        with within(mesh_of(weights)), self._whole(cache):
            return self.bursts.run_beams(weights, batch, cache, form, beams)

    def burst_texts(
        self, batch: Batch, cache: JaxCache, form: ContrastiveForm, texts: ClosedTexts
    ) -> list[SettledText]:
        """Many turns of contrastive search at once: what each text was settled to go on with (engine/burst.py)."""
        weights = self.weights()
        with within(mesh_of(weights)), self._whole(cache):
            return self.bursts.run_texts(weights, batch, cache, form, texts)

    @contextmanager
    def _whole(self, cache: JaxCache) -> Iterator[None]:
        """Within, a failure that loses what is stored ends the engine too: the next call gets a new one."""
        try:
            yield
        except BaseException:
            if cache.is_lost:
                self._engine = None
            raise

    @takes_tensors_of("jax")
    def __call__(
        self,
        input_ids: Any = None,
        attention_mask: Any = None,
        position_ids: Any = None,
        past_key_values: Any = None,
        inputs_embeds: Any = None,
        labels: Any = None,
        use_cache: bool | None = None,
        output_hidden_states: bool = False,
        output_attentions: bool = False,
        return_dict: bool = True,
        token_type_ids: Any = None,
    ) -> Any:
        """A CausalLMOutput: the logits [R, S, V] of a rectangle of rows, padded on either side; zero where the mask is.

        It may be traced and differentiated, unless a past is asked for (`use_cache=True`) or given. Positions count
        tokens, not columns. No family here reads `token_type_ids`. Raises ArgumentError for inputs that do not fit.
        """
        given = Rectangle(
            input_ids,
            inputs_embeds,
            attention_mask,
            position_ids,
            past_key_values,
            labels,
            output_hidden_states,
            output_attentions,
        )
        with within(mesh_of(self.weights())):
            remember = bool(use_cache or (use_cache is None and past_key_values is not None))
            output = forward_rectangle(self, given, remember)
        return output if return_dict else output.to_tuple()

    def save_pretrained(self, save_directory: str | Path, **settings: Any) -> None:
        """Writes the weights as they are now, the configuration and the generation settings to a directory."""
        refuse_settings(settings)
        save_model(self, save_directory)


def read_arrays(
    stack: Stack, plan: Plan, tensors: Mapping[str, StoredTensor], dtype: Any, device: str | None
) -> dict[str, jax.Array]:
    """A plan's arrays, by their names, on a device (None: JAX's own). Raises ModelFileError, ArgumentError."""
    kind, place = jax_dtype(dtype), None if device is None else device_named(device)
    place = None if place == jax.devices()[0] else place  # on the default device arrays may still be moved
    return {one.name: jax.device_put(read_field(stack, one, tensors, kind), place) for one in plan.fields()}


def _branch(root: Any, path: str) -> Any:
    """The module at a dotted path, made where it is absent."""
    for name in path.split(".") if path else ():
        if not hasattr(root, name):
            setattr(root, name, Branch())
        root = getattr(root, name)
    return root


def raw(variable: Any) -> Any:
    """The array of a variable."""
    get = getattr(variable, "get_raw_value", None)
    return variable.value if get is None else get()


def put(variable: Any, array: Any) -> None:
    """The array in place of the variable's, wherever it lies."""
    if hasattr(variable, "set_raw_value"):
        variable.set_raw_value(array)
    else:
        variable.value = array
