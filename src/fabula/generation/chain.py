"""Which processors a call's settings ask for, in transformers' order: one line a processor."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from fabula import processors as p
from fabula.generation.settings.config import GenerationConfig


@dataclass(frozen=True, slots=True)
class Asked:
    """What the processors of one prompt's rows are made from."""

    config: GenerationConfig  # every field settled
    prompt: np.ndarray  # Int["P"]
    max_length: int  # prompt and new tokens
    min_new_tokens: int
    eos: tuple[int, ...]
    allowed: Callable[[int, Any], Any] | None = None  # prefix_allowed_tokens_fn of this prompt
    own: tuple[Any, ...] = ()  # the caller's processors
    text: np.ndarray | None = None  # Int["S"]: what an encoder read; None: the prompt
    healing: tuple[Any, ...] = ()  # what heals the prompt (healing.py)

    @property
    def read(self) -> np.ndarray:
        """Int["1 S"]: what the model reads before it writes."""
        return (self.prompt if self.text is None else self.text)[None]

    @property
    def length(self) -> int:
        """Tokens of the prompt."""
        return len(self.prompt)

    @property
    def least(self) -> int:
        """Tokens that sampling leaves to choose from: in beams one more than end a text, so that some go on."""
        return max(2, 1 + len(self.eos)) if (self.config.num_beams or 1) > 1 else 1

    @property
    def begin(self) -> int:
        """Where generated text begins: behind the prompt, and behind a forced first token."""
        return self.length + (self.length == 1 and self.config.forced_bos_token_id is not None)


TAKES_PLACE = "A {kind} was passed to generate(), and its settings ask for one too: the one that was passed holds."
Maker = Callable[[Asked, Any], Any]  # (what was asked, the field's value) -> the processor

# (field, its value when off, maker)
_GUIDANCE: tuple[tuple[str, Any, Maker], ...] = (
    ("guidance_scale", 1, lambda a, v: p.UnbatchedClassifierFreeGuidanceLogitsProcessor(v, None)),
)
_ON_LOGITS: tuple[tuple[str, Any, Maker], ...] = (
    ("sequence_bias", None, lambda a, v: p.SequenceBiasLogitsProcessor(v)),
    ("encoder_repetition_penalty", 1, lambda a, v: p.EncoderRepetitionPenaltyLogitsProcessor(v, a.read)),
    ("repetition_penalty", 1, lambda a, v: p.RepetitionPenaltyLogitsProcessor(v)),
    ("no_repeat_ngram_size", 0, lambda a, v: p.NoRepeatNGramLogitsProcessor(v)),
    ("encoder_no_repeat_ngram_size", 0, lambda a, v: p.EncoderNoRepeatNGramLogitsProcessor(v, a.read)),
    ("bad_words_ids", None, lambda a, v: p.NoBadWordsLogitsProcessor(v, list(a.eos) or None)),
)
_ON_TOKENS: tuple[tuple[str, Any, Maker], ...] = (
    ("forced_bos_token_id", None, lambda a, v: p.ForcedBOSTokenLogitsProcessor(v)),
    ("forced_eos_token_id", None, lambda a, v: p.ForcedEOSTokenLogitsProcessor(a.max_length, v)),
    ("remove_invalid_values", False, lambda a, v: p.InfNanRemoveLogitsProcessor()),
    (
        "exponential_decay_length_penalty",
        None,
        lambda a, v: p.ExponentialDecayLengthPenalty(tuple(v), list(a.eos), a.length),
    ),
    ("suppress_tokens", None, lambda a, v: p.SuppressTokensLogitsProcessor(v) if v else None),
    ("begin_suppress_tokens", None, lambda a, v: p.SuppressTokensAtBeginLogitsProcessor(v, a.begin) if v else None),
)
_WHEN_SAMPLED: tuple[tuple[str, Any, Maker], ...] = (
    ("temperature", 1, lambda a, v: p.TemperatureLogitsWarper(v)),
    ("top_h", None, lambda a, v: p.TopHLogitsWarper(v)),
    ("top_k", 0, lambda a, v: p.TopKLogitsWarper(v, min_tokens_to_keep=a.least)),
    ("top_p", 1, lambda a, v: p.TopPLogitsWarper(v, min_tokens_to_keep=a.least)),
    ("min_p", None, lambda a, v: p.MinPLogitsWarper(v, min_tokens_to_keep=a.least)),
    ("typical_p", 1, lambda a, v: p.TypicalLogitsWarper(v, min_tokens_to_keep=a.least)),
    ("epsilon_cutoff", 0, lambda a, v: p.EpsilonLogitsWarper(v, min_tokens_to_keep=a.least)),
    ("eta_cutoff", 0, lambda a, v: p.EtaLogitsWarper(v, min_tokens_to_keep=a.least)),
)


def build_chain(asked: Asked, sampled: bool) -> p.LogitsProcessorList:
    """The processors of one prompt's rows."""
    chain = p.LogitsProcessorList(_made(_GUIDANCE, asked))
    chain += asked.healing
    chain += _made(_ON_LOGITS, asked)
    if asked.min_new_tokens > 0 and asked.eos:
        chain.append(p.MinNewTokensLengthLogitsProcessor(asked.length, asked.min_new_tokens, list(asked.eos)))
    if asked.allowed is not None:
        chain.append(p.PrefixConstrainedLogitsProcessor(asked.allowed))
    chain += _made(_ON_TOKENS, asked)
    chain = _with_own(chain, asked)
    if sampled:
        chain += _made(_WHEN_SAMPLED, asked)
    if asked.config.watermarking_config is not None:
        chain.append(asked.config.watermarking_config.construct_processor())
    if asked.config.renormalize_logits:
        chain.append(p.LogitNormalization())
    return chain


def _with_own(chain: p.LogitsProcessorList, asked: Asked) -> p.LogitsProcessorList:
    """The caller's processors: each in the place of the settings' one of the same class, the rest at the end."""
    left = list(asked.own)
    merged = p.LogitsProcessorList()
    for made in chain:
        own = next((one for one in left if _kind(one) == _kind(made)), None)
        if own is not None:
            left.remove(own)
            asked.config.say_once(TAKES_PLACE.format(kind=_kind(made)))
        merged.append(made if own is None else own)
    merged += left
    return merged


def _kind(processor: Any) -> str:
    return type(getattr(processor, "processor", processor)).__name__


def _made(table: tuple[tuple[str, Any, Maker], ...], asked: Asked) -> list[Any]:
    """The processors of the table's fields that are not off."""
    values = [(getattr(asked.config, field), off, maker) for field, off, maker in table]
    made = [maker(asked, value) for value, off, maker in values if value is not None and value != off]
    return [processor for processor in made if processor is not None]
