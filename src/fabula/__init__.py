"""Text generation with language models: the API of transformers on native kernels. Names are bound on first use."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# Module -> the public names it defines; nothing is imported until one of them is asked for.
_EXPORTS = {
    "decoding.constraint_list": ("ConstraintListState",),
    "decoding.constraints": (
        "Constraint",
        "DisjunctiveConstraint",
        "PhrasalConstraint",
    ),
    "errors": (
        "ArgumentError",
        "CancelledError",
        "ContextLengthError",
        "DownloadError",
        "FabulaError",
        "GenerationError",
        "MissingDependencyError",
        "ModelFileError",
        "NotSupportedError",
        "NumericalError",
        "OutOfMemoryError",
        "TemplateError",
        "UnknownArgumentError",
    ),
    "generation.jax_mixin": ("FlaxGenerationMixin",),
    "generation.mixin": ("GenerationMixin",),
    "generation.past.made_caches": ("Cache", "DynamicCache", "EncoderDecoderCache", "QuantizedCache", "StaticCache"),
    "generation.results.outputs": (
        "GenerateBeamDecoderOnlyOutput",
        "GenerateBeamEncoderDecoderOutput",
        "GenerateDecoderOnlyOutput",
        "GenerateEncoderDecoderOutput",
        "ModelOutput",
    ),
    "generation.results.streamers": (
        "AsyncTextIteratorStreamer",
        "BaseStreamer",
        "TextIteratorStreamer",
        "TextStreamer",
    ),
    "generation.seeds": ("set_seed",),
    "generation.settings.compile_config": ("CompileConfig",),
    "generation.settings.config": ("GenerationConfig",),
    "generation.settings.modes": ("GenerationMode",),
    "generation.settings.watermarking_config": (
        "BaseWatermarkingConfig",
        "SynthIDTextWatermarkingConfig",
        "WatermarkingConfig",
    ),
    "generation.tensorflow_mixin": ("TFGenerationMixin",),
    "hub.bits_and_bytes_config": ("BitsAndBytesConfig",),
    "hub.auto": (
        "AutoConfig",
        "AutoModelForCausalLM",
        "AutoModelForSeq2SeqLM",
        "AutoTokenizer",
        "FlaxAutoModelForCausalLM",
        "FlaxAutoModelForSeq2SeqLM",
        "TFAutoModelForCausalLM",
        "TFAutoModelForSeq2SeqLM",
    ),
    "models.families.config": ("ModelConfig",),
    "pipelines.tasks": ("pipeline",),
    "pipelines.text2text_generation": ("Text2TextGenerationPipeline",),
    "pipelines.text_generation": ("TextGenerationPipeline",),
    "processors": (
        "ClassifierFreeGuidanceLogitsProcessor",
        "EncoderNoRepeatNGramLogitsProcessor",
        "EncoderRepetitionPenaltyLogitsProcessor",
        "EpsilonLogitsWarper",
        "EtaLogitsWarper",
        "ExponentialDecayLengthPenalty",
        "ForcedBOSTokenLogitsProcessor",
        "ForcedEOSTokenLogitsProcessor",
        "HammingDiversityLogitsProcessor",
        "InfNanRemoveLogitsProcessor",
        "LogitNormalization",
        "LogitsProcessor",
        "LogitsProcessorList",
        "MinLengthLogitsProcessor",
        "MinNewTokensLengthLogitsProcessor",
        "MinPLogitsWarper",
        "NoBadWordsLogitsProcessor",
        "NoRepeatNGramLogitsProcessor",
        "PrefixConstrainedLogitsProcessor",
        "RepetitionPenaltyLogitsProcessor",
        "SequenceBiasLogitsProcessor",
        "SuppressTokensAtBeginLogitsProcessor",
        "SuppressTokensLogitsProcessor",
        "TemperatureLogitsWarper",
        "TopHLogitsWarper",
        "TopKLogitsWarper",
        "TopPLogitsWarper",
        "TypicalLogitsWarper",
        "UnbatchedClassifierFreeGuidanceLogitsProcessor",
    ),
    "stopping": (
        "ConfidenceCriteria",
        "EosTokenCriteria",
        "MaxLengthCriteria",
        "MaxTimeCriteria",
        "StopStringCriteria",
        "StoppingCriteria",
        "StoppingCriteriaList",
        "validate_stopping_criteria",
    ),
    "text.encoding": ("BatchEncoding",),
    "watermark.bayesian": ("BayesianDetectorConfig", "BayesianDetectorModel", "BayesianWatermarkDetectorModelOutput"),
    "watermark.green_detector": ("WatermarkDetector", "WatermarkDetectorOutput"),
    "watermark.green_list": ("WatermarkLogitsProcessor",),
    "watermark.synthid": ("SynthIDTextWatermarkLogitsProcessor",),
    "watermark.synthid_detector": (
        "SynthIDTextScoreDetector",
        "SynthIDTextScoreDetectorOutput",
        "SynthIDTextWatermarkDetector",
    ),
}
_HOMES = {name: f"fabula.{module}" for module, names in _EXPORTS.items() for name in names}

__all__ = ["__version__", *sorted(_HOMES)]

if TYPE_CHECKING:  # the same table, for type checkers and editors
    from fabula.decoding.constraint_list import ConstraintListState as ConstraintListState
    from fabula.decoding.constraints import Constraint as Constraint
    from fabula.decoding.constraints import DisjunctiveConstraint as DisjunctiveConstraint
    from fabula.decoding.constraints import PhrasalConstraint as PhrasalConstraint
    from fabula.errors import ArgumentError as ArgumentError
    from fabula.errors import CancelledError as CancelledError
    from fabula.errors import ContextLengthError as ContextLengthError
    from fabula.errors import DownloadError as DownloadError
    from fabula.errors import FabulaError as FabulaError
    from fabula.errors import GenerationError as GenerationError
    from fabula.errors import MissingDependencyError as MissingDependencyError
    from fabula.errors import ModelFileError as ModelFileError
    from fabula.errors import NotSupportedError as NotSupportedError
    from fabula.errors import NumericalError as NumericalError
    from fabula.errors import OutOfMemoryError as OutOfMemoryError
    from fabula.errors import TemplateError as TemplateError
    from fabula.errors import UnknownArgumentError as UnknownArgumentError
    from fabula.generation.jax_mixin import FlaxGenerationMixin as FlaxGenerationMixin
    from fabula.generation.mixin import GenerationMixin as GenerationMixin
    from fabula.generation.past.made_caches import Cache as Cache
    from fabula.generation.past.made_caches import DynamicCache as DynamicCache
    from fabula.generation.past.made_caches import EncoderDecoderCache as EncoderDecoderCache
    from fabula.generation.past.made_caches import QuantizedCache as QuantizedCache
    from fabula.generation.past.made_caches import StaticCache as StaticCache
    from fabula.generation.results.outputs import GenerateBeamDecoderOnlyOutput as GenerateBeamDecoderOnlyOutput
    from fabula.generation.results.outputs import GenerateBeamEncoderDecoderOutput as GenerateBeamEncoderDecoderOutput
    from fabula.generation.results.outputs import GenerateDecoderOnlyOutput as GenerateDecoderOnlyOutput
    from fabula.generation.results.outputs import GenerateEncoderDecoderOutput as GenerateEncoderDecoderOutput
    from fabula.generation.results.outputs import ModelOutput as ModelOutput
    from fabula.generation.results.streamers import AsyncTextIteratorStreamer as AsyncTextIteratorStreamer
    from fabula.generation.results.streamers import BaseStreamer as BaseStreamer
    from fabula.generation.results.streamers import TextIteratorStreamer as TextIteratorStreamer
    from fabula.generation.results.streamers import TextStreamer as TextStreamer
    from fabula.generation.seeds import set_seed as set_seed
    from fabula.generation.settings.compile_config import CompileConfig as CompileConfig
    from fabula.generation.settings.config import GenerationConfig as GenerationConfig
    from fabula.generation.settings.modes import GenerationMode as GenerationMode
    from fabula.generation.settings.watermarking_config import BaseWatermarkingConfig as BaseWatermarkingConfig
    from fabula.generation.settings.watermarking_config import (
        SynthIDTextWatermarkingConfig as SynthIDTextWatermarkingConfig,
    )
    from fabula.generation.settings.watermarking_config import WatermarkingConfig as WatermarkingConfig
    from fabula.generation.tensorflow_mixin import TFGenerationMixin as TFGenerationMixin
    from fabula.hub.auto import AutoConfig as AutoConfig
    from fabula.hub.auto import AutoModelForCausalLM as AutoModelForCausalLM
    from fabula.hub.auto import AutoModelForSeq2SeqLM as AutoModelForSeq2SeqLM
    from fabula.hub.auto import AutoTokenizer as AutoTokenizer
    from fabula.hub.auto import FlaxAutoModelForCausalLM as FlaxAutoModelForCausalLM
    from fabula.hub.auto import FlaxAutoModelForSeq2SeqLM as FlaxAutoModelForSeq2SeqLM
    from fabula.hub.auto import TFAutoModelForCausalLM as TFAutoModelForCausalLM
    from fabula.hub.auto import TFAutoModelForSeq2SeqLM as TFAutoModelForSeq2SeqLM
    from fabula.hub.bits_and_bytes_config import BitsAndBytesConfig as BitsAndBytesConfig
    from fabula.models.families.config import ModelConfig as ModelConfig
    from fabula.pipelines.tasks import pipeline as pipeline
    from fabula.pipelines.text2text_generation import Text2TextGenerationPipeline as Text2TextGenerationPipeline
    from fabula.pipelines.text_generation import TextGenerationPipeline as TextGenerationPipeline
    from fabula.processors import ClassifierFreeGuidanceLogitsProcessor as ClassifierFreeGuidanceLogitsProcessor
    from fabula.processors import EncoderNoRepeatNGramLogitsProcessor as EncoderNoRepeatNGramLogitsProcessor
    from fabula.processors import EncoderRepetitionPenaltyLogitsProcessor as EncoderRepetitionPenaltyLogitsProcessor
    from fabula.processors import EpsilonLogitsWarper as EpsilonLogitsWarper
    from fabula.processors import EtaLogitsWarper as EtaLogitsWarper
    from fabula.processors import ExponentialDecayLengthPenalty as ExponentialDecayLengthPenalty
    from fabula.processors import ForcedBOSTokenLogitsProcessor as ForcedBOSTokenLogitsProcessor
    from fabula.processors import ForcedEOSTokenLogitsProcessor as ForcedEOSTokenLogitsProcessor
    from fabula.processors import HammingDiversityLogitsProcessor as HammingDiversityLogitsProcessor
    from fabula.processors import InfNanRemoveLogitsProcessor as InfNanRemoveLogitsProcessor
    from fabula.processors import LogitNormalization as LogitNormalization
    from fabula.processors import LogitsProcessor as LogitsProcessor
    from fabula.processors import LogitsProcessorList as LogitsProcessorList
    from fabula.processors import MinLengthLogitsProcessor as MinLengthLogitsProcessor
    from fabula.processors import MinNewTokensLengthLogitsProcessor as MinNewTokensLengthLogitsProcessor
    from fabula.processors import MinPLogitsWarper as MinPLogitsWarper
    from fabula.processors import NoBadWordsLogitsProcessor as NoBadWordsLogitsProcessor
    from fabula.processors import NoRepeatNGramLogitsProcessor as NoRepeatNGramLogitsProcessor
    from fabula.processors import PrefixConstrainedLogitsProcessor as PrefixConstrainedLogitsProcessor
    from fabula.processors import RepetitionPenaltyLogitsProcessor as RepetitionPenaltyLogitsProcessor
    from fabula.processors import SequenceBiasLogitsProcessor as SequenceBiasLogitsProcessor
    from fabula.processors import SuppressTokensAtBeginLogitsProcessor as SuppressTokensAtBeginLogitsProcessor
    from fabula.processors import SuppressTokensLogitsProcessor as SuppressTokensLogitsProcessor
    from fabula.processors import TemperatureLogitsWarper as TemperatureLogitsWarper
    from fabula.processors import TopHLogitsWarper as TopHLogitsWarper
    from fabula.processors import TopKLogitsWarper as TopKLogitsWarper
    from fabula.processors import TopPLogitsWarper as TopPLogitsWarper
    from fabula.processors import TypicalLogitsWarper as TypicalLogitsWarper
    from fabula.processors import (
        UnbatchedClassifierFreeGuidanceLogitsProcessor as UnbatchedClassifierFreeGuidanceLogitsProcessor,
    )
    from fabula.stopping import ConfidenceCriteria as ConfidenceCriteria
    from fabula.stopping import EosTokenCriteria as EosTokenCriteria
    from fabula.stopping import MaxLengthCriteria as MaxLengthCriteria
    from fabula.stopping import MaxTimeCriteria as MaxTimeCriteria
    from fabula.stopping import StoppingCriteria as StoppingCriteria
    from fabula.stopping import StoppingCriteriaList as StoppingCriteriaList
    from fabula.stopping import StopStringCriteria as StopStringCriteria
    from fabula.stopping import validate_stopping_criteria as validate_stopping_criteria
    from fabula.text.encoding import BatchEncoding as BatchEncoding
    from fabula.watermark.bayesian import BayesianDetectorConfig as BayesianDetectorConfig
    from fabula.watermark.bayesian import BayesianDetectorModel as BayesianDetectorModel
    from fabula.watermark.bayesian import BayesianWatermarkDetectorModelOutput as BayesianWatermarkDetectorModelOutput
    from fabula.watermark.green_detector import WatermarkDetector as WatermarkDetector
    from fabula.watermark.green_detector import WatermarkDetectorOutput as WatermarkDetectorOutput
    from fabula.watermark.green_list import WatermarkLogitsProcessor as WatermarkLogitsProcessor
    from fabula.watermark.synthid import SynthIDTextWatermarkLogitsProcessor as SynthIDTextWatermarkLogitsProcessor
    from fabula.watermark.synthid_detector import SynthIDTextScoreDetector as SynthIDTextScoreDetector
    from fabula.watermark.synthid_detector import SynthIDTextScoreDetectorOutput as SynthIDTextScoreDetectorOutput
    from fabula.watermark.synthid_detector import SynthIDTextWatermarkDetector as SynthIDTextWatermarkDetector


def __getattr__(name: str) -> Any:
    """The public object of that name; its module is imported now, once."""
    if name not in _HOMES:
        raise AttributeError(f"module 'fabula' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Every public name, bound already or not."""
    return sorted({*globals(), *__all__})
