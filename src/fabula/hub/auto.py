"""The doors of loading, each from any source: configurations, tokenizers, models with an encoder and without."""

from __future__ import annotations

from os import PathLike
from typing import Any

from fabula.errors import ArgumentError
from fabula.generation.settings.config import GenerationConfig
from fabula.hub.arguments import read_arguments, read_source_arguments
from fabula.hub.backends import backend_for
from fabula.hub.load import check_kind, load_model
from fabula.hub.open import open_checkpoint, open_config, open_tokenizer
from fabula.hub.source_options import SourceOptions
from fabula.hub.vocabulary import check_vocabulary, directory_vocabulary
from fabula.models.families.config import ModelConfig
from fabula.text.tokenizer import Tokenizer

Source = str | PathLike[str]


class AutoConfig:
    """Reads a model's configuration."""

    @staticmethod
    def from_pretrained(source: Source | None = None, **arguments: Any) -> ModelConfig:
        """The configuration of a directory, a .gguf file, a hub id or the default model, as an object.

        Raises ModelFileError for a file that is missing, damaged or impossible.
        """
        source = _source(source, arguments)
        options = read_source_arguments(arguments)
        return ModelConfig.from_dict(open_config(source, **_where(options)))


class AutoTokenizer:
    """Reads a model's tokenizer."""

    @staticmethod
    def from_pretrained(source: Source | None = None, **arguments: Any) -> Tokenizer:
        """The tokenizer of a directory, a .gguf file, a hub id or the default model.

        `padding_side`, `truncation_side`, `model_max_length`, `pad_token` and the other tokens may be given here too.
        """
        settings = {name: arguments.pop(name) for name in list(arguments) if name in Tokenizer.SETTINGS}
        for name in ("use_fast", "legacy", "clean_up_tokenization_spaces"):
            arguments.pop(name, None)
        source = _source(source, arguments)
        options = read_source_arguments(arguments, Tokenizer.SETTINGS)
        tokenizer = Tokenizer.from_files(open_tokenizer(source, **_where(options)))
        vocabulary = directory_vocabulary(source)
        if vocabulary is not None:
            check_vocabulary(tokenizer, vocabulary, source)
        tokenizer.name_or_path = str(source)
        for name, value in settings.items():
            setattr(tokenizer, name, value)
        return tokenizer


class AutoModelForCausalLM:
    """Reads a model that continues text."""

    @staticmethod
    def from_pretrained(source: Source | None = None, **arguments: Any) -> Any:
        """The model of a directory, a .gguf file, a hub id or the default model, ready to generate.

        `device_map` places it: a device, "auto" and its kin with `max_memory`, or devices by the names of modules;
        `dtype` sets the type of its weights (absent: the checkpoint's own, packed weights as they are);
        `load_in_4bit` / `load_in_8bit` or a `quantization_config` with one of them quantize 16- and 32-bit matrices in
        groups of 32; `backend` is "native" (default on a CPU) or "torch"; `threads` bounds the native one.
        Raises UnknownArgumentError, NotSupportedError or ArgumentError for arguments, ModelFileError for files.
        """
        return _model("AutoModelForCausalLM", source, arguments)


class AutoModelForSeq2SeqLM:
    """Reads a model that answers a text with another: an encoder and a decoder."""

    @staticmethod
    def from_pretrained(source: Source | None = None, **arguments: Any) -> Any:
        """The model of a directory or a hub id, ready to generate.

        The arguments and what is raised are those of AutoModelForCausalLM.
        """
        return _model("AutoModelForSeq2SeqLM", source, arguments)


class FlaxAutoModelForCausalLM:
    """Reads a model that continues text, for JAX."""

    @staticmethod
    def from_pretrained(source: Source | None = None, **arguments: Any) -> Any:
        """A `flax.nnx.Module` of a directory, a .gguf file, a hub id or the default model, ready to generate.

        The arguments and what is raised are those of AutoModelForCausalLM; `backend` is "jax", packed weights become
        floats, and without `device_map` the model is on JAX's own default device. Raises MissingDependencyError
        where JAX or Flax is not installed.
        """
        return _model("FlaxAutoModelForCausalLM", source, arguments)


class TFAutoModelForCausalLM:
    """Reads a model that continues text, for TensorFlow."""

    @staticmethod
    def from_pretrained(source: Source | None = None, **arguments: Any) -> Any:
        """A `tf.Module` of a directory, a .gguf file, a hub id or the default model, ready to generate.

        The arguments and what is raised are those of AutoModelForCausalLM; `backend` is "tensorflow", packed weights
        become floats, and the model is where TensorFlow puts it. Raises MissingDependencyError where TensorFlow is not
        installed.
        """
        return _model("TFAutoModelForCausalLM", source, arguments)


class TFAutoModelForSeq2SeqLM:
    """Reads a model that answers a text with another, for TensorFlow."""

    @staticmethod
    def from_pretrained(source: Source | None = None, **arguments: Any) -> Any:
        """A `tf.Module` of a directory or a hub id, ready to generate.

        The arguments and what is raised are those of TFAutoModelForCausalLM.
        """
        return _model("TFAutoModelForSeq2SeqLM", source, arguments)


class FlaxAutoModelForSeq2SeqLM:
    """Reads a model that answers a text with another, for JAX."""

    @staticmethod
    def from_pretrained(source: Source | None = None, **arguments: Any) -> Any:
        """A `flax.nnx.Module` of a directory or a hub id, ready to generate.

        The arguments and what is raised are those of FlaxAutoModelForCausalLM.
        """
        return _model("FlaxAutoModelForSeq2SeqLM", source, arguments)


def _model(door: str, source: Source | None, arguments: dict[str, Any]) -> Any:
    """The model that one of the doors was asked for."""
    _bind(door, arguments)
    config = arguments.pop("config", None)
    generation_config = arguments.pop("generation_config", None)
    if config is not None and not isinstance(config, ModelConfig):
        raise ArgumentError(
            f"`config` must be a ModelConfig (AutoConfig.from_pretrained), got {type(config).__name__}."
        )
    if generation_config is not None and not isinstance(generation_config, GenerationConfig):
        raise ArgumentError(f"`generation_config` must be a GenerationConfig, got {type(generation_config).__name__}.")
    source = _source(source, arguments)
    load, options = read_arguments(arguments)
    checkpoint = open_checkpoint(source, **_where(options))
    check_kind(door, checkpoint, config)
    model = load_model(checkpoint, load, config)
    if generation_config is not None:
        model.generation_config = generation_config
    return model


def _bind(door: str, arguments: dict[str, Any]) -> None:
    """Puts the backend of a framework's own door among the arguments. Raises ArgumentError for another."""
    own = backend_for(door)
    if own is None:
        return
    if arguments.get("backend") not in (None, own):
        raise ArgumentError(
            f"`backend` must be {own!r} or absent for {door}, got {arguments['backend']!r}. "
            f"Use {door[door.index('Auto') :]} for others."
        )
    arguments["backend"] = own
    if arguments.get("device_map") is None:
        arguments["device_map"] = "auto"


def _where(options: SourceOptions) -> dict[str, Any]:
    """The options as the open_* functions take them."""
    names = ("revision", "token", "cache_dir", "local_files_only")
    return {name: getattr(options, name) for name in names}


def _source(source: Source | None, arguments: dict[str, Any]) -> Source:
    """The source, by transformers' name for it as well; `gguf_file` names a file in a directory."""
    source = arguments.pop("pretrained_model_name_or_path", None) if source is None else source
    name = arguments.pop("gguf_file", None)
    return source if name is None else f"{source}/{name}"  # None is refused by whoever opens it
