"""What every model in TensorFlow has that generates: generate() with the conventions of transformers 4."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np

from fabula.errors import ArgumentError
from fabula.generation.mixin import GenerationMixin
from fabula.processors.processor import LogitsProcessor

__all__ = ["TFGenerationMixin"]

_OWN = ("_engine", "_tokenizer", "_adapted", "generation_config", "tokenizer_loader")  # no weights


class TFGenerationMixin(GenerationMixin):
    """Gives a `tf.Module` or a Keras model `generate()`: one with the engine's contract (`new_cache`, `step`), or with
    nothing but `__call__(input_ids) -> logits`.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        """What generate() keeps is not among the module's weights, nor in its checkpoints."""
        if name in _OWN:
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    def generate(  # type: ignore[override]  # transformers 4 has the seed here
        self,
        inputs: Any = None,
        generation_config: Any = None,
        logits_processor: Any = None,
        seed: Any = None,
        **kwargs: Any,
    ) -> Any:
        """Prompts and what the model adds to them: `GenerationMixin.generate`, whose arguments are all taken.

        Tensors [R, L] of TensorFlow come back as int32 [R * num_return_sequences, L + N]. `seed` is a number, or a list
        of one a prompt; two numbers that are not one for each of two prompts are one seed, as in transformers 4. A
        processor of the caller's own may take `(input_ids, scores, cur_len)`.
        """
        wrapped = None if logits_processor is None else [_called_shortly(one) for one in logits_processor]
        if seed is not None:
            kwargs["seed"] = _seed(seed, _prompts(kwargs.get("input_ids") if inputs is None else inputs))
        return super().generate(inputs, generation_config, wrapped, **kwargs)


def _seed(seed: Any, prompts: int) -> Any:
    """One seed, or a list of one a prompt. Raises ArgumentError."""
    if hasattr(seed, "shape"):
        seed = np.asarray(seed).tolist()
    if not isinstance(seed, (tuple, list)) or len(seed) == prompts:
        return seed
    if len(seed) != 2 or not all(isinstance(word, int) for word in seed):
        raise ArgumentError(f"`seed` must be a number, two numbers, or one a prompt, {prompts}, got {seed!r:.60}.")
    low, high = (word % 2**32 for word in seed)
    return high << 32 | low


def _prompts(inputs: Any) -> int:
    given = inputs.get("input_ids") if hasattr(inputs, "keys") else inputs
    return 1 if given is None or getattr(given, "ndim", None) == 0 else len(given)


def _called_shortly(processor: Any) -> Any:
    """The processor; one of three parameters gets the length of its rows as the third."""
    if isinstance(processor, LogitsProcessor) or not callable(processor):
        return processor
    call = processor if inspect.isroutine(processor) else processor.__call__
    required = [one for one in inspect.signature(call).parameters.values() if one.default is one.empty]
    if len(required) != 3:
        return processor
    return lambda input_ids, scores: processor(input_ids, scores, input_ids.shape[1])
