"""What a call's rows start from: prompts of ids or vectors, or an encoder's memories and the decoder's first tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fabula import arrays
from fabula.errors import ArgumentError
from fabula.generation.prompts.encoder import decoder_prompts, encode, read_encoder_inputs, start_tokens
from fabula.generation.prompts.healing import Healed, Healer
from fabula.generation.prompts.inputs import ModelInputs
from fabula.generation.prompts.positions import check_positions
from fabula.generation.prompts.rows import Prompts, check_rows, host_array, infer_mask, read_prompts
from fabula.generation.recipe import filling, token_ids
from fabula.generation.settings.config import GenerationConfig


@dataclass(frozen=True, slots=True)
class Source:
    """R rows' beginnings."""

    prompts: Prompts
    encoded: Any = None  # what the encoder left; None: the model has none
    texts: Sequence[np.ndarray] | None = None  # the encoder's ids, a row each
    vectors: Sequence[Any] | None = None  # in place of the prompts' ids, a row each: Float["P D"]
    healing: Sequence[tuple[Any, ...]] = ()  # processors that choose each prompt's last token again

    def text(self, index: int) -> np.ndarray:
        """The ids that a row's model reads before it writes: the encoder's, or the prompt."""
        return self.prompts.rows[index] if self.texts is None else self.texts[index]


def read_source(model: Any, given: ModelInputs, config: GenerationConfig) -> Source:
    """Checks and reads what the rows start from; runs the encoder, if there is one. Raises ArgumentError."""
    if model.is_encoder_decoder:
        return _read_encoded(model, given, config)
    if given.vectors is not None:
        return _read_vectors(model, given, config)
    prompts = read_prompts(given.ids, given.mask, **_tokens(config), like=model.inputs_like)
    check_positions(given.positions, prompts)
    check_rows(prompts.rows, vocabulary=model.vocabulary_size, context=model.context_length)
    return Source(prompts)


def healed(source: Source, configs: Sequence[GenerationConfig], tokenizer: Any) -> Source:
    """The same, with prompts whose last tokens are chosen again where their config says so."""
    healer, prompts, config = Healer(tokenizer), source.prompts, configs[0]
    pairs = zip(prompts.rows, configs, strict=True)
    each = [healer.heal(row) if one.token_healing else Healed(row) for row, one in pairs]
    rows = [one.prompt for one in each]
    healing = [one.processors for one in each]
    if prompts.given is None:
        return replace(source, prompts=Prompts(rows), healing=healing)
    ids, mask = Prompts(rows).rectangle(filling(config))
    given = arrays.of(prompts.given).asarray(ids, "int64", like=prompts.given)
    return replace(source, prompts=Prompts(rows, given=given, mask=mask), healing=healing)


def _tokens(config: GenerationConfig) -> dict[str, Any]:
    eos = frozenset(token_ids(config.eos_token_id))
    return {"pad": config.pad_token_id, "eos": eos, "bos": config.bos_token_id}


def _read_vectors(model: Any, given: ModelInputs, config: GenerationConfig) -> Source:
    """Rows that start from vectors; ids passed along are what processors see and what is returned."""
    vectors = given.vectors
    if len(vectors.shape) != 3 or 0 in vectors.shape:
        raise ArgumentError(f"`inputs_embeds` must have the shape [rows, columns, width], got {list(vectors.shape)}.")
    shape = tuple(int(size) for size in vectors.shape[:2])
    shown = given.ids is not None and host_array(given.ids, "input_ids").size > 0
    ids = host_array(given.ids, "input_ids") if shown else np.zeros(shape, np.int64)
    if ids.shape != shape:
        raise ArgumentError(f"`input_ids` must have the shape {list(shape)} of `inputs_embeds`, got {list(ids.shape)}.")
    mask = given.mask
    if mask is None:
        mask = infer_mask(ids, pad=config.pad_token_id, eos=_tokens(config)["eos"]) if shown else np.ones(shape)
    like = arrays.of(vectors).asarray(ids, "int64", like=vectors)
    prompts = replace(read_prompts(like, mask, **_tokens(config)), shown=shown)
    check_positions(given.positions, prompts)
    check_rows(prompts.rows, vocabulary=model.vocabulary_size, context=model.context_length)
    assert prompts.mask is not None
    rows = [row[kept] for row, kept in zip(vectors, prompts.mask, strict=True)]
    return Source(prompts, vectors=rows)


def _read_encoded(model: Any, given: ModelInputs, config: GenerationConfig) -> Source:
    """An encoder's memories, and the decoder's first tokens."""
    if given.vectors is not None:
        raise ArgumentError(
            "`inputs_embeds` must go through the encoder first: pass `encoder_outputs=model.get_encoder()"
            "(inputs_embeds=...)`."
        )
    read = read_encoder_inputs(given.ids, given.mask, given.encoder_outputs, **_tokens(config), like=model.inputs_like)
    shown = {"hidden_states": bool(config.output_hidden_states), "attentions": bool(config.output_attentions)}
    encoded = encode(model, read, **shown)
    starts = start_tokens(config.decoder_start_token_id, config.bos_token_id, read.rows)
    prompts = decoder_prompts(given.decoder_ids, given.decoder_mask, starts, read.like)
    check_positions(given.positions, prompts)
    check_rows(prompts.rows, vocabulary=model.vocabulary_size, context=model.context_length)
    texts = None if read.prompts is None else read.prompts.rows
    return Source(prompts, encoded, texts)
