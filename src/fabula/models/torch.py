"""A model in PyTorch: parameters under the checkpoint's names, a forward pass for people, and a step for the engine."""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch

from fabula.cache.kinds import DYNAMIC, CacheKind
from fabula.cache.stamp import Stamp
from fabula.cache.torch import TorchCache
from fabula.cache.torch_kinds import kind_on, new_torch_cache
from fabula.decoding.closed.beam_found import Made
from fabula.decoding.closed.beams import BeamForm, ClosedBeams
from fabula.decoding.closed.record import Gained
from fabula.decoding.closed.rows import ClosedRows, Form
from fabula.decoding.plain_rows import Sampler
from fabula.decoding.recipe import Recipe
from fabula.generation.mixin import GenerationMixin
from fabula.generation.prompts.frameworks import check_tensors
from fabula.generation.settings.config import GenerationConfig
from fabula.models.bursts.torch import run_burst
from fabula.models.bursts.torch_beams import run_beams
from fabula.models.bursts.torch_compiled import Compiled
from fabula.models.bursts.torch_graph import Graphs
from fabula.models.bursts.torch_sampler import torch_sampler
from fabula.models.families.family import Family, Stack
from fabula.models.passes.past import Past, written_past
from fabula.models.passes.torch import Inputs, Weights, compute, head
from fabula.models.passes.torch_rectangle import Rectangle, forward_rectangle
from fabula.models.placement.maps import device_map_of
from fabula.models.weights.rounding import RoundedTensors, Rounding
from fabula.models.weights.saving import refuse_settings
from fabula.models.weights.table import (
    EMBEDDINGS,
    all_entries,
    find_tensor,
    placed_entries,
    served_by_another,
    stored_name,
)
from fabula.models.weights.torch import to_tensor, torch_dtype
from fabula.models.weights.torch_saving import save_model
from fabula.ops.protocol import NO_TAPS, Batch, Forward, Taps
from fabula.ops.torch_rotation import Rotations
from fabula.quant.formats import StoredTensor

DROPOUTS = ("attention_dropout", "attn_pdrop", "embd_pdrop", "resid_pdrop", "dropout_rate")


class _Place(NamedTuple):
    """Where a field of the weight table lives in the module tree."""

    field: str
    owner: torch.nn.Module
    name: str
    transposed: bool

    @property
    def device(self) -> torch.device:
        """Where the parameter is."""
        weight = self.owner._parameters[self.name]
        assert weight is not None
        return weight.device


class _StackPlaces(NamedTuple):
    """Where the fields of a stack's weight table live."""

    outside: list[_Place]
    layers: list[list[_Place]]
    rotations: Rotations

    def weights(self) -> Weights:
        """The parameters under the stack's field names, matrices as [out, in]."""
        outside, layers = _namespace(self.outside), [_namespace(places) for places in self.layers]
        devices = self.devices()
        apart = len({*devices, *(weight.device for weight in vars(outside).values() if weight is not None)}) > 1
        return Weights(outside, layers, self.rotations, devices if apart else None)

    def devices(self) -> list[torch.device]:
        """Where each layer is; its first weight is its own."""
        return [places[0].device for places in self.layers]

    def device_of(self, field: str) -> torch.device:
        """Where a weight outside the layers is."""
        return next(place.device for place in self.outside if place.field == field)


