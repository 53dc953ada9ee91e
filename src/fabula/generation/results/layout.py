"""The rows of a finished call as its caller passed them: tensors in, tensors out; lists in, lists out."""

from __future__ import annotations

from typing import Any

import numpy as np

from fabula import arrays
from fabula.generation.prompts.rows import Prompts
from fabula.generation.prompts.source import Source
from fabula.generation.recipe import filling
from fabula.generation.results.collector import Collector
from fabula.generation.results.likelihoods import likelihoods_of_new_tokens, likelihoods_of_prompts
from fabula.generation.results.outputs import (
    GenerateBeamDecoderOnlyOutput,
    GenerateBeamEncoderDecoderOutput,
    GenerateDecoderOnlyOutput,
    GenerateEncoderDecoderOutput,
)
from fabula.generation.results.states import attentions, cross_attentions, hidden_states
from fabula.generation.settings.config import GenerationConfig


def lay_out(source: Source, config: GenerationConfig, collectors: list[Collector], past: Any = None) -> Any:
    """Prompt and new tokens of every row; as an output object if `return_dict_in_generate`."""
    prompts = source.prompts
    sequences = _lists(prompts, collectors) if prompts.given is None else _rectangle(prompts, config, collectors)
    if not config.return_dict_in_generate:
        return sequences
    beams, like = config.num_beams or 1, np.zeros(0) if prompts.given is None else prompts.given
    values: dict[str, Any] = {"sequences": sequences, "finish_reasons": _reasons(collectors), "past_key_values": past}
    values |= _shown(prompts, config, collectors, beams)
    if beams > 1:
        values |= _of_beams(config, collectors, like)
    else:
        values["scores"] = _stacked(collectors, "scores", like) if config.output_scores else None
        values["logits"] = _stacked(collectors, "logits", like) if config.output_logits else None
    if source.encoded is None:
        return (GenerateBeamDecoderOnlyOutput if beams > 1 else GenerateDecoderOnlyOutput)(**values)
    values |= _of_encoder(source.encoded.outputs, like)
    for name in ("hidden_states", "attentions"):
        values[f"decoder_{name}"] = values.pop(name, None)
    if config.output_attentions:
        values["cross_attentions"] = cross_attentions(prompts, collectors, beams)
    return (GenerateBeamEncoderDecoderOutput if beams > 1 else GenerateEncoderDecoderOutput)(**values)


def _of_encoder(outputs: Any, like: Any) -> dict[str, Any]:
    """What was asked for of the encoder, where it shows it; of a model without a framework as the prompts came."""
    found = {name: getattr(outputs, name, None) for name in ("hidden_states", "attentions")}
    return {f"encoder_{name}": shown and tuple(_placed(x, like) for x in shown) for name, shown in found.items()}


def _placed(x: Any, like: Any) -> Any:
    return arrays.of(like).asarray(x, "float32", like=like) if isinstance(x, np.ndarray) else x


def _of_beams(config: GenerationConfig, collectors: list[Collector], like: Any) -> dict[str, Any]:
    """A beam search's fields; rows of `scores` and `logits` are all prompts' beams."""
    xp, beams = arrays.of(like), config.num_beams or 1
    found = [(place, found) for place, one in enumerate(collectors) for found in one.hypotheses if found is not None]
    indices = np.full((len(found), max(len(one.tokens) for _, one in found)), -1, np.int32)
    for row, (place, one) in enumerate(found):
        if one.rows is not None:
            indices[row, : len(one.rows)] = one.rows + beams * place
    scores = np.array([one.score for _, one in found], np.float32)
    return {
        "sequences_scores": xp.asarray(scores, "float32", like=like) if config.output_scores else None,
        "scores": _turns(collectors, "scores", beams, like) if config.output_scores else None,
        "logits": _turns(collectors, "logits", beams, like) if config.output_logits else None,
        "beam_indices": xp.asarray(indices, "int32", like=like),
    }


def _shown(prompts: Prompts, config: GenerationConfig, collectors: list[Collector], beams: int) -> dict[str, Any]:
    """What was asked for of the passes beside the logits."""
    shown: dict[str, Any] = {}
    like, top = np.zeros(0) if prompts.given is None else prompts.given, bool(config.top_log_probabilities)
    if config.output_log_probabilities:
        shown |= likelihoods_of_new_tokens(collectors, like, top)
    if config.output_prompt_log_probabilities:
        shown |= likelihoods_of_prompts(collectors, like, top)
    if config.output_hidden_states:
        shown["hidden_states"] = hidden_states(prompts, collectors, beams)
    if config.output_attentions:
        shown["attentions"] = attentions(prompts, collectors, beams)
    return shown


def _turns(collectors: list[Collector], kind: str, beams: int, like: Any) -> tuple[Any, ...]:
    """For each turn what was kept of all prompts' beams, [R * beams, V]; a search that has ended repeats its last.

    At the first turn there is one row, which stands for all beams.
    """
    kept = [[getattr(turn, kind) for turn in collector.turns] for collector in collectors]
    xp, longest = arrays.of(like), max(len(turns) for turns in kept)

    def rectangle(values: Any) -> np.ndarray:
        return np.broadcast_to(values, (beams, values.shape[1])) if len(values) == 1 else values

    return tuple(
        xp.asarray(
            np.concatenate([rectangle(turns[min(turn, len(turns) - 1)]) for turns in kept]), "float32", like=like
        )
        for turn in range(longest)
    )


def _reasons(collectors: list[Collector]) -> list[Any]:
    return [reason for collector in collectors for reason in collector.reasons]


def _lists(prompts: Prompts, collectors: list[Collector]) -> list[list[int]]:
    return [
        (prompt.tolist() if prompts.shown else []) + [step.token for step in steps]
        for prompt, collector in zip(prompts.rows, collectors, strict=True)
        for steps in collector.steps
    ]


def _rectangle(prompts: Prompts, config: GenerationConfig, collectors: list[Collector]) -> Any:
    """[R * n, L + N]: each prompt as it was given, padding included, its new tokens, and padding on the right."""
    given = prompts.as_host()[:, : None if prompts.shown else 0]
    pad = filling(config)
    longest = max(len(steps) for collector in collectors for steps in collector.steps)
    rows = []
    for prompt, collector in zip(given, collectors, strict=True):
        for index in range(len(collector.steps)):
            new = collector.tokens(index)
            rows.append(np.concatenate([prompt, new, np.full(longest - len(new), pad)]))
    return arrays.of(prompts.given).asarray(np.array(rows, np.int64), "int64", like=prompts.given)


def _stacked(collectors: list[Collector], kind: str, like: Any) -> tuple[Any, ...]:
    """For each step the recorded scores of all rows, [R * n, V]; a row that has ended repeats its last."""
    rows = [kept for collector in collectors for kept in _kept(collector, kind)]
    longest = max(len(kept) for kept in rows)
    like = np.zeros(0) if like is None else like
    xp = arrays.of(like)
    return tuple(
        xp.asarray(np.stack([kept[min(step, len(kept) - 1)] for kept in rows]), "float32", like=like)
        for step in range(longest)
    )


def _kept(collector: Collector, kind: str) -> list[list[Any]]:
    """What was recorded before each token of each row."""
    if collector.turns:  # a search of one sequence
        turns = [getattr(turn, kind) for turn in collector.turns]
        return [[values[0] for values in turns if values is not None][: len(collector.steps[0])]]
    return [[getattr(step.kept, kind) for step in steps] for steps in collector.steps]
