"""What from_pretrained was asked for, checked: every argument is honoured or refused by name."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from fabula.errors import ArgumentError, NotSupportedError, UnknownArgumentError
from fabula.hub.source_options import SourceOptions

Backend = Literal["native", "torch"]
_DTYPES = {"float32": "F32", "float": "F32", "bfloat16": "BF16", "float16": "F16", "half": "F16"}
_ACCEPTED = {  # without effect, and none is needed: weights are mapped, never copied twice, and in safetensors
    "low_cpu_mem_usage",
    "use_safetensors",
    "weights_only",
    "offload_state_dict",
    "offload_buffers",
    "max_memory",
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
    "tp_plan": "one process computes the model",
    "distributed_config": "one process computes the model",
}


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """How a checkpoint becomes a model."""

    backend: Backend | None = None  # None: native on a CPU, torch elsewhere
    device: str = "cpu"
    format: str | None = None  # "F32", "BF16", "F16"; None: as the checkpoint has it
    bits: Literal[4, 8] | None = None  # quantize the layers' matrices on load
    threads: int | None = None


def read_arguments(arguments: dict[str, Any]) -> tuple[LoadOptions, SourceOptions]:
    """Both sets of options. Raises UnknownArgumentError for a name nobody reads."""
    rest = dict(arguments)
    _refuse(rest)
    bits = _bits(rest)
    load = LoadOptions(
        backend=_backend(rest.pop("backend", None)),
        device=_device(rest.pop("device_map", None)),
        format=_format(rest),
        bits=bits,
        threads=_threads(rest.pop("threads", None)),
    )
    rest.pop("force_download", None)
    source = SourceOptions(
        revision=rest.pop("revision", None),
        token=rest.pop("token", None),
        cache_dir=rest.pop("cache_dir", None),
        local_files_only=bool(rest.pop("local_files_only", False)),
    )
    for name in rest:
        known = [*_ACCEPTED, *_REFUSED, *_NAMES]
        near = difflib.get_close_matches(name, known, n=1)
        hint = f" Did you mean `{near[0]}`?" if near else ""
        raise UnknownArgumentError(f"from_pretrained() has no argument `{name}`.{hint}")
    return load, source


_NAMES = (
    *("config", "generation_config", "gguf_file", "backend", "threads", "device_map", "dtype", "torch_dtype"),
    *("load_in_4bit", "load_in_8bit", "quantization_config", "attn_implementation"),
    *("revision", "token", "cache_dir", "local_files_only", "force_download"),
)


def _refuse(rest: dict[str, Any]) -> None:
    for name, reason in _REFUSED.items():
        if rest.pop(name, None) not in (None, False):
            raise NotSupportedError(f"`{name}` is not supported: {reason}.")
    for name in _ACCEPTED:
        rest.pop(name, None)
    attention = rest.pop("attn_implementation", None)
    if attention not in (None, "eager", "sdpa"):
        raise NotSupportedError(f"`attn_implementation` must be 'eager', 'sdpa' or absent, got {attention!r}.")


def _backend(value: Any) -> Backend | None:
    if value not in (None, "native", "torch"):
        raise ArgumentError(f"`backend` must be 'native', 'torch' or absent, got {value!r}.")
    return value


def _device(value: Any) -> str:
    """The one device that a device_map names; "auto" is a GPU where there is one."""
    if isinstance(value, Mapping):
        devices = {str(device) for device in value.values()}
        if len(devices) != 1:
            raise NotSupportedError(f"`device_map` must place the whole model on one device, got {sorted(devices)}.")
        value = next(iter(value.values()))
    if value is None:
        return "cpu"
    if isinstance(value, bool) or not (isinstance(value, (str, int)) or hasattr(value, "type")):
        raise ArgumentError(f"`device_map` must be 'auto', a device, or a mapping to one, got {value!r}.")
    if isinstance(value, int):
        return f"cuda:{value}"
    return "auto" if str(value) in ("auto", "balanced", "balanced_low_0", "sequential") else str(value)


def _format(rest: dict[str, Any]) -> str | None:
    dtype = rest.pop("dtype", None)
    old = rest.pop("torch_dtype", None)
    if old is not None:
        warnings.warn("`torch_dtype` is deprecated! Use `dtype` instead!", FutureWarning, stacklevel=4)
        dtype = dtype if dtype is not None else old
    if dtype is None or dtype == "auto":
        return None
    name = getattr(dtype, "__name__", None) or str(dtype)
    name = name.removeprefix("torch.")
    if name not in _DTYPES:
        raise ArgumentError(f"`dtype` must be one of 'auto', {', '.join(map(repr, _DTYPES))}, got {dtype!r}.")
    return _DTYPES[name]


def _bits(rest: dict[str, Any]) -> Literal[4, 8] | None:
    config = rest.pop("quantization_config", None)
    four, eight = rest.pop("load_in_4bit", False), rest.pop("load_in_8bit", False)
    if config is not None:
        asked = config if isinstance(config, Mapping) else vars(config)
        if four or eight:
            raise ArgumentError("give either `quantization_config` or `load_in_4bit` / `load_in_8bit`, not both.")
        four = asked.get("load_in_4bit", asked.get("_load_in_4bit", False))
        eight = asked.get("load_in_8bit", asked.get("_load_in_8bit", False))
        if not (four or eight):
            raise NotSupportedError(
                "`quantization_config` must set load_in_4bit or load_in_8bit; other methods are not supported."
            )
    if four and eight:
        raise ArgumentError("`load_in_4bit` and `load_in_8bit` exclude each other.")
    return 4 if four else 8 if eight else None


def _threads(value: Any) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ArgumentError(f"`threads` must be a positive integer or absent, got {value!r}.")
    return value
