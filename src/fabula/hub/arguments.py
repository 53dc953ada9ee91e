"""What from_pretrained was asked for, checked: every argument is honoured or refused by name."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

from fabula.errors import ArgumentError, NotSupportedError, UnknownArgumentError
from fabula.hub.device_maps import SPREADS, read_device, read_max_memory, read_modules
from fabula.hub.source_options import SourceOptions
from fabula.models.placement.spreading import Spread

Backend = Literal["native", "torch", "jax", "tensorflow"]
_BACKENDS: tuple[Backend, ...] = ("native", "torch", "jax", "tensorflow")
_DTYPES = {"float32": "F32", "float": "F32", "bfloat16": "BF16", "float16": "F16", "half": "F16"}
_ACCEPTED = {  # without effect, and none is needed: weights are mapped, never copied twice, and in safetensors
    "low_cpu_mem_usage",
    "weights_only",
    "offload_state_dict",
    "offload_buffers",
    "experts_implementation",
    "resume_download",
    "from_pt",  # weights are those of every framework
}
_REFUSED = {
    "trust_remote_code": "Fabula runs no code from a model's files",
    "offload_folder": "weights are memory-mapped; there is nothing to offload",
    "adapter_kwargs": "adapters are not supported yet",
    "custom_generate": "Fabula runs no code from a model's files",
    "state_dict": "load the checkpoint's files instead",
    "ignore_mismatched_sizes": "a weight of the wrong shape is an error",
    "output_loading_info": "missing and unexpected weights are errors",
    "variant": "name the file or the directory instead",
    "subfolder": "name the folder itself as the source",
    "force_download": "files are checked; to fetch them again, delete them from the cache",
    "key_mapping": "a checkpoint's own names are known",
    "from_tf": "convert the weights to safetensors",
    "from_flax": "convert the weights to safetensors",
    "code_revision": "Fabula runs no code from a model's files",
    "proxies": "set HTTPS_PROXY in the environment",
    "tp_plan": "one process computes the model",
    "distributed_config": "one process computes the model",
}


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """How a checkpoint becomes a model."""

    backend: Backend | None = None  # None: native on a CPU, torch elsewhere
    device: str = "cpu"  # "auto": wherever there is room
    modules: Mapping[str, str] | None = None  # the device of each module by name, in place of one for all
    spread: Spread = "auto"  # how "auto" spreads what several devices hold
    max_memory: Mapping[str, int] | None = None  # device -> bytes that "auto" may use there; those absent are not used
    format: str | None = None  # "F32", "BF16", "F16"; None: as the checkpoint has it
    bits: Literal[4, 8] | None = None  # quantize the layers' matrices on load
    threads: int | None = None


def read_arguments(arguments: dict[str, Any]) -> tuple[LoadOptions, SourceOptions]:
    """Both sets of options. Raises UnknownArgumentError for a name nobody reads."""
    rest = dict(arguments)
    _refuse(rest)
    bits = _bits(rest)
    device_map = rest.pop("device_map", None)
    modules = read_modules(device_map) if isinstance(device_map, Mapping) else None
    if modules is not None and set(modules) == {""}:
        device_map, modules = modules[""], None
    device = "cpu" if modules else _device(device_map)
    load = LoadOptions(
        backend=_backend(rest.pop("backend", None)),
        device="auto" if device in SPREADS else device,
        modules=modules,
        spread=cast("Spread", device) if device in SPREADS else "auto",
        max_memory=read_max_memory(rest.pop("max_memory", None), device),
        format=_format(rest),
        bits=bits,
        threads=_threads(rest.pop("threads", None)),
    )
    if load.backend not in (None, "native") and load.threads is not None:
        raise NotSupportedError(
            "`threads` bounds the native backend only. With torch call torch.set_num_threads()."
            if load.backend == "torch"
            else f"`threads` bounds the native backend only, got backend {load.backend!r}. Leave it out."
        )
    return load, _source(rest, (*_ACCEPTED, *_REFUSED, *_NAMES))


def read_source_arguments(arguments: dict[str, Any], known: Iterable[str] = ()) -> SourceOptions:
    """The options of what loads no weights; `known` are the names that the caller has taken out already."""
    rest = dict(arguments)
    for name in ("trust_remote_code", *_SOURCE_REFUSED):
        _refuse_one(rest, name)
    rest.pop("resume_download", None)
    return _source(rest, (*known, *_SOURCE_NAMES, *_SOURCE_REFUSED))


def _source(rest: dict[str, Any], known: Iterable[str]) -> SourceOptions:
    """Takes the last arguments. Raises UnknownArgumentError for one that is left, with the nearest known name."""
    use_safetensors = rest.pop("use_safetensors", None)
    if use_safetensors is False:
        raise NotSupportedError("`use_safetensors=False` is not supported: reading a pickle can run any code.")
    source = SourceOptions(
        revision=rest.pop("revision", None),
        token=rest.pop("token", None),
        cache_dir=rest.pop("cache_dir", None),
        local_files_only=bool(rest.pop("local_files_only", False)),
    )
    for name in rest:
        near = difflib.get_close_matches(name, list(known), n=1)
        hint = f" Did you mean `{near[0]}`?" if near else ""
        raise UnknownArgumentError(f"from_pretrained() has no argument `{name}`.{hint}")
    return source


_SOURCE_NAMES = ("revision", "token", "cache_dir", "local_files_only", "trust_remote_code", "gguf_file")
_SOURCE_REFUSED = ("subfolder", "force_download", "code_revision", "proxies")
_NAMES = (
    *("config", "generation_config", "gguf_file", "backend", "threads", "device_map", "dtype", "torch_dtype"),
    *("load_in_4bit", "load_in_8bit", "quantization_config", "attn_implementation", "max_memory"),
    *("revision", "token", "cache_dir", "local_files_only", "use_safetensors"),
)


def _refuse(rest: dict[str, Any]) -> None:
    for name in _REFUSED:
        _refuse_one(rest, name)
    for name in _ACCEPTED:
        rest.pop(name, None)
    attention = rest.pop("attn_implementation", None)
    if attention not in (None, "eager", "sdpa"):
        raise NotSupportedError(f"`attn_implementation` must be 'eager', 'sdpa' or absent, got {attention!r}.")


def _refuse_one(rest: dict[str, Any], name: str) -> None:
    if rest.pop(name, None) not in (None, False, "", {}):
        raise NotSupportedError(f"`{name}` is not supported: {_REFUSED[name]}.")


def _backend(value: Any) -> Backend | None:
    if value is not None and value not in _BACKENDS:
        raise ArgumentError(f"`backend` must be one of {', '.join(map(repr, _BACKENDS))} or absent, got {value!r}.")
    return value


def _device(value: Any) -> str:
    """The one device that a device_map names, or how it spreads the model."""
    return "cpu" if value is None else value if value in SPREADS else read_device(value)


def _format(rest: dict[str, Any]) -> str | None:
    dtype = rest.pop("dtype", None)
    old = rest.pop("torch_dtype", None)
    if old is not None:
        warnings.warn("`torch_dtype` is deprecated! Use `dtype` instead!", FutureWarning, stacklevel=5)
        if dtype not in (None, old):
            raise ArgumentError(f"give `dtype` or `torch_dtype`, not both, got {dtype!r} and {old!r}.")
        dtype = old
    if dtype is None or dtype == "auto":
        return None
    name = getattr(dtype, "__name__", None) or getattr(dtype, "name", None) or str(dtype)
    name = name.removeprefix("torch.")
    if name not in _DTYPES:
        raise ArgumentError(f"`dtype` must be one of 'auto', {', '.join(map(repr, _DTYPES))}, got {dtype!r}.")
    return _DTYPES[name]


def _bits(rest: dict[str, Any]) -> Literal[4, 8] | None:
    config = rest.pop("quantization_config", None)
    four, eight = (_flag(name, rest.pop(name, None)) for name in ("load_in_4bit", "load_in_8bit"))
    if config is not None:
        asked = config if isinstance(config, Mapping) else getattr(config, "__dict__", None)
        if not isinstance(asked, Mapping):
            raise ArgumentError(
                f"`quantization_config` must be a mapping or a config object, got {config!r}. "
                "Pass load_in_4bit=True, or {'load_in_4bit': True}."
            )
        if four or eight:
            raise ArgumentError("give either `quantization_config` or `load_in_4bit` / `load_in_8bit`, not both.")
        if asked.get("llm_int8_skip_modules"):
            raise NotSupportedError(
                "`llm_int8_skip_modules` must be absent, as all matrices are packed alike, got "
                f"{asked['llm_int8_skip_modules']!r}. Load the weights with dtype='float32' or 'bfloat16' to pack none."
            )
        four = asked.get("load_in_4bit", asked.get("_load_in_4bit", False))
        eight = asked.get("load_in_8bit", asked.get("_load_in_8bit", False))
        if not (four or eight):
            raise NotSupportedError(
                "`quantization_config` must set load_in_4bit or load_in_8bit; other methods are not supported."
            )
    if four and eight:
        raise ArgumentError("`load_in_4bit` and `load_in_8bit` exclude each other.")
    return 4 if four else 8 if eight else None


def _flag(name: str, value: Any) -> bool:
    if value not in (None, False, True):
        raise ArgumentError(f"`{name}` must be True or False, got {value!r}.")
    return bool(value)


def _threads(value: Any) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ArgumentError(f"`threads` must be a positive integer or absent, got {value!r}.")
    return value
