"""Who drafts in a call: the text itself, the model's first layers, or another model, even one of another tokenizer."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fabula.decoding.draft_length import DraftLength
from fabula.decoding.prompt_lookup import PromptLookup
from fabula.decoding.strategy import Drafter
from fabula.engine.draft_model import DraftLimits, ModelDrafter
from fabula.engine.draft_translation import TranslatedDrafter
from fabula.engine.early_exit import EarlyExit
from fabula.errors import ArgumentError, NotSupportedError
from fabula.generation.recipe import token_ids
from fabula.generation.settings.config import GenerationConfig
from fabula.generation.settings.fields import FIELDS
from fabula.generation.settings.modes import GenerationMode
from fabula.generation.settings.rules import WITHOUT_HEADS
from fabula.ops.protocol import NO_TAPS, Batch, Forward, Taps

__all__ = ["Assistance", "chosen_fields", "drafter_of", "drafters_of"]

LOOKED_UP = 2  # tokens of the largest n-gram that is looked up


@dataclass(frozen=True, slots=True)
class Assistance:
    """What a call says about drafts."""

    config: GenerationConfig  # every field settled
    chosen: Collection[str] = ()  # the fields that the call itself, or the config passed to it, sets
    tokenizer: Any = None  # of the model, if the call brought one
    assistant: Any = None  # `assistant_model`
    assistant_tokenizer: Any = None

    def setting(self, name: str) -> Any:
        """A field of drafting: as the call says, else as the assistant's own config does, else the default."""
        own = getattr(getattr(self.assistant, "generation_config", None), name, None)
        return getattr(self.config, name) if name in self.chosen or own is None else own


@dataclass(frozen=True, slots=True)
class Aside:
    """A model that drafts: its steps leave those of an engine that runs it alone."""

    model: Any

    def new_cache(self, blocks: int) -> Any:
        """Storage for so many blocks."""
        return self.model.new_cache(blocks)

    def step(self, batch: Batch, cache: Any, taps: Taps = NO_TAPS) -> Forward:
        """One step."""
        return self.model.step_apart(batch, cache, taps)


def chosen_fields(call: Mapping[str, Any], given: GenerationConfig | None) -> frozenset[str]:
    """The fields that a call, or the config passed to it, sets."""
    return frozenset(name for name in FIELDS if call.get(name) is not None or getattr(given, name, None) is not None)


def drafters_of(model: Any, asked: Sequence[Assistance]) -> list[Drafter | None]:
    """The drafter of each prompt's rows: one for all that share a config. Raises what drafter_of() raises."""
    made: dict[int, Drafter | None] = {}
    for one in asked:
        if id(one.config) not in made:
            made[id(one.config)] = drafter_of(model, one)
    return [made[id(one.config)] for one in asked]


def drafter_of(model: Any, asked: Assistance) -> Drafter | None:
    """The drafter of the rows of one config; None where nothing drafts.

    Raises ArgumentError for layers that the model does not have, and for an assistant whose tokens are other ones and
    whose tokenizer is not known; NotSupportedError for drafts that are judged in another way.
    """
    config = asked.config
    if config.get_generation_mode(asked.assistant) != GenerationMode.ASSISTED_GENERATION:
        return None
    _one_only(asked)
    mixes = config.assistant_ensemble_weight is not None
    if mixes:
        _refuse_whole_prompt(config)
    if config.assistant_early_exit is not None:
        early = EarlyExit(Aside(model), _exit(model, config.assistant_early_exit))
        return ModelDrafter(early, _limits(model, asked), remembers=mixes)
    if config.prompt_lookup_num_tokens is not None:
        if mixes:
            raise _no_guesses("copies its drafts from the text", "prompt_lookup_num_tokens")
        largest = config.max_matching_ngram_size or LOOKED_UP
        return PromptLookup(config.prompt_lookup_num_tokens, largest, frozenset(token_ids(config.eos_token_id)))
    return _by_assistant(model, asked)


def _refuse_whole_prompt(config: GenerationConfig) -> None:
    """The first token has a draft too, so a prompt is not computed in the step that chooses it."""
    for name in ("output_hidden_states", "output_attentions", "output_prompt_log_probabilities"):
        if config.return_dict_in_generate and getattr(config, name):
            raise NotSupportedError(f"`{name}` is not supported with `assistant_ensemble_weight`. Leave one out.")


