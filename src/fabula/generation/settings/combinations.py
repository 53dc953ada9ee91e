"""Which values and combinations a config accepts: refused, reported as an issue, or only noticed; one rule a line."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from fabula.errors import ArgumentError
from fabula.generation.settings.checks import NUMERIC
from fabula.generation.settings.fields import FIELDS, OLD_STATIC_CACHES, STATIC_CACHES, Field

__all__ = [
    "CALL_ONLY",
    "ISSUES",
    "NOTICES",
    "REFUSALS",
    "Rule",
    "is_set",
    "issues_of",
    "notices_of",
    "refuse",
    "without_effect",
]

# Arguments of generate() that a config must not hold.
CALL_ONLY = (
    "logits_processor",
    "stopping_criteria",
    "prefix_allowed_tokens_fn",
    "synced_gpus",
    "assistant_model",
    "streamer",
    "negative_prompt_ids",
    "negative_prompt_attention_mask",
)


COMPARED = (
    "num_beams",
    "num_beam_groups",
    "diversity_penalty",
    "num_return_sequences",
    "pad_token_id",
    "penalty_alpha",
    "top_k",
)


@dataclass(frozen=True, slots=True)
class Rule:
    """A combination of settings that is not right, and what to say about it."""

    name: str  # the field to blame
    broken: Callable[[Any], bool]  # settings -> whether it applies
    message: str  # a format string over the settings' names


def _many_alike(settings: Any) -> bool:
    many = (settings.num_return_sequences or 1) > 1
    return many and (settings.num_beams or 1) == 1 and not settings.do_sample


def _more_than_beams(settings: Any) -> bool:
    beams = settings.num_beams or 1
    return beams > 1 and (settings.num_return_sequences or 1) > beams


def _grouped(settings: Any) -> bool:
    return (settings.num_beam_groups or 1) > 1


def _uneven_groups(settings: Any) -> bool:
    return _grouped(settings) and settings.num_beams is not None and settings.num_beams % settings.num_beam_groups != 0


def _alike_groups(settings: Any) -> bool:
    return _grouped(settings) and settings.diversity_penalty is not None and not settings.diversity_penalty > 0


def _constrained(settings: Any) -> bool:
    return settings.constraints is not None or settings.force_words_ids is not None


def _drawn(settings: Any) -> bool:
    return settings.do_sample is True and settings.temperature != 0


def _forced_and_suppressed(name: str) -> Callable[[Any], bool]:
    def broken(settings: Any) -> bool:
        forced = getattr(settings, name)
        if forced is None or settings.suppress_tokens is None:
            return False
        forced = set(forced) if isinstance(forced, list | tuple | set) else {forced}
        return bool(forced) and forced <= set(settings.suppress_tokens)

    return broken


def _idle_reserve(settings: Any) -> bool:
    static = (*STATIC_CACHES, *OLD_STATIC_CACHES)
    return settings.max_cache_len is not None and settings.cache_implementation not in static


_ALIKE = "`num_return_sequences` must be 1 in greedy search, got {num_return_sequences}. Set do_sample=True."
_BEAMS = "`num_return_sequences` must be at most `num_beams`={num_beams}, got {num_return_sequences}. Raise num_beams."
_UNEVEN = (
    "`num_beams` must be a multiple of `num_beam_groups`={num_beam_groups}, got {num_beams}. "
    "Every group has as many beams: set num_beams to a multiple."
)
_DRAWN_GROUPS = "`do_sample` must be False with `num_beam_groups`={num_beam_groups}, got True. Use one or the other."
_ALIKE_GROUPS = (
    "`diversity_penalty` must be above 0 with `num_beam_groups`={num_beam_groups}, got {diversity_penalty}: all groups "
    "would be alike. Set diversity_penalty=1.0."
)
_ONE_BEAM = "`num_beams` must be above 1 with `constraints` or `force_words_ids`, got {num_beams}. Set num_beams=4."
_DRAWN_WORDS = "`do_sample` must be False with `constraints` or `force_words_ids`, got True. Use one or the other."
_GROUPED_WORDS = (
    "`num_beam_groups` must be 1 with `constraints` or `force_words_ids`, got {num_beam_groups}. Use one or the other."
)
_FORCED = "must not all be in `suppress_tokens`: nothing could be chosen. Remove them from one of the two."
_PAD = "`pad_token_id` should be at least 0, got {pad_token_id}. Set the id of a token that fills finished rows."
_IDLE = "`max_cache_len` acts only with a static cache, not with `cache_implementation={cache_implementation}`."

REFUSALS = (
    Rule("num_return_sequences", _many_alike, _ALIKE),
    Rule("num_return_sequences", _more_than_beams, _BEAMS),
    Rule("num_beam_groups", _uneven_groups, _UNEVEN),
    Rule("num_beam_groups", lambda settings: _grouped(settings) and _drawn(settings), _DRAWN_GROUPS),
    Rule("diversity_penalty", _alike_groups, _ALIKE_GROUPS),
    Rule("num_beams", lambda settings: _constrained(settings) and settings.num_beams == 1, _ONE_BEAM),
    Rule("do_sample", lambda settings: _constrained(settings) and _drawn(settings), _DRAWN_WORDS),
    Rule("num_beam_groups", lambda settings: _constrained(settings) and _grouped(settings), _GROUPED_WORDS),
    Rule("forced_bos_token_id", _forced_and_suppressed("forced_bos_token_id"), "`forced_bos_token_id` " + _FORCED),
    Rule("forced_eos_token_id", _forced_and_suppressed("forced_eos_token_id"), "`forced_eos_token_id` " + _FORCED),
)
ISSUES = (Rule("pad_token_id", lambda settings: settings.pad_token_id is not None and settings.pad_token_id < 0, _PAD),)
NOTICES = (Rule("max_cache_len", _idle_reserve, _IDLE),)


def refuse(settings: Any) -> None:
    """Raise ArgumentError for what a config must not hold at all."""
    for name in COMPARED:  # by the rules and needs, so that these can be asked safely
        NUMERIC.require(name, getattr(settings, name))
    for name, field in FIELDS.items():
        if field.check.at_once:
            field.check.require(name, getattr(settings, name))
    if settings.watermarking_config is not None:
        settings.watermarking_config.validate()
    for rule in REFUSALS:
        if rule.broken(settings):
            raise ArgumentError(rule.message.format_map(vars(settings)))
    for name in CALL_ONLY:
        if hasattr(settings, name):
            raise ArgumentError(f"`{name}` must be an argument of generate(), got it in a GenerationConfig. Move it.")


def issues_of(settings: Any, chosen: Collection[str] | None = None) -> dict[str, str]:
    """Fields set to no effect or to trouble, with the reason.

    `chosen` holds the names that the user set now. A field that was inherited is no issue where the user chose
    the mode in which it has no effect. None: everything counts as chosen.
    """
    found = {rule.name: rule.message.format_map(vars(settings)) for rule in ISSUES if rule.broken(settings)}
    for field in FIELDS.values():
        reason = without_effect(field, settings)
        if reason is not None and field.need.warns and not _inherited(field, settings, chosen):
            found[field.name] = f"`{field.name}={getattr(settings, field.name)!r}` has no effect: {reason}"
    return found


def without_effect(field: Field, settings: Any) -> str | None:
    """Why `field` is set and does nothing; None where it acts or is as good as not set."""
    return field.need.unmet(settings) if is_set(field, getattr(settings, field.name)) else None


def is_set(field: Field, value: Any) -> bool:
    """Whether `value` asks for something that the default does not do."""
    off = value is False and field.default is None
    return not (value is None or off or value == field.default)


def _inherited(field: Field, settings: Any, chosen: Collection[str] | None) -> bool:
    """Whether the user chose the mode, and the field came from elsewhere."""
    flag = field.need.flag
    if flag == "do_sample" and settings.do_sample is True:
        flag = "temperature"  # at 0 it is what makes the call greedy
    return chosen is not None and flag in chosen and field.name not in chosen


def notices_of(settings: Any) -> list[str]:
    """Sentences worth saying once, that are no issue."""
    return [rule.message.format_map(vars(settings)) for rule in NOTICES if rule.broken(settings)]
