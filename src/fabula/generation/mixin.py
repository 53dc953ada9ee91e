"""What every model that generates has: generate(), and the engine behind it."""

from __future__ import annotations

import os
import sys
import weakref
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from fabula import arrays
from fabula.cache.kinds import DYNAMIC, CacheKind
from fabula.decoding.scores import compute_transition_scores
from fabula.engine.engine import Engine
from fabula.errors import ArgumentError, NotSupportedError
from fabula.generation.batch import GenerationOutput, generate_batch
from fabula.generation.custom import generate_custom
from fabula.generation.generate import generate
from fabula.generation.recipe import token_ids
from fabula.generation.settings.config import GenerationConfig
from fabula.ops.protocol import NO_TAPS, Batch, Forward, Taps


class GenerationMixin:
    """Gives a model `generate()`: one with the engine's contract (`new_cache`, `step`) and a `config`, or a
    `torch.nn.Module` with nothing but `forward(input_ids) -> logits`, or with more of transformers' arguments.
    """

    config: Any = None  # what the model was made from; None: a module of somebody's own
    is_encoder_decoder = False  # whether prompts go through an encoder
    main_input_name = "input_ids"  # what `inputs` of generate() is
    tokenizer_loader: Any = None  # () -> the tokenizer that came with the model's files
    _engine: _Running | None = None
    _tokenizer: Any = None

    def can_generate(self) -> bool:
        """True, as transformers' models say it."""
        return True

    @property
    def vocabulary_size(self) -> int:
        """How many ids there are: as `config` says, or as many as there are logits."""
        told = getattr(getattr(self, "config", None), "vocab_size", None)
        return arrays.part(self, "fabula.adapters").vocabulary_size(self) if told is None else int(told)

    @property
    def context_length(self) -> int:
        """How many positions the model was made for; without end where `config` does not say."""
        told = getattr(getattr(self, "config", None), "max_position_embeddings", None)
        return sys.maxsize if told is None else int(told)

    @property
    def inputs_like(self) -> Any:
        """An array of the framework, at the place, that outputs without inputs take; None: NumPy's."""
        try:
            return arrays.part(self, "fabula.adapters").inputs_like(self)
        except ArgumentError:  # a model of no framework
            return None

    @cached_property
    def generation_config(self) -> GenerationConfig:
        """How it generates where a call does not say; to be set, or changed, at any time."""
        return GenerationConfig()

    def new_cache(self, blocks: int) -> Any:
        """Storage of a module with a forward of its own; models with keys and values in blocks have another."""
        return arrays.part(self, "fabula.adapters").new_cache(blocks)

    def step(self, batch: Batch, cache: Any, taps: Taps = NO_TAPS) -> Forward:
        """The same rows in rectangles, as a forward of the module's own takes them."""
        return arrays.part(self, "fabula.adapters").step(self, batch, cache, taps)

    @property
    def layer_count(self) -> int:
        """How many layers the model has."""
        return int(getattr(self.config, "num_hidden_layers", 0))

    @property
    def is_tied(self) -> bool:
        """Whether the embeddings are the head too."""
        return bool(getattr(self.config, "tie_word_embeddings", False))

    @property
    def engine(self) -> Engine:
        """The engine that runs this model's calls, as long as the model lives; a forked process gets one of its own."""
        return self.engine_for(DYNAMIC)

    def engine_for(self, kind: CacheKind) -> Engine:
        """The engine whose keys and values are stored in this way."""
        running = self._engine
        if running is None or running.process != os.getpid() or running.model() is not self:
            self._engine = running = _Running(os.getpid(), weakref.ref(self), {})
        if any(engine.steps_here for engine in running.engines.values()):
            # A caller's own processor generates: its rows cannot join the step that waits for it.
            return Engine(_Stored(_Apart(self), kind), max_positions=64 * self.context_length)
        if kind not in running.engines:
            model: Any = weakref.proxy(self)  # else neither is freed before the garbage collector comes by
            stored = model if kind == DYNAMIC else _Stored(model, kind)
            running.engines.setdefault(kind, Engine(stored, max_positions=64 * self.context_length))
        return running.engines[kind]

    def storage_kind(self, kind: CacheKind) -> CacheKind:
        """The kind that serves where this one is asked for. Raises NotSupportedError."""
        if kind != DYNAMIC:
            raise NotSupportedError(
                f"`cache_implementation` must be 'dynamic' or 'static' for a module with a cache of its own, "
                f"got {kind.name!r}. Leave it out."
            )
        return kind

    def new_storage(self, kind: CacheKind, blocks: int) -> Any:
        """Storage of this kind for so many blocks."""
        return self.new_cache(blocks)

    def step_apart(self, batch: Batch, cache: Any, taps: Taps = NO_TAPS) -> Forward:
        """A step whose logits are the caller's to keep, while other threads, or an outer step, are under way."""
        return self.step(batch, cache, taps)

    @property
    def tokenizer(self) -> Any:
        """The tokenizer that came with the model, read when it is first needed."""
        if self._tokenizer is None:
            if self.tokenizer_loader is None:
                raise ArgumentError("stop strings need a tokenizer, and the model came without one. Pass `tokenizer=`.")
            self._tokenizer, self.tokenizer_loader = self.tokenizer_loader(), None  # which holds what was read
        return self._tokenizer

    def generate(
        self,
        inputs: Any = None,
        generation_config: GenerationConfig | Sequence[GenerationConfig | None] | None = None,
        logits_processor: Any = None,
        stopping_criteria: Any = None,
        prefix_allowed_tokens_fn: Any = None,
        synced_gpus: bool | None = None,
        assistant_model: Any = None,
        streamer: Any = None,
        negative_prompt_ids: Any = None,
        negative_prompt_attention_mask: Any = None,
        custom_generate: Any = None,
        **kwargs: Any,
    ) -> Any:
        """Prompts and what the model adds to them.

        `inputs` (or `input_ids`) are ids [R, L] of PyTorch or NumPy, padded on either side with an `attention_mask`
        that says what counts, or ragged lists of ids; None starts from the beginning-of-sequence token. Returns the
        same kind: [R * num_return_sequences, L + N] int64, right-padded, or lists of prompt plus new ids; an output
        object if `return_dict_in_generate`. `generation_config` and any of its fields by name say how: a name given
        here wins, then the config passed (one for all, or a list of one a prompt), then the model's own, then the
        default. `streamer` gets the prompt, then each token.

        `logits_processor`, `stopping_criteria` and `prefix_allowed_tokens_fn` are the caller's own: they see arrays of
        the framework of `inputs`, processors the rows that choose in a step (left-padded), criteria one row [1, L].
        `custom_generate` is a function that takes generate()'s place, called as custom.generate_custom() says.

        Raises ArgumentError for values out of range, UnknownArgumentError for unknown names, NotSupportedError for
        what cannot be done yet, ContextLengthError for a prompt longer than the model's context.
        """
        given = {name: value for name, value in locals().items() if name in _CALL_ARGUMENTS}
        if callable(custom_generate):
            call = {**kwargs, **given}
            return generate_custom(self, custom_generate, inputs, generation_config, streamer, call)
        return generate(self, inputs, generation_config, streamer, {**kwargs, **given})

    def generate_batch(
        self,
        inputs: Sequence[Any],
        generation_config: GenerationConfig | Sequence[GenerationConfig | None] | None = None,
        *,
        record_timestamps: bool = False,
        return_logprobs: bool = False,
        progress_bar: bool = False,
        on_result: Callable[[GenerationOutput], Any] | None = None,
        **kwargs: Any,
    ) -> dict[str, GenerationOutput]:
        """An output for each sequence of each prompt, by its id: "req_0", "req_0__child#0", "req_1", ...

        `inputs` are lists of ids, of any lengths; `generation_config` is one for all or a list of one a prompt, and
        fields by name win over both. A prompt that cannot be answered says why in its output's `error`; the others
        are answered as if each had been alone. `on_result` is called with each output as it ends, from whichever
        thread runs the step; what it raises ends the call. `return_logprobs` and `record_timestamps` fill `logprobs`
        and `timestamps`, an entry a new token.

        Raises ArgumentError, UnknownArgumentError and NotSupportedError for settings that no prompt could have.
        """
        return generate_batch(
            self,
            inputs,
            generation_config,
            record_timestamps=record_timestamps,
            return_logprobs=return_logprobs,
            progress_bar=progress_bar,
            on_result=on_result,
            **kwargs,
        )

    def compute_transition_scores(
        self, sequences: Any, scores: Any, beam_indices: Any = None, normalize_logits: bool = False
    ) -> Any:
        """The score of each new token when it was chosen, [R, steps], from generate()'s `sequences` and `scores`.

        `normalize_logits` makes them log-probabilities. Where nothing but padding is behind a row's first end token,
        those positions are 0.
        """
        xp = arrays.of(sequences)
        eos = token_ids(self.generation_config.eos_token_id)
        ends = xp.asarray(np.array(eos, np.int32), "int32", like=sequences) if eos and beam_indices is None else None
        pad = self.generation_config.pad_token_id
        fill = eos[0] if pad is None and eos else pad
        return compute_transition_scores(sequences, scores, beam_indices, normalize_logits, ends, fill)


