"""Classifier-free guidance: scores pushed away from what the model says without the prompt, or after a negative one."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, ClassVar

from fabula import arrays
from fabula.arrays.ragged import rectangle
from fabula.context import Context
from fabula.errors import ArgumentError
from fabula.processors.arguments import number
from fabula.processors.processor import LogitsProcessor, column

__all__ = ["ClassifierFreeGuidanceLogitsProcessor", "UnbatchedClassifierFreeGuidanceLogitsProcessor"]


class ClassifierFreeGuidanceLogitsProcessor(LogitsProcessor):
    """Guided scores of R rows from 2R rows of scores: first the conditional halves, then the unconditional ones.

    Copet et al. 2023 (MusicGen), section 3.4. `guidance_scale` is above 1.
    """

    def __init__(self, guidance_scale: float) -> None:
        self.guidance_scale = number("guidance_scale", guidance_scale, "Give a number above 1.")
        if self.guidance_scale <= 1:
            raise ArgumentError(f"`guidance_scale` must be above 1, got {guidance_scale!r}. Leave guidance out for 1.")

    def process(self, scores: Any, context: Context) -> Any:
        rows = context.tokens.shape[0]
        if scores.shape[0] != 2 * rows:
            raise ArgumentError(
                f"`scores` must have two rows for each of `input_ids`, got {scores.shape[0]} for {rows}. "
                "Put the unconditional rows behind the conditional ones."
            )
        return scores[rows:] + (scores[:rows] - scores[rows:]) * self.guidance_scale


class UnbatchedClassifierFreeGuidanceLogitsProcessor(LogitsProcessor):
    """Log-probabilities a + (b - a) * guidance_scale: b after the row, a after the same text behind a negative prompt.

    Where the context holds the negative prompts' logits, they are used. Elsewhere `model` is run: any callable with the
    signature of transformers' models, or of input_ids alone, that gives logits [B, L, V]. Without `unconditional_ids`
    Int["B U"] the prompt's last token is the negative prompt. A text that does not go on from the last one is computed
    anew, so rows may be exchanged between calls, as beams do. Sanchez et al. 2023, section 2.
    """

    numbers: ClassVar[dict[str, float]] = {"guidance_scale": 1.0}

    def __init__(
        self,
        guidance_scale: float,
        model: Any,
        unconditional_ids: Any = None,
        unconditional_attention_mask: Any = None,
        use_cache: bool = True,
    ) -> None:
        self.guidance_scale = number("guidance_scale", guidance_scale, "Use 1.0 to switch it off.")
        self.model = model
        self.reads_host = model is not None
        self.unconditional_ids = unconditional_ids
        self.unconditional_attention_mask = unconditional_attention_mask
        self.use_cache = use_cache
        self._text: NegativeText | None = None

    def process(self, scores: Any, context: Context) -> Any:
        xp = arrays.of(scores)
        conditional, scale = xp.log_softmax(scores), column(xp, self.guidance_scale, "float32", scores)
        if isinstance(scale, float) and scale == 1:
            return conditional
        logits = context.unconditional
        if logits is None:
            logits = self._run(xp, rectangle(context.tokens, context.lengths, context.padding))
        unconditional = xp.log_softmax(logits)
        guided = unconditional + (conditional - unconditional) * scale
        return guided if isinstance(scale, float) else xp.where(scale == 1, scores, guided)

    def stack_key(self) -> Hashable | None:
        return () if self.model is None else None

    def _run(self, xp: Any, input_ids: Any) -> Any:
        """Float32["R V"]: the model's logits after the negative prompt and what the rows hold beyond their prompts."""
        if self.model is None:
            raise ArgumentError(
                "`model` must be a model where no logits after a negative prompt are given, got None. Pass the model."
            )
        if self._text is None or input_ids.shape[1] <= self._text.prompt_width:
            self._text = self._begin(xp, input_ids)
        self._text = text = continued(self._text, xp, input_ids)
        return xp.astype(text.logits, "float32")

    def _begin(self, xp: Any, input_ids: Any) -> NegativeText:
        """The negative prompts of rows whose prompts these ids are."""
        given = self.unconditional_ids
        ids = input_ids[:, -1:] if given is None else xp.as_indices(xp.asarray(given, "int64", like=input_ids))
        mask = self.unconditional_attention_mask
        mask = xp.ones_like(ids) if mask is None else xp.asarray(mask, "int64", like=input_ids)
        times, left = divmod(input_ids.shape[0], ids.shape[0])
        if left:
            raise ArgumentError(
                f"`unconditional_ids` must have as many rows as `input_ids`, or a divisor of it, got {ids.shape[0]} "
                f"for {input_ids.shape[0]}. Give one negative prompt a prompt."
            )
        run = wants(self.model, self.use_cache)
        return NegativeText(run, input_ids.shape[1], xp.repeat(ids, times), xp.repeat(mask, times))


@dataclass(frozen=True, slots=True)
class NegativeText:
    """What a model without the prompt has been shown."""

    run: Callable[..., Any]
    prompt_width: int  # columns of the rows' own prompts
    ids: Any  # Int["R U"]: negative prompts
    mask: Any  # Int["R U"]: which of their columns count
    shown: Any = None  # Int["R N"]: the rows' ids at the last call
    past: Any = None  # the model's cache of all that was shown
    logits: Any = None  # Float["R V"]: what it says comes next


def continued(text: NegativeText, xp: Any, input_ids: Any) -> NegativeText:
    """The text after rows Int["R L"], of which only what is new is run if the rest is what was shown."""
    new = input_ids[:, text.prompt_width :]
    ids, mask = xp.concat([text.ids, new]), xp.concat([text.mask, xp.ones_like(new)])
    cached = text.past is not None and _goes_on(xp, text.shown, input_ids)
    first = text.ids.shape[1] + text.shown.shape[1] - text.prompt_width if cached else 0
    output = text.run(ids[:, first:], attention_mask=mask, past_key_values=text.past if cached else None)
    logits = getattr(output, "logits", output)
    past = getattr(output, "past_key_values", None)
    return NegativeText(text.run, text.prompt_width, text.ids, text.mask, input_ids, past, logits[:, -1])


def wants(model: Any, use_cache: bool) -> Callable[..., Any]:
    """The model as a function that is given only those of transformers' arguments that it knows."""
    parameters = inspect.signature(getattr(model, "forward", model)).parameters
    everything = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values())

    def run(input_ids: Any, **arguments: Any) -> Any:
        arguments["use_cache"] = use_cache
        known = {name: value for name, value in arguments.items() if everything or name in parameters}
        return model(input_ids, **known)

    return run


def _goes_on(xp: Any, shown: Any, input_ids: Any) -> bool:
    """Whether rows are longer than those shown and begin with them."""
    width = shown.shape[1]
    if tuple(shown.shape[:1]) != tuple(input_ids.shape[:1]) or input_ids.shape[1] <= width:
        return False
    return bool(xp.to_host(xp.all(shown == input_ids[:, :width])).all())
