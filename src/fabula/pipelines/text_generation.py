"""pipeline("text-generation"): texts and chats in, the same continued by the model out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import count, islice
from os import PathLike
from typing import Any, ClassVar

import numpy as np

from fabula.errors import ArgumentError
from fabula.generation.mixin import GenerationMixin
from fabula.pipelines.callers_framework import drawn_seed, in_callers_framework
from fabula.pipelines.defaults import FREE_TEXT, settled, with_defaults
from fabula.pipelines.inputs import Chat, read_inputs
from fabula.pipelines.records import Encoded, by_row, continues, record_of
from fabula.pipelines.settings import Settings, read_settings

_TOGETHER = 32  # prompts of a list that are computed together where nobody says how many
_ONE_BY_ONE = ("streamer", "logits_processor", "stopping_criteria", "prefix_allowed_tokens_fn")  # see one call a prompt
_SEEDS = 2**64


class TextGenerationPipeline:
    """Continues texts and chats. Arguments given when it is made hold for every call that does not override them."""

    defaults: ClassVar[Mapping[str, Any]] = FREE_TEXT
    task_name: ClassVar[str] = "text-generation"
    reads_with_encoder: ClassVar[bool] = False

    def __init__(
        self,
        model: Any,
        tokenizer: Any = None,
        *,
        task: str | None = None,
        device: Any = None,
        assistant_model: Any = None,
        assistant_tokenizer: Any = None,
        **settings: Any,
    ) -> None:
        """`model` is a loaded one; `tokenizer` defaults to its own; `settings` are arguments of calls."""
        self.model = _checked(model, self.reads_with_encoder)
        if device is not None:
            self.model = self.model.to(device)
        self.tokenizer = _own_tokenizer(model) if tokenizer is None else tokenizer
        self.task = self.task_name if task is None else task
        self.assistant_model = assistant_model
        self.assistant_tokenizer = assistant_tokenizer
        self.prefix: str | None = getattr(getattr(model, "config", None), "prefix", None)
        self._settings = read_settings(settings, Settings(prefix=self.prefix), self._extras())

    @property
    def device(self) -> Any:
        """Where the model computes."""
        return getattr(self.model, "device", "cpu")

    @property
    def dtype(self) -> Any:
        """The type of the model's weights."""
        return getattr(self.model, "dtype", None)

    def save_pretrained(self, save_directory: str | PathLike[str], **options: Any) -> None:
        """Writes the model and the tokenizer into a directory; `options` go to the model's save_pretrained()."""
        self.model.save_pretrained(save_directory, **options)
        self.tokenizer.save_pretrained(save_directory)

    def __call__(self, text_inputs: Any, **settings: Any) -> Any:
        """Records of what was generated: one list for a text or a chat, a list of lists for a list of them.

        A record holds `generated_text`: the text with what the model added, or the chat's messages with its answer;
        with `return_full_text=False` only what was added; with `return_tensors=True` `generated_token_ids` instead.
        There is one record for each of `num_return_sequences`. A generator or a dataset gives an iterator, which
        computes as it is read. `settings` are a pipeline's own arguments and those of generate(). With `seed=`, the
        i-th prompt draws with seed + i, whatever `batch_size` is.

        Raises ArgumentError, UnknownArgumentError, TemplateError (a chat and no template), and what generate() raises.
        """
        asked = read_settings(settings, self._settings, self._extras())
        inputs = read_inputs(text_inputs)
        together = asked.batch_size or (1 if inputs.lazy or _one_by_one(asked) else _TOGETHER)
        answers = self._answers(inputs.prompts, asked, together)
        if inputs.lazy:
            return answers
        return next(answers) if inputs.single else list(answers)

    def _answers(self, prompts: Iterable[str | Chat], asked: Settings, together: int) -> Iterator[list[dict[str, Any]]]:
        """The records of each prompt, in order."""
        arguments = self._arguments(asked)
        seeds = self._seeds(arguments)
        encoded = (self._encoded(prompt, asked, arguments) for prompt in prompts)
        while batch := list(islice(encoded, together)):
            call = dict(arguments)
            if seeds is not None:
                call["seed"] = list(islice(seeds, len(batch)))
                if len(call["seed"]) < len(batch):
                    raise ArgumentError("`seed` must hold one seed a prompt, got too few. Give one int for all.")
            yield from self._generated(batch, asked, call)

    def _arguments(self, asked: Settings) -> dict[str, Any]:
        """What goes to generate(), for all prompts of the call."""
        call = {**asked.generate, "tokenizer": self.tokenizer}
        if asked.stop is not None:
            call["stop_strings"] = list(asked.stop)
        for name in ("assistant_model", "assistant_tokenizer"):
            if getattr(self, name) is not None:
                call.setdefault(name, getattr(self, name))
        pad = getattr(self.tokenizer, "pad_token_id", None)
        call = with_defaults(call, self.model.generation_config, self.defaults, pad)
        self._make_room_for_prefix(asked, call)
        return in_callers_framework(call, self.model.vocabulary_size)

    def _make_room_for_prefix(self, asked: Settings, call: dict[str, Any]) -> None:
        """A total length that somebody chose counts the prompt without the prefix."""
        if not asked.prefix:
            return
        special = bool(asked.encoding.get("add_special_tokens", False))
        length = len(self.tokenizer(asked.prefix, add_special_tokens=special)["input_ids"])
        chosen = settled(call, self.model.generation_config)
        for total, new in (("max_length", "max_new_tokens"), ("min_length", "min_new_tokens")):
            if chosen.get(total) is not None and new not in chosen:
                call[total] = chosen[total] + length

    def _seeds(self, arguments: dict[str, Any]) -> Iterator[int] | None:
        """A seed for each prompt of the call, so that batches do not matter; None where nothing is drawn."""
        chosen = settled(arguments, self.model.generation_config)
        if not chosen.get("do_sample"):
            return None
        seed = chosen.get("seed")
        if isinstance(seed, (list, tuple)):
            return iter(seed)
        first = drawn_seed() if seed is None else seed
        if isinstance(first, bool) or not isinstance(first, (int, np.integer)):
            raise ArgumentError(f"`seed` must be an int, or a list of one a prompt, got {first!r}.")
        return ((int(first) + index) % _SEEDS for index in count())

    def _encoded(self, prompt: str | Chat, asked: Settings, arguments: dict[str, Any]) -> Encoded:
        """The prompt's ids, cut where a hole for the new tokens was asked for."""
        encoding = self._chat(prompt, asked) if isinstance(prompt, Chat) else self._text(prompt, asked)
        ids, mask = encoding["input_ids"], encoding.get("attention_mask")
        if mask is not None:
            ids = [one for one, counts in zip(ids, mask, strict=True) if counts]
        if asked.hole:
            ids = self._with_hole(ids, arguments)
        return Encoded(prompt, [int(one) for one in ids])

    def _text(self, text: str, asked: Settings) -> Any:
        return self.tokenizer((asked.prefix or "") + text, **asked.encoding)

    def _chat(self, chat: Chat, asked: Settings) -> Any:
        """The chat as its template writes it; special tokens are the template's."""
        options = {name: value for name, value in asked.encoding.items() if name != "add_special_tokens"}
        going_on = continues(chat, asked)
        return self.tokenizer.apply_chat_template(
            list(chat.messages),
            add_generation_prompt=not going_on,
            continue_final_message=going_on,
            tools=asked.tools,
            documents=asked.documents,
            return_dict=True,
            **options,
        )

    def _with_hole(self, ids: list[int], arguments: dict[str, Any]) -> list[int]:
        """The last of the ids, as many as leave room for the new ones within the tokenizer's longest text."""
        chosen = settled(arguments, self.model.generation_config)
        new = chosen.get("max_new_tokens")
        new = chosen["max_length"] - len(ids) if new is None else new
        longest = min(self.tokenizer.model_max_length, self.model.context_length)
        if new < 0 or longest <= new:
            raise ArgumentError(
                f"`handle_long_generation='hole'` must leave room for a prompt, got {new} new tokens of at most "
                f"{longest} in all. Lower `max_new_tokens`."
            )
        return ids[-(longest - new) :] if len(ids) + new > longest else ids

    def _generated(self, batch: list[Encoded], asked: Settings, call: dict[str, Any]) -> list[list[dict[str, Any]]]:
        """One call of generate(), and the records of each prompt."""
        output = self.model.generate([one.ids or self._start() for one in batch], **call)
        sequences, others = (output, {}) if isinstance(output, list) else (output["sequences"], by_row(output))
        rows = len(sequences) // len(batch)
        answers: list[list[dict[str, Any]]] = []
        for place, one in enumerate(batch):
            answers.append([])
            for row in range(place * rows, (place + 1) * rows):
                record = self._record(one, list(sequences[row]), asked)
                answers[-1].append({**record, **{name: values[row] for name, values in others.items()}})
        return answers

    def _record(self, prompt: Encoded, sequence: list[int], asked: Settings) -> dict[str, Any]:
        """What one sequence becomes."""
        return record_of(prompt, sequence, asked, self.tokenizer)

    def _start(self) -> list[int]:
        """What an empty text begins with."""
        token = self.model.generation_config.bos_token_id
        if token is None:
            raise ArgumentError(
                "`text_inputs` must not be empty for a model without a beginning-of-sequence token. Give it a text."
            )
        return [token]

    def _extras(self) -> tuple[str, ...]:
        """Names that the model's generation config has beside the fields."""
        return tuple(vars(self.model.generation_config))


def _one_by_one(asked: Settings) -> bool:
    """Whether something of the caller's own was written for one prompt a call."""
    return any(asked.generate.get(name) is not None for name in _ONE_BY_ONE)


def _own_tokenizer(model: Any) -> Any:
    """The tokenizer that came with the model. Raises ArgumentError where none did."""
    if model.tokenizer_loader is None and model._tokenizer is None:
        raise ArgumentError("`tokenizer` must be given: the model came without one. Use AutoTokenizer.")
    return model.tokenizer


def _checked(model: Any, reads_with_encoder: bool) -> Any:
    """The model. Raises ArgumentError for what is none of ours, or is of the other kind."""
    if not isinstance(model, GenerationMixin):
        raise ArgumentError(
            f"`model` must be a model of fabula's, got {type(model).__name__}. "
            "Load one: AutoModelForCausalLM.from_pretrained(...)."
        )
    has_encoder = bool(getattr(getattr(model, "config", None), "is_encoder_decoder", False))
    if has_encoder is not reads_with_encoder:
        right = "text2text-generation" if has_encoder else "text-generation"
        raise ArgumentError(f"`task` must be {right!r} for this model. Use pipeline({right!r}, ...).")
    return model
