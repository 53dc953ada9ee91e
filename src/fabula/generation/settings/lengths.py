"""How long a sequence may and must become: the length rule."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fabula.errors import ArgumentError, ContextLengthError
from fabula.generation.settings.fields import DEFAULTS

__all__ = ["Lengths", "lengths_for", "new_token_limits"]

_DEFAULT = (
    "`max_new_tokens` and `max_length` are not set, so at most {new} new tokens are generated. "
    "Set `max_new_tokens` to choose the length."
)
_BOTH = "Both `{new}` (={new_value}) and `{total}` (={total_value}) are set; `{new}` holds."
_UNREACHABLE = (
    "At least {least} new tokens are asked for, and at most {most} are allowed: generation ends at {most}. "
    "Lower `min_new_tokens` or `min_length`, or raise `max_new_tokens`."
)
_BEYOND = "More tokens are asked for than the model's context of {context} holds; generation ends there."


@dataclass(frozen=True, slots=True)
class Lengths:
    """Bounds on the new tokens of one sequence."""

    most: int  # after so many, it ends
    least: int  # before so many, it cannot end by an EOS token


def new_token_limits(config: Any, prompts: Any, context: int | None = None) -> list[tuple[int, int]]:
    """For each prompt the most and the least new tokens; a padded prompt's `max_length` counts its padding."""
    lengths = [lengths_for(config, prompts.width(index), context, len(row)) for index, row in enumerate(prompts.rows)]
    return [(one.most, one.least) for one in lengths]


def lengths_for(config: Any, width: int, context: int | None = None, computed: int | None = None) -> Lengths:
    """The bounds for a prompt of `width` tokens under a resolved config; warns once through the config.

    `context` is the model's number of positions (None: no end), `computed` the prompt's tokens without padding, where
    these are fewer. Raises ArgumentError, ContextLengthError.
    """
    most = _most(config, width)
    room = most if context is None else context - (width if computed is None else computed)
    if room < 1:
        got = width if computed is None else computed
        raise ContextLengthError(
            f"The prompt must be shorter than the context, {context} tokens, got {got}. Shorten it."
        )
    if most > room and (config.max_new_tokens is not None or config.max_length is not None):
        config.say_once(_BEYOND.format(context=context))
    most = min(most, room)
    least = _least(config, width)
    if least > most:
        config.say_once(_UNREACHABLE.format(least=least, most=most))
    return Lengths(most, least)


def _most(config: Any, prompt_length: int) -> int:
    if config.max_new_tokens is not None:
        if config.max_length is not None:
            _say_both(config, "max_new_tokens", "max_length")
        return config.max_new_tokens
    if config.max_length is None:
        config.say_once(_DEFAULT.format(new=DEFAULTS["max_length"]))
        return DEFAULTS["max_length"]
    if prompt_length >= config.max_length:
        raise ArgumentError(
            f"`max_length` must be more than the prompt's {prompt_length} tokens, got {config.max_length}. "
            "Raise it, or set `max_new_tokens`."
        )
    return config.max_length - prompt_length


def _least(config: Any, prompt_length: int) -> int:
    if config.min_new_tokens is None:
        return max(0, (config.min_length or 0) - prompt_length)
    if config.min_length:
        _say_both(config, "min_new_tokens", "min_length")
    return config.min_new_tokens


def _say_both(config: Any, new: str, total: str) -> None:
    values = {"new_value": getattr(config, new), "total_value": getattr(config, total)}
    config.say_once(_BOTH.format(new=new, total=total, **values))