class Embedding(torch.nn.Module):
    """Token ids to the vectors that the first layer reads, positions aside."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        weight = self._parameters["weight"]
        assert weight is not None
        vectors = torch.nn.functional.embedding(input_ids, weight)
        return vectors if self.scale == 1.0 else vectors * torch.tensor(self.scale, dtype=weight.dtype)


class TorchCausalLM(GenerationMixin, torch.nn.Module):
    """A family with its weights as parameters; `state_dict` has transformers' keys. Dropout is not applied."""

    compiles = True  # a call may have torch.compile compile what takes many steps

    def __init__(self, family: Family, parameters: Mapping[str, torch.Tensor]) -> None:
        """`parameters`: a tensor for each name of the weight table, in its shape; one absent is tied or optional."""
        super().__init__()
        self.family = family
        self.config = family.config
        self.generation_config = GenerationConfig.from_model_config(family.config.to_dict())
        self.layers = family.layers
        self._sampler: Sampler | None = None
        self._compiled, self._graphs = Compiled(), Graphs()
        folder, _, _ = family.weights()["embed"].name.rpartition(".")
        parent, _, child = folder.rpartition(".")
        _module(self, parent).add_module(child, Embedding(family.embedding_scale))
        registered = {name: torch.nn.Parameter(tensor) for name, tensor in parameters.items()}
        self._stacks = [self._register(stack, registered) for stack in family.stacks]
        super().train(False)

    def _register(self, stack: Stack, parameters: Mapping[str, torch.nn.Parameter]) -> _StackPlaces:
        """Builds the tree of modules that gives each parameter its name."""
        names = {field: entry.name for field, entry in stack.weights().items()}
        outside: list[_Place] = []
        inside: list[list[_Place]] = [[] for _ in stack.layers]
        for layer, field, entry in placed_entries(stack):
            parameter = parameters.get(entry.name)
            if parameter is None and entry.tied is not None:
                parameter = parameters[names[entry.tied]]
            path, _, name = entry.name.rpartition(".")
            owner = _module(self, path)
            owner.register_parameter(name, parameter)
            places = outside if layer is None else inside[layer]
            places.append(_Place(field, owner, name, entry.transposed))
        return _StackPlaces(outside, inside, Rotations())

    @classmethod
    def from_tensors(
        cls,
        family: Family,
        tensors: Mapping[str, StoredTensor],
        dtype: str | torch.dtype = "float32",
        device: str | torch.device | Mapping[str, str] = "cpu",
    ) -> TorchCausalLM:
        """The model of a checkpoint, packed weights dequantized, on one device or each weight on that of its name.

        Raises ModelFileError for weights that do not fit.
        """
        kind = torch_dtype(dtype)
        whole = tensors.unrounded if isinstance(tensors, RoundedTensors) else tensors  # rounded where they go
        parameters = {}
        for stack, entry in all_entries(family):
            if served_by_another(stack, entry, whole):
                continue
            stored = find_tensor(stack, entry, whole)
            if stored is not None:
                place = device[entry.name] if isinstance(device, Mapping) else device
                rounding = _rounding(tensors, entry.name)
                parameters[entry.name] = to_tensor(stored, kind, place, rounding)
        return cls(family, parameters)

    @property
    def vocab_size(self) -> int:
        """How many tokens have a score."""
        return self.config.vocab_size

    @property
    def dtype(self) -> torch.dtype:
        """The type of the parameters."""
        return next(self.parameters()).dtype

    @property
    def device(self) -> torch.device:
        """Where the parameters are; of those on several devices, where a pass begins."""
        return self._stacks[-1].device_of("embed")

    @property
    def hf_device_map(self) -> dict[str, int | str]:
        """Where each module is, by transformers' names: GPUs as numbers; "" where all are in one place."""
        named = self.named_parameters(remove_duplicate=False)
        return device_map_of(self.family, {name: str(parameter.device) for name, parameter in named})

    @property
    def inputs_like(self) -> torch.Tensor:
        """A tensor where outputs go that have no inputs to follow."""
        return next(self.parameters())

    def num_parameters(self, only_trainable: bool = False, exclude_embeddings: bool = False) -> int:
        """How many numbers the parameters hold, shared ones once."""
        outside = (place for stack in self._stacks for place in stack.outside)
        tables = {id(p.owner._parameters[p.name]) for p in outside if p.field in EMBEDDINGS}
        left_out = tables if exclude_embeddings else set()
        counted = (p for p in self.parameters() if id(p) not in left_out)
        return sum(p.numel() for p in counted if p.requires_grad or not only_trainable)

    def get_input_embeddings(self) -> torch.nn.Module:
        """The module that turns ids into `inputs_embeds`."""
        return self._stacks[-1].outside[0].owner

    def train(self, mode: bool = True) -> TorchCausalLM:
        """Sets the mode; warns of dropout that the configuration asks for."""
        asked = [key for key in DROPOUTS if self.config.get(key)]
        if mode and asked:
            warnings.warn(f"dropout is not applied, though the configuration sets {', '.join(asked)}", stacklevel=2)
        return super().train(mode)

    def _apply(self, fn: Any, recurse: bool = True) -> TorchCausalLM:
        """What moves and converts modules calls this; the engine's cache would stay behind, so it starts anew."""
        super()._apply(fn, recurse)
        self._engine = self._sampler = None
        self._compiled, self._graphs = Compiled(), Graphs()
        return self

    def __getstate__(self) -> dict[str, Any]:
        """Copies and pickles get an engine of their own."""
        own = {"_engine": None, "_sampler": None, "_compiled": Compiled(), "_graphs": Graphs()}
        return {**self.__dict__, **own}

    def save_pretrained(self, save_directory: str | Path, **settings: Any) -> None:
        """Writes the weights as they are now, the configuration and the generation settings to a directory."""
        refuse_settings(settings)
        save_model(self, save_directory)

    def weights(self) -> Weights:
        """The parameters under the family's field names, matrices as [out, in]."""
        return self._stacks[-1].weights()

    def weights_stamp(self) -> Stamp:
        """What is another after a step of training, `load_state_dict`, or anything else that writes to them."""
        places = [place for stack in self._stacks for part in (stack.outside, *stack.layers) for place in part]
        weights = [weight for place in places if (weight := place.owner._parameters[place.name]) is not None]
        marks = ((id(one), one.data_ptr(), 0 if one.is_inference() else one._version) for one in weights)
        return Stamp(tuple(marks), tuple(weakref.ref(one) for one in weights))

    def new_cache(self, blocks: int) -> TorchCache:
        """Storage for this many blocks of keys and values."""
        return self.new_storage(DYNAMIC, blocks)

    def storage_kind(self, kind: CacheKind) -> CacheKind:
        """What is offloaded is where it would be anyway, if the model is on the CPU."""
        return kind_on(self._stacks[-1].devices(), kind)

    def new_storage(self, kind: CacheKind, blocks: int) -> TorchCache:
        """Storage of this kind for so many blocks."""
        heads = [(layer.attention.kv_heads, layer.attention.head_dim) for layer in self.layers]
        return new_torch_cache(kind, heads, blocks, self.dtype, self._stacks[-1].devices())

    @property
    def sampler(self) -> Sampler | None:
        """Chooses tokens in one call of the kernels; None where they are not built, or the head is elsewhere."""
        if self._sampler is None and self._stacks[-1].device_of("head").type == "cpu":
            self._sampler = torch_sampler()
        return self._sampler

    @torch.no_grad()
    def step(self, batch: Batch, cache: TorchCache | None, taps: Taps = NO_TAPS) -> Forward:
        """Computes a batch's positions, stores their keys and values, and scores what it wants scored.

        Without a cache every row must start at position 0. Tapped attentions are a tuple of Float["heads new keys"],
        one for each row that computes anything; those over an encoder's memory likewise, Float["heads new columns"].
        """
        weights = self.weights()
        computed = compute(self.family, weights, batch, cache, taps, Inputs())
        logits = head(self.family, computed.ops, computed.hidden, weights).float()
        hidden = computed.hidden.to(weights.end) if taps.final_hidden else None
        states = {layer: computed.states[layer] for layer in taps.hidden_states}
        early = {
            layer: head(self.family, computed.ops, computed.states[layer], weights).float()
            for layer in taps.layer_logits
        }
        attentions, across = computed.attentions or None, computed.ops.memory_attentions or None
        return Forward(logits, hidden, states or None, attentions, early or None, across)

    def takes_burst(self, recipes: Sequence[Recipe]) -> bool:
        """Whether nothing large is kept of each turn: what a loop has kept is copied at each of its turns."""
        return not any(recipe.record.keeps for recipe in recipes)

    @torch.no_grad()
    def burst(self, batch: Batch, cache: TorchCache, form: Form, rows: ClosedRows) -> list[Gained]:
        """The next tokens of each row, as the engine's bursts want them."""
        made = self._compiled, self._graphs
        return run_burst(self.family, self.weights(), self.sampler, batch, cache, form, rows, *made)

    @property
    def burst_beams(self) -> Callable[..., list[Made]] | None:
        """`search_far` on one GPU, which waits for the host in single turns; on a CPU these are as fast, and kept."""
        return None if self.device.type == "cpu" or self.weights().devices is not None else self.search_far

    def search_far(self, batch: Batch, cache: TorchCache, form: BeamForm, beams: ClosedBeams) -> list[Made]:
        """What each group's next turns chose from, as the engine's bursts of beams want it."""
        return run_beams(self.family, self.weights(), batch, cache, form, beams, self._graphs)

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Past | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        output_hidden_states: bool = False,
        output_attentions: bool = False,
        return_dict: bool = True,
        token_type_ids: Any = None,
    ) -> Any:
        """A CausalLMOutput: the logits of a rectangle of rows, padded on either side where `attention_mask` is 0.

        Positions count tokens, not columns. In training no past is kept unless `use_cache=True` asks for it; a call
        that continues one computes without gradients. No family here reads `token_type_ids`.
        Raises ArgumentError for inputs that do not fit.
        """
        given = Rectangle(
            tensor_of(input_ids, "input_ids"),
            tensor_of(inputs_embeds, "inputs_embeds"),
            tensor_of(attention_mask, "attention_mask"),
            tensor_of(position_ids, "position_ids"),
            written_past(past_key_values, self.new_cache, inputs_embeds if input_ids is None else input_ids),
            tensor_of(labels, "labels"),
            logits_to_keep,
            output_hidden_states,
            output_attentions,
        )
        wanted = past_key_values is not None or (self.config.get("use_cache", True) and not self.training)
        output = forward_rectangle(self, given, wanted if use_cache is None else use_cache)
        return output if return_dict else output.to_tuple()


def _rounding(tensors: Mapping[str, StoredTensor], name: str) -> Rounding | None:
    """What packing would do to the weight of this name."""
    found = stored_name(name, tensors)
    return tensors.rounding(found) if isinstance(tensors, RoundedTensors) and found is not None else None


def _module(root: torch.nn.Module, path: str) -> torch.nn.Module:
    """The module at a dotted path, made where it is absent."""
    for part in path.split(".") if path else ():
        if part not in root._modules:
            root.add_module(part, torch.nn.Module())
        child = root._modules[part]
        assert child is not None
        root = child
    return root


def tensor_of(x: Any, name: str) -> torch.Tensor | None:
    """Lists and NumPy arrays as tensors. Raises ArgumentError, by the argument's name, for another framework's."""
    if x is None or isinstance(x, torch.Tensor):
        return x
    check_tensors("torch", {name: x})
    return torch.as_tensor(x)


def _namespace(places: list[_Place]) -> SimpleNamespace:
    fields = {}
    for field, owner, name, transposed in places:
        weight = owner._parameters[name]
        fields[field] = weight.t() if transposed and weight is not None else weight
    return SimpleNamespace(**fields)
