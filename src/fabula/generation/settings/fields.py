"""Every field of GenerationConfig, one line a field: from this table come validation, explanations, flags and docs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from fabula import arrays
from fabula.generation.settings.checks import ANYTHING, BOOLEAN, Check, ids, listed, number, one_of, texts, whole
from fabula.generation.settings.compile_config import CompileConfig
from fabula.generation.settings.watermarking_config import watermark_of

__all__ = ["DEFAULTS", "FIELDS", "FORMAT_VERSION", "Field", "Need", "stored"]

FORMAT_VERSION = "5.23.0"  # the version of transformers whose generation_config.json this is

STATIC_CACHES = ("static", "offloaded_static")
OLD_STATIC_CACHES = ("sliding_window", "hybrid", "hybrid_chunked", "offloaded_hybrid", "offloaded_hybrid_chunked")
CACHES = (*STATIC_CACHES, *OLD_STATIC_CACHES, "dynamic", "offloaded", "quantized", "paged")


@dataclass(frozen=True, slots=True)
class Need:
    """What must hold for a field to have an effect."""

    flag: str  # the field that decides
    unmet: Callable[[Any], str | None]  # settings -> why there is no effect, or None where there is one
    warns: bool = True  # whether a set field without effect is an issue that a config reports


@dataclass(frozen=True, slots=True)
class Field:
    """One setting of generate()."""

    name: str
    default: Any  # what generate() uses where nobody set it; in a config it is None until then
    group: str  # length, strategy, cache, logits, tokens, assistant, output, encoder or performance
    kind: str  # how a command line reads it: int, float, bool, text, ints, texts, or value (JSON, else the text)
    check: Check
    need: Need
    meaning: str  # one sentence, for --help and the docs
    off: Any = ...  # what an explicit None in a call means, where that is not the default

    @property
    def unset(self) -> Any:
        """What generate() uses where the call says None."""
        return self.default if self.off is ... else self.off


def _beams(settings: Any) -> bool:
    return settings.num_beams is not None and settings.num_beams > 1


def _not_sampled(settings: Any) -> str | None:
    if settings.do_sample is not True:
        return "`do_sample` is not True, so nothing is sampled. Set do_sample=True or leave this out."
    if settings.temperature is not None and settings.temperature == 0:
        return "`temperature=0` always takes the likeliest token. Raise it or leave this out."
    return None


def _temperature_unused(settings: Any) -> str | None:
    if settings.temperature == 0:  # asks for the likeliest token, which is what happens either way
        return None
    return _not_sampled(settings)


def _top_k_unused(settings: Any) -> str | None:
    contrastive = settings.penalty_alpha is not None and settings.penalty_alpha > 0
    return None if contrastive else _not_sampled(settings)


def _one_beam(settings: Any) -> str | None:
    return None if _beams(settings) else "`num_beams` is 1, so there are no beams. Set num_beams>1 or leave this out."


def _no_cache(settings: Any) -> str | None:
    return "`use_cache` is False, so there is no cache. Set use_cache=True." if settings.use_cache is False else None


def _bare_output(settings: Any) -> str | None:
    if settings.return_dict_in_generate is True:
        return None
    return "`return_dict_in_generate` is not True, so only token ids are returned. Set return_dict_in_generate=True."


def _no_assistant(settings: Any) -> str | None:
    asked = (settings.prompt_lookup_num_tokens, settings.assistant_early_exit, settings.use_mtp or None)
    if any(one is not None for one in asked) or getattr(settings, "assistant_model", None) is not None:
        return None
    return "nothing drafts tokens. Pass assistant_model or prompt_lookup_num_tokens."


def _no_lookup(settings: Any) -> str | None:
    return "`prompt_lookup_num_tokens` is not set." if settings.prompt_lookup_num_tokens is None else None


def _one_group(settings: Any) -> str | None:
    grouped = settings.num_beam_groups is not None and settings.num_beam_groups > 1
    return None if grouped else "`num_beam_groups` is 1. Set num_beam_groups>1 or leave this out."


def _not_contrastive(settings: Any) -> str | None:
    contrastive = settings.penalty_alpha is not None and settings.penalty_alpha > 0 and settings.do_sample is not True
    return None if contrastive else "it belongs to contrastive search. Set penalty_alpha>0, top_k>1, do_sample=False."


def _no_encoder(settings: Any) -> str | None:
    return None if getattr(settings, "is_encoder_decoder", False) else "the model has no encoder."


def _effect(settings: Any) -> None:
    return None


ALWAYS = Need("", _effect)
SAMPLED = Need("do_sample", _not_sampled)
TEMPERED = Need("do_sample", _temperature_unused)
CUT = Need("do_sample", _top_k_unused)
BEAMS = Need("num_beams", _one_beam)
GROUPS = Need("num_beam_groups", _one_group, warns=False)
CONTRAST = Need("penalty_alpha", _not_contrastive, warns=False)
CACHED = Need("use_cache", _no_cache)
BOXED = Need("return_dict_in_generate", _bare_output)
DRAFTED = Need("assistant_model", _no_assistant, warns=False)
LOOKUP = Need("prompt_lookup_num_tokens", _no_lookup, warns=False)
ENCODER = Need("is_encoder_decoder", _no_encoder, warns=False)


def _is_watermark(value: Any) -> bool:
    return hasattr(value, "validate") and hasattr(value, "to_dict")


def _is_bias(value: Any) -> bool:
    if isinstance(value, Mapping):
        return bool(value) and all(ids(alone=False).accepts(key) for key in value)
    return isinstance(value, list | tuple) and all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in value)


def _is_decay(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) == 2 and all(number("[0,inf)").accepts(one) for one in value)


def _is_layers(value: Any) -> bool:
    return value in ("low", "high") or listed("", whole(0).accepts).accepts(value)


def _is_seed(value: Any) -> bool:
    return whole(-(2**63)).accepts(value) and value < 2**64


_SEED = Check(
    "an int of at most 64 bits or a list of them, one a prompt",
    lambda value: _is_seed(value) or listed("", _is_seed).accepts(value),
    at_once=True,
)
_STOP = one_of(True, False, "never").early().advise("'never' is the canonical beam search that does not stop early.")
_WORDS = listed("a list of lists of token ids, none empty", lambda one: bool(one) and ids(alone=False).accepts(one))
_MARK = Check("a WatermarkingConfig, a SynthIDTextWatermarkingConfig or a dict", _is_watermark, at_once=True)
_COMPILE = Check("a CompileConfig", lambda value: isinstance(value, CompileConfig), at_once=True)
_BIAS = Check("a dict of token-id tuples to numbers, or a list of [token ids, number]", _is_bias)
_DECAY = Check("a pair (start, factor)", _is_decay)
_LAYERS = Check("'low', 'high' or a list of layer numbers", _is_layers)
_MEAN = number("(0,1)").early().advise("Leave it out for lossless drafts.")
_COUNT = whole(1).advise("Use None where there is no limit.")
_NEW = whole(1).early().advise("Leave it out for the model's own limit.")
_SHARE = number("[0,1]").advise("Use None to switch it off.")
_MASS = number("[0,1]").advise("Use 1.0 to switch it off.")
_PENALTY = number("(0,inf)").advise("Use 1.0 to switch it off.")
_HEAT = number("[0,inf)").advise("Use 0 for greedy decoding.")
_REAL = number("(-inf,inf)")
_ID = ids(alone=True)
_ANY_ID = ids(alone=True, least=-1)
_FORCED = _ID.early()
_BARRED = ids(alone=False, least=-1).early()
_KIND = one_of("constant", "heuristic", "heuristic_transient")
_DRAFT = one_of("dflash")

# fmt: off
_FIELDS = (
    Field("max_length", 20, "length", "int", _COUNT, ALWAYS, "Most tokens of a sequence, its prompt included."),
    Field("max_new_tokens", None, "length", "int", _NEW, ALWAYS, "Most new tokens; goes before max_length."),
    Field("min_length", 0, "length", "int", whole(0), ALWAYS, "Fewest tokens of a sequence, its prompt included."),
    Field("min_new_tokens", None, "length", "int", whole(0), ALWAYS, "Fewest new tokens; goes before min_length."),
    Field("early_stopping", False, "length", "value", _STOP, BEAMS, "When beams stop: true, false or never."),
    Field("max_time", None, "length", "float", number("[0,inf)"), ALWAYS, "Seconds after which no step begins."),
    Field("stop_strings", None, "length", "texts", texts(), ALWAYS, "Texts that end a sequence."),
    Field("do_sample", False, "strategy", "bool", BOOLEAN, ALWAYS, "Draw tokens instead of taking the likeliest."),
    Field("num_beams", 1, "strategy", "int", whole(1), ALWAYS, "Beams of beam search; 1 is none."),
    Field("seed", None, "strategy", "value", _SEED, ALWAYS, "Fixes every draw of a call; a list has one a prompt."),
    Field("use_mtp", None, "strategy", "bool", BOOLEAN, ALWAYS, "Draft with the model's multi-token heads."),
    Field("penalty_alpha", None, "strategy", "float", number("[0,1]"), ALWAYS, "Weight of contrastive search."),
    Field("low_memory", None, "strategy", "bool", BOOLEAN, CONTRAST, "Contrastive candidates one after another."),
    Field("dola_layers", None, "strategy", "value", _LAYERS, ALWAYS, "Layers DoLa contrasts: low, high or a list."),
    Field("num_beam_groups", 1, "strategy", "int", whole(1), ALWAYS, "Groups of diverse beam search."),
    Field("diversity_penalty", 0.0, "strategy", "float", _REAL, GROUPS, "Penalty for another group's token."),
    Field("constraints", None, "strategy", "value", ANYTHING, ALWAYS, "Constraint objects for beam search."),
    Field("force_words_ids", None, "strategy", "value", ANYTHING, ALWAYS, "Words that beams must contain."),
    Field("use_cache", True, "cache", "bool", BOOLEAN, ALWAYS, "Keep keys and values between steps."),
    Field("cache_implementation", None, "cache", "text", one_of(*CACHES).early(), CACHED, "Which cache keeps them."),
    Field("cache_config", None, "cache", "value", ANYTHING, CACHED, "Settings of that cache."),
    Field("max_cache_len", None, "cache", "int", whole(1), ALWAYS, "Positions to reserve in a static cache."),
    Field("prefill_chunk_size", None, "cache", "int", whole(1), ALWAYS, "Prompt tokens computed at a time."),
    Field("temperature", 1.0, "logits", "float", _HEAT, TEMPERED, "Divides the logits; 0 is greedy."),
    Field("top_k", 50, "logits", "int", whole(0), CUT, "Draw among this many likeliest tokens; 0 is all.", None),
    Field("top_p", 1.0, "logits", "float", _MASS, SAMPLED, "Draw among the likeliest tokens of this mass."),
    Field("min_p", None, "logits", "float", _SHARE, SAMPLED, "Least share of the likeliest token's probability."),
    Field("top_h", None, "logits", "float", number("(0,1]"), SAMPLED, "Share of the entropy that is kept."),
    Field("typical_p", 1.0, "logits", "float", number("(0,1]"), SAMPLED, "Mass of locally typical tokens kept."),
    Field("epsilon_cutoff", 0.0, "logits", "float", number("[0,1)"), SAMPLED, "Least probability of a token."),
    Field("eta_cutoff", 0.0, "logits", "float", number("[0,1)"), SAMPLED, "Least probability, by entropy."),
    Field("repetition_penalty", 1.0, "logits", "float", _PENALTY, ALWAYS, "Above 1, repeated tokens lose."),
    Field("encoder_repetition_penalty", 1.0, "logits", "float", _PENALTY, ALWAYS, "Above 1, prompt tokens gain."),
    Field("length_penalty", 1.0, "logits", "float", _REAL, BEAMS, "Exponent of the length in a beam's score."),
    Field("no_repeat_ngram_size", 0, "logits", "int", whole(0), ALWAYS, "No n-gram of this size occurs twice."),
    Field("bad_words_ids", None, "logits", "value", _WORDS, ALWAYS, "Token sequences that must not occur."),
    Field("renormalize_logits", None, "logits", "bool", BOOLEAN, ALWAYS, "Log-probabilities after all processors."),
    Field("forced_bos_token_id", None, "logits", "int", _FORCED, ALWAYS, "The first token after the decoder's start."),
    Field("forced_eos_token_id", None, "logits", "ints", _FORCED, ALWAYS, "The last token at max_length."),
    Field("remove_invalid_values", False, "logits", "bool", BOOLEAN, ALWAYS, "Replace NaN and infinite logits."),
    Field("exponential_decay_length_penalty", None, "logits", "value", _DECAY, ALWAYS, "(start, factor) raising EOS."),
    Field("suppress_tokens", None, "logits", "ints", _BARRED, ALWAYS, "Tokens that must not occur."),
    Field("begin_suppress_tokens", None, "logits", "ints", ids(alone=False), ALWAYS, "Tokens that must not be first."),
    Field("sequence_bias", None, "logits", "value", _BIAS, ALWAYS, "Numbers added to token sequences' logits."),
    Field("token_healing", None, "logits", "bool", BOOLEAN, ALWAYS, "Re-choose the prompt's last token."),
    Field("guidance_scale", None, "logits", "float", _REAL, ALWAYS, "Weight of classifier-free guidance."),
    Field("watermarking_config", None, "logits", "value", _MARK, ALWAYS, "A watermark's settings."),
    Field("num_return_sequences", 1, "output", "int", whole(1), ALWAYS, "Sequences returned for each prompt."),
    Field("output_attentions", False, "output", "bool", BOOLEAN, BOXED, "Return attention weights."),
    Field("output_hidden_states", False, "output", "bool", BOOLEAN, BOXED, "Return hidden states."),
    Field("output_scores", False, "output", "bool", BOOLEAN, BOXED, "Return processed scores of each step."),
    Field("output_logits", None, "output", "bool", BOOLEAN, BOXED, "Return raw logits of each step."),
    Field("output_log_probabilities", None, "output", "bool", BOOLEAN, BOXED, "Return new tokens' log-probabilities."),
    Field("output_prompt_log_probabilities", None, "output", "bool", BOOLEAN, BOXED, "Return the prompt's, too."),
    Field("top_log_probabilities", None, "output", "int", whole(0), BOXED, "Return so many likeliest tokens too."),
    Field("return_dict_in_generate", False, "output", "bool", BOOLEAN, ALWAYS, "Return an object, not only ids."),
    Field("pad_token_id", None, "tokens", "int", _ANY_ID, ALWAYS, "Fills finished rows."),
    Field("bos_token_id", None, "tokens", "int", _ID, ALWAYS, "Begins where no prompt is given."),
    Field("eos_token_id", None, "tokens", "ints", _ANY_ID, ALWAYS, "Tokens that end a sequence."),
    Field("encoder_no_repeat_ngram_size", 0, "encoder", "int", whole(0), ENCODER, "No n-gram of the input occurs."),
    Field("decoder_start_token_id", None, "encoder", "ints", _ID, ENCODER, "The decoder's first token."),
    Field("is_assistant", None, "assistant", "bool", BOOLEAN, DRAFTED, "Set where the model drafts for another."),
    Field("num_assistant_tokens", 20, "assistant", "int", whole(1), DRAFTED, "Tokens drafted at a time."),
    Field("num_assistant_tokens_schedule", "constant", "assistant", "text", _KIND, DRAFTED, "How that number changes."),
    Field("assistant_confidence_threshold", 0.4, "assistant", "float", _SHARE, DRAFTED, "Drafting stops below it."),
    Field("prompt_lookup_num_tokens", None, "assistant", "int", whole(1), ALWAYS, "Drafts copied from the prompt."),
    Field("max_matching_ngram_size", None, "assistant", "int", whole(1), LOOKUP, "Longest n-gram looked up; 2."),
    Field("assistant_early_exit", None, "assistant", "int", whole(1), ALWAYS, "Layer after which a draft exits."),
    Field("assistant_lookbehind", 10, "assistant", "int", whole(0), DRAFTED, "Drafter tokens re-encoded."),
    Field("target_lookbehind", 10, "assistant", "int", whole(0), DRAFTED, "Own tokens re-encoded."),
    Field("assistant_ensemble_weight", None, "assistant", "float", _MEAN, DRAFTED, "Verify against a mixture."),
    Field("speculation_type", None, "assistant", "text", _DRAFT, DRAFTED, "The kind of block drafts."),
    Field("compile_config", None, "performance", "value", _COMPILE, ALWAYS, "Settings of torch.compile."),
    Field("disable_compile", None, "performance", "bool", BOOLEAN, ALWAYS, "Never compile."),
    Field("continuous_batching_config", None, "performance", "value", ANYTHING, ALWAYS, "Settings of generate_batch."),
)
# fmt: on

FIELDS: Mapping[str, Field] = MappingProxyType({field.name: field for field in _FIELDS})
DEFAULTS: Mapping[str, Any] = MappingProxyType({name: field.default for name, field in FIELDS.items()})


def stored(name: str, value: Any) -> Any:
    """A field's value as a config holds it: arrays as lists, a watermark's dict as its config."""
    if name in FIELDS:
        value = arrays.listed(value)
    if name == "watermarking_config" and isinstance(value, dict):
        return watermark_of(value)
    return value