class _Running(NamedTuple):
    """Engines by kind of storage, and whose they are: copies and pickles, and forked processes, make new ones."""

    process: int
    model: weakref.ref[Any]
    engines: dict[CacheKind, Engine]

    def __deepcopy__(self, memo: Any) -> None:
        return None

    def __reduce__(self) -> Any:
        return type(None), ()


class _Apart:
    """A model for an engine that runs within a step of the model's own engine."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def new_cache(self, blocks: int) -> Any:
        """Storage for so many blocks."""
        return self.model.new_cache(blocks)

    def new_storage(self, kind: CacheKind, blocks: int) -> Any:
        """Storage of this kind."""
        return self.model.new_storage(kind, blocks)

    def step(self, batch: Batch, cache: Any, taps: Taps = NO_TAPS) -> Forward:
        """One step."""
        return self.model.step_apart(batch, cache, taps)


class _Stored:
    """A model for an engine that stores keys and values in a way of its own."""

    def __init__(self, model: Any, kind: CacheKind) -> None:
        self.model = model
        self.kind = kind

    def new_cache(self, blocks: int) -> Any:
        """Storage for so many blocks."""
        return self.model.new_storage(self.kind, blocks)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)


_CALL_ARGUMENTS = (  # what generate() names and passes on with the rest of the call
    "logits_processor",
    "stopping_criteria",
    "prefix_allowed_tokens_fn",
    "synced_gpus",
    "assistant_model",
    "negative_prompt_ids",
    "negative_prompt_attention_mask",
    "custom_generate",
)
