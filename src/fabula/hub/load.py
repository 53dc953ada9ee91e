"""A checkpoint becomes a model: its weights in the format asked for, on the backend asked for."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from fabula.errors import ArgumentError, NotSupportedError
from fabula.generation.settings.config import GenerationConfig
from fabula.hub.arguments import LoadOptions
from fabula.hub.backends import BACKENDS
from fabula.hub.checkpoint import Checkpoint
from fabula.hub.placing import backend_of, device_of, places_in
from fabula.hub.progress import late_bar
from fabula.hub.vocabulary import check_vocabulary
from fabula.models.encoders.native import NativeSeq2SeqLM
from fabula.models.families.config import ModelConfig
from fabula.models.families.family import EncoderDecoder, Family
from fabula.models.families.table import family_class, family_for
from fabula.models.native import NativeCausalLM
from fabula.models.weights.rounding import RoundedTensors
from fabula.ops.native_weights import Precision
from fabula.quant.convert import FLOATS, ConvertedTensors
from fabula.quant.formats import StoredTensor
from fabula.text.files import TokenizerFiles
from fabula.text.tokenizer import Tokenizer

_PRECISIONS: Mapping[int | None, Precision] = MappingProxyType({None: "packed", 4: "4bit", 8: "8bit"})


def load_model(checkpoint: Checkpoint, options: LoadOptions, config: ModelConfig | None = None) -> Any:
    """The model, with its generation config and tokenizer. Raises ModelFileError where files do not fit together."""
    _refuse_other_quantization(checkpoint)
    family = family_for(config or ModelConfig.from_dict(checkpoint.config))
    tensors, precision = _in_format(checkpoint.tensors, options), _PRECISIONS[options.bits]
    backend = backend_of(options, device_of(options), family)
    dtype = _dense_dtype(checkpoint, options, family)
    places = places_in(backend, options, family, checkpoint.tensors, dtype)
    if backend == "native":
        with late_bar("packing weights") as progress:
            native = NativeSeq2SeqLM if isinstance(family, EncoderDecoder) else NativeCausalLM
            model: Any = native(family, tensors, precision=precision, threads=options.threads, loaded=progress)
    else:
        kind, rounded = BACKENDS[backend].model_class(family), RoundedTensors(family, tensors, precision)
        model = kind.from_tensors(family, rounded, dtype=dtype, device=places)
    model.name_or_path = checkpoint.source
    model.generation_config = _generation_config(checkpoint, family)
    if checkpoint.tokenizer is not None:
        files = checkpoint.tokenizer
        vocabulary = family.config.vocab_size
        model.tokenizer_loader = lambda: _tokenizer(files, vocabulary)
    return model


def check_kind(door: str, checkpoint: Checkpoint, config: ModelConfig | None) -> None:
    """Raises ArgumentError for a model with an encoder at the door of those without, or the other way round."""
    values = checkpoint.config if config is None else config.to_dict()
    kind = family_class(ModelConfig.from_dict(values).to_dict())
    prefix = door.partition("AutoModel")[0]
    right = prefix + ("AutoModelForSeq2SeqLM" if issubclass(kind, EncoderDecoder) else "AutoModelForCausalLM")
    if door != right:
        has = "an encoder" if issubclass(kind, EncoderDecoder) else "no encoder"
        raise ArgumentError(
            f"{checkpoint.source} must be loaded by {right}, got {door}: "
            f"a {values.get('model_type')} model has {has}. Use {right}.from_pretrained."
        )


def _refuse_other_quantization(checkpoint: Checkpoint) -> None:
    asked = checkpoint.config.get("quantization_config")
    if asked:
        method = asked.get("quant_method") if isinstance(asked, Mapping) else asked
        raise NotSupportedError(
            f"{checkpoint.source}/config.json: `quantization_config` must be absent, got the method {method!r}. "
            "Load the model's 16-bit weights with load_in_4bit=True, or a .gguf file."
        )


def _in_format(tensors: Mapping[str, StoredTensor], options: LoadOptions) -> Mapping[str, StoredTensor]:
    """The weights in the type asked for; those that will be quantized are, from whatever floats they are."""
    if options.format is None:
        return tensors
    return ConvertedTensors(tensors, options.format, kept=() if options.bits is None else FLOATS)


def _tokenizer(files: TokenizerFiles, vocabulary: int) -> Tokenizer:
    tokenizer = Tokenizer.from_files(files)
    check_vocabulary(tokenizer, vocabulary, files.source)
    return tokenizer


def _dense_dtype(checkpoint: Checkpoint, options: LoadOptions, family: Family) -> str:
    """The parameters' type: the one asked for, the checkpoint's, or float32 for packed weights.

    A family with an encoder exceeds float16, so that its weights in it are widened unless somebody insists.
    """
    asked = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}
    if options.format is not None:
        return asked[options.format]
    formats = {
        tensor.format for tensor in (checkpoint.tensors[name] for name in checkpoint.tensors) if len(tensor.shape) > 1
    }
    if isinstance(family, EncoderDecoder):
        formats.discard("F16")
    return asked[formats.pop()] if len(formats) == 1 and formats <= set(asked) else "float32"


def _generation_config(checkpoint: Checkpoint, family: Family) -> GenerationConfig:
    if checkpoint.generation_config is not None:
        return GenerationConfig.from_dict(checkpoint.generation_config)
    return GenerationConfig.from_model_config(family.config.to_dict())
