"""What a processor or a criterion may know of the rows whose scores it is given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Context:
    """R rows, in the framework of the scores they come with.

    Row r's tokens are `tokens[r, :lengths[r]]`, prompt first: rows are ragged and start at column 0. What lies
    beyond a row's length is not part of it and may hold anything.
    """

    tokens: Any  # Int["R L"]: prompt and new tokens
    lengths: Any  # Int["R"]: how many of them count
    prompt_lengths: Any  # Int["R"]: how many of those are the prompt
    seen: Any = None  # Bool["R V"]: tokens that occur in the row, kept by the caller; None: to be found from `tokens`
    unconditional: Any = None  # Float["R V"]: the model's logits after each row's negative prompt, where it has one
    padding: int = 0  # the token id that fills rows where a rectangle must be made of them
