"""pipeline(): a task's name and a model become a callable."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from types import MappingProxyType
from typing import Any

from fabula.errors import ArgumentError, NotSupportedError
from fabula.hub.auto import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer
from fabula.hub.default_model import DEFAULT_MODEL
from fabula.pipelines.text2text_generation import Text2TextGenerationPipeline
from fabula.pipelines.text_generation import TextGenerationPipeline

_LOG = logging.getLogger("fabula.pipelines")


@dataclass(frozen=True, slots=True)
class Task:
    """What a task's name stands for."""

    loader: Any  # an AutoModel
    pipeline: type[TextGenerationPipeline]
    default: str | None  # the model where none is named


TASKS: Mapping[str, Task] = MappingProxyType(
    {
        "text-generation": Task(AutoModelForCausalLM, TextGenerationPipeline, DEFAULT_MODEL),
        "text2text-generation": Task(AutoModelForSeq2SeqLM, Text2TextGenerationPipeline, None),
    }
)
_SOURCE = ("revision", "token", "cache_dir", "local_files_only", "trust_remote_code", "code_revision")
_OTHER_INPUTS = ("feature_extractor", "image_processor", "video_processor", "processor")


def pipeline(
    task: str | None = None,
    model: Any = None,
    config: Any = None,
    tokenizer: Any = None,
    *,
    revision: str | None = None,
    use_fast: bool = True,
    token: str | bool | None = None,
    device: Any = None,
    device_map: Any = None,
    dtype: Any = "auto",
    torch_dtype: Any = None,
    trust_remote_code: bool | None = None,
    model_kwargs: Mapping[str, Any] | None = None,
    pipeline_class: type[TextGenerationPipeline] | None = None,
    assistant_model: Any = None,
    assistant_tokenizer: Any = None,
    **settings: Any,
) -> TextGenerationPipeline:
    """The pipeline of a task, ready to be called.

    `model` is a directory, a .gguf file, a hub id, the default model's name or a loaded model; absent, the default
    model. `tokenizer` and `config` are of the same kinds and default to the model's own. `device` and `device_map`
    place the model (absent: on a GPU where there is one), `dtype` sets its weights' type, `model_kwargs` go to
    from_pretrained(). `assistant_model` drafts. All other arguments hold for every call of the pipeline.

    Raises ArgumentError for a task or an argument that is none, NotSupportedError for what is not done here, and what
    from_pretrained() raises. `use_fast` has no effect: every tokenizer is a fast one.
    """
    given = {"revision": revision, "token": token, "trust_remote_code": trust_remote_code}
    source = {name: value for name, value in given.items() if value is not None}
    source |= {name: settings.pop(name) for name in _SOURCE if name in settings}
    _refuse_other_inputs(settings)
    chosen = task_named(task)
    if model is None:
        model = _default_model(task, chosen, tokenizer)
    loading = {**(model_kwargs or {}), **source}
    place, named = _place(device, device_map, loading), isinstance(model, (str, PathLike))
    if named:
        model = _loaded(model, chosen, config, loading, place, _dtype(dtype, torch_dtype))
    return (pipeline_class or chosen.pipeline)(
        model,
        _tokenizer(tokenizer, source),
        task=task,
        device=None if named or place == "auto" else place,
        assistant_model=_assistant(assistant_model),
        assistant_tokenizer=_tokenizer(assistant_tokenizer, {}),
        **settings,
    )


def task_named(name: str | None) -> Task:
    """The task of that name; None is text generation. Raises ArgumentError, listing all, for any other."""
    if name is None:
        return TASKS["text-generation"]
    if name not in TASKS:
        raise ArgumentError(f"`task` must be one of {', '.join(map(repr, TASKS))}, got {name!r}.")
    return TASKS[name]


def _default_model(name: str | None, task: Task, tokenizer: Any) -> str:
    if name is None:
        raise ArgumentError("`task` or `model` must be given, got neither. Use pipeline('text-generation').")
    if tokenizer is not None:
        raise ArgumentError("`model` must be given where `tokenizer` is: the default model has its own.")
    if task.default is None:
        raise ArgumentError(f"`model` must be given for {name!r}: there is no default. Name a directory or a hub id.")
    _LOG.warning("No model was named; using %s. Name it to be sure of what you get.", task.default)
    return task.default


def _refuse_other_inputs(settings: dict[str, Any]) -> None:
    for name in _OTHER_INPUTS:
        if settings.pop(name, None) is not None:
            raise NotSupportedError(f"`{name}` is not supported: a pipeline here reads text. Leave it out.")


def _place(device: Any, device_map: Any, loading: Mapping[str, Any]) -> Any:
    """The device_map to load with. Raises ArgumentError for two that say different things."""
    if device_map is not None and loading.get("device_map") is not None:
        raise ArgumentError("`device_map` must be given once, got it in `model_kwargs` too. Leave one out.")
    device_map = loading.get("device_map") if device_map is None else device_map
    if device is not None and device_map is not None:
        raise ArgumentError("`device` and `device_map` exclude each other, got both. Keep `device_map`.")
    if device is None:
        return device_map
    return "cpu" if isinstance(device, int) and device < 0 else device


def _dtype(dtype: Any, torch_dtype: Any) -> Any:
    """The type asked for, by whichever name; None where the checkpoint's own is kept."""
    if torch_dtype is not None and dtype in (None, "auto"):
        return torch_dtype
    return None if dtype == "auto" else dtype


def _loaded(model: Any, task: Task, config: Any, loading: dict[str, Any], place: Any, dtype: Any) -> Any:
    """The model of that name; where no place is named, on a GPU if there is one."""
    arguments = dict(loading)
    arguments["device_map"] = "auto" if place is None and arguments.get("backend") != "native" else place
    if dtype is not None:
        if "dtype" in arguments or "torch_dtype" in arguments:
            raise ArgumentError("`dtype` must be given once, got it in `model_kwargs` too. Leave one out.")
        arguments["dtype"] = dtype
    if config is not None:
        arguments["config"] = AutoConfig.from_pretrained(config) if isinstance(config, (str, PathLike)) else config
    return task.loader.from_pretrained(model, **arguments)


def _tokenizer(tokenizer: Any, source: Mapping[str, Any]) -> Any:
    """The tokenizer, loaded if it was named, with options where it came as (name, options)."""
    if isinstance(tokenizer, tuple):
        name, options = tokenizer
        return AutoTokenizer.from_pretrained(name, **{**source, **options})
    return AutoTokenizer.from_pretrained(tokenizer, **source) if isinstance(tokenizer, (str, PathLike)) else tokenizer


def _assistant(assistant: Any) -> Any:
    """The model that drafts, loaded if it was named."""
    return AutoModelForCausalLM.from_pretrained(assistant) if isinstance(assistant, (str, PathLike)) else assistant
