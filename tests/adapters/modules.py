"""Modules as people write them: with forward(input_ids) alone, with a mask, with a cache of their own."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch

from fabula import GenerationMixin

VOCABULARY = 61


class Plain(torch.nn.Module, GenerationMixin):
    """Nothing but ids in and logits out; a recurrent network, which looks only backwards."""

    def __init__(self) -> None:
        super().__init__()
        self.table = torch.nn.Embedding(VOCABULARY, 24)
        self.cells = torch.nn.GRU(24, 24, batch_first=True)
        self.out = torch.nn.Linear(24, VOCABULARY)
        self.columns: list[tuple[int, int]] = []

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        self.columns.append(tuple(input_ids.shape))
        return self.out(self.cells(self.table(input_ids))[0])


class MixinFirst(GenerationMixin, torch.nn.Module):
    """The other order of parents, and logits in a tuple."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Plain()

    def forward(self, input_ids: torch.Tensor) -> tuple[torch.Tensor]:
        return (self.inner(input_ids),)


class BothWays(torch.nn.Module, GenerationMixin):
    """A module that looks ahead, so that padding on the right changes what it says."""

    def __init__(self) -> None:
        super().__init__()
        self.table = torch.nn.Embedding(VOCABULARY, 24)
        self.cells = torch.nn.GRU(24, 12, batch_first=True, bidirectional=True)
        self.out = torch.nn.Linear(24, VOCABULARY)

    def forward(self, input_ids: torch.Tensor) -> SimpleNamespace:
        return SimpleNamespace(logits=self.out(self.cells(self.table(input_ids))[0]))


class Attending(torch.nn.Module, GenerationMixin):
    """The arguments that transformers' models take, with keys and values in a tuple of pairs."""

    def __init__(self, layers: int = 2, width: int = 32, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.table = torch.nn.Embedding(VOCABULARY, width)
        self.places = torch.nn.Embedding(128, width)
        self.mixers = torch.nn.ModuleList(torch.nn.Linear(width, 3 * width) for _ in range(layers))
        self.out = torch.nn.Linear(width, VOCABULARY)
        self.columns: list[tuple[int, int]] = []

    def get_output_embeddings(self) -> torch.nn.Module:
        return self.out

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        position_ids: torch.Tensor,
        past_key_values: Any = None,
        use_cache: bool = False,
        output_hidden_states: bool = False,
    ) -> Any:
        self.columns.append(tuple(input_ids.shape))
        x = self.table(input_ids) + self.places(position_ids)
        new, whole = x.shape[1], attention_mask.shape[1]
        seen = (
            torch.ones(new, whole, dtype=torch.bool).tril(whole - new)[None, None] & attention_mask[:, None, None] > 0
        )
        kept, states = [], [x]
        for layer, mixer in enumerate(self.mixers):
            q, k, v = (part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in mixer(x).chunk(3, 2))
            if past_key_values is not None:
                k, v = (torch.cat(pair, 2) for pair in zip(past_key_values[layer], (k, v), strict=True))
            kept.append((k, v))
            attended = torch.nn.functional.scaled_dot_product_attention(q, k, v, seen | ~seen.any(3, keepdim=True))
            x = x + attended.transpose(1, 2).flatten(2)
            states.append(x)
        return SimpleNamespace(
            logits=self.out(x),
            past_key_values=tuple(kept) if use_cache else None,
            hidden_states=tuple(states) if output_hidden_states else None,
        )


class Stateful(torch.nn.Module, GenerationMixin):
    """A cache that is a state without columns, which nothing says how to reorder."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Plain()
        self.columns: list[tuple[int, int]] = []

    def forward(self, input_ids: torch.Tensor, past_key_values: Any = None, use_cache: bool = False) -> Any:
        self.columns.append(tuple(input_ids.shape))
        x, state = self.inner.cells(self.inner.table(input_ids), past_key_values)
        return SimpleNamespace(logits=self.inner.out(x), past_key_values=state if use_cache else None)


MODULES = (Plain, MixinFirst, BothWays, Attending, Stateful)


def made(kind: type[Any], seed: int = 0) -> Any:
    """A module with random weights, in evaluation mode."""
    torch.manual_seed(seed)
    return kind().eval()