def _no_guesses(reason: str, name: str) -> ArgumentError:
    return ArgumentError(
        f"`assistant_ensemble_weight` must be left out beside `{name}`, got both: what drafts {reason}, so it has no "
        "probabilities of the model's tokens. Use an assistant with the model's vocabulary."
    )


def _one_only(asked: Assistance) -> None:
    fields = ("assistant_early_exit", "prompt_lookup_num_tokens")
    drafting = [name for name in fields if getattr(asked.config, name) is not None]
    drafting += ["assistant_model"] if asked.assistant is not None else []
    if len(drafting) > 1:
        raise ArgumentError(
            f"`{drafting[0]}` must not be set beside `{drafting[1]}`: one drafts. Leave one of them out."
        )


def _exit(model: Any, layers: int) -> int:
    if not 1 <= layers < model.layer_count:
        raise ArgumentError(
            f"`assistant_early_exit` must be in [1, {model.layer_count}), the layers that are left out being the gain, "
            f"got {layers}. Try a third of the layers."
        )
    return layers


def _limits(model: Any, asked: Assistance, ends: Any = None) -> DraftLimits:
    """When a draft ends; `ends`: the drafting model's own end tokens, where they are not the call's."""
    drafting = model if asked.assistant is None else asked.assistant
    return DraftLimits(
        length=DraftLength(asked.setting("num_assistant_tokens"), asked.setting("num_assistant_tokens_schedule")),
        confidence=asked.setting("assistant_confidence_threshold") or None,
        eos=frozenset(token_ids(asked.config.eos_token_id if ends is None else ends)),
        vocabulary=model.vocabulary_size if ends is None else None,
        own_vocabulary=drafting.vocabulary_size,
        context=drafting.context_length,
    )


def _by_assistant(model: Any, asked: Assistance) -> Drafter:
    assistant = asked.assistant
    mixes = asked.config.assistant_ensemble_weight is not None
    if asked.config.speculation_type is not None:
        raise NotSupportedError(
            f"`speculation_type` is not supported: {WITHOUT_HEADS['speculation_type']}, "
            f"got {asked.config.speculation_type!r}. Leave it out."
        )
    for name in ("new_cache", "step_apart", "vocabulary_size"):
        if not hasattr(assistant, name):
            raise ArgumentError(
                f"`assistant_model` must be a model that Fabula can run, got {type(assistant).__name__}. "
                "Load it with fabula.AutoModelForCausalLM."
            )
    own, ours = _tokenizers(model, asked)
    if own is None:
        limits = _limits(model, asked)
        return ModelDrafter(Aside(assistant), limits, learnt=_remembered(assistant), remembers=mixes)
    if mixes:
        raise _no_guesses("has tokens of its own", "assistant_tokenizer")
    ends = token_ids(assistant.generation_config.eos_token_id)
    target_ends = token_ids(asked.config.eos_token_id)
    return TranslatedDrafter(
        ModelDrafter(Aside(assistant), _limits(model, asked, ends), learnt=_remembered(assistant)),
        ours,
        own,
        target_lookbehind=asked.setting("target_lookbehind"),
        own_lookbehind=asked.setting("assistant_lookbehind"),
        ends=(frozenset(ends), target_ends[0] if target_ends else None),
    )


def _tokenizers(model: Any, asked: Assistance) -> tuple[Any, Any]:
    """The assistant's tokenizer and the model's, if their tokens are not the same; else two times None."""
    if asked.assistant_tokenizer is None and model.vocabulary_size == asked.assistant.vocabulary_size:
        return None, None
    own = _first(asked.assistant_tokenizer, asked.assistant, "assistant_tokenizer")
    ours = _first(asked.tokenizer, model, "tokenizer")
    same = own.get_vocab() == ours.get_vocab()
    return (None, None) if same else (own, ours)


def _first(given: Any, model: Any, name: str) -> Any:
    """The tokenizer that was passed, or the one that came with the model."""
    if given is not None:
        return given
    try:
        return model.tokenizer
    except (ArgumentError, AttributeError) as error:
        raise ArgumentError(
            f"`{name}` must be given where the two models have other vocabularies, got None. Pass both tokenizers."
        ) from error


def _remembered(assistant: Any) -> Any:
    """Keeps the number of tokens to draft that a schedule found, for the assistant's next call."""

    def learnt(number: int) -> None:
        assistant.generation_config.num_assistant_tokens = number

    return learnt
