"""Modules of Flax as people write them: with ids alone, with caches of their own, with parameters beside them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from fabula import FlaxGenerationMixin

VOCABULARY = 61
WIDTH = 16
WIDEST = 72  # of the rows that are computed by hand


def weight(*shape: int, seed: int) -> jax.Array:
    """Random numbers that follow from the seed."""
    return jnp.asarray(np.random.default_rng(seed).normal(0, 1.5 / shape[-1] ** 0.5, shape), jnp.float32)


class Plain(FlaxGenerationMixin, nnx.Module):
    """Nothing but ids in and logits out; a decaying sum, which looks only backwards."""

    def __init__(self) -> None:
        self.table, self.out = (
            nnx.Param(weight(VOCABULARY, WIDTH, seed=1)),
            nnx.Param(weight(WIDTH, VOCABULARY, seed=2)),
        )
        self.dropout = nnx.Dropout(0.5, rngs=nnx.Rngs(0))

    def __call__(self, input_ids: Any) -> Any:
        return self.dropout(jnp.tanh(summed(self.table[...][input_ids]))) @ self.out[...]


class BothWays(nnx.Module, FlaxGenerationMixin):
    """A module that looks ahead, the other order of parents, and logits in a tuple."""

    def __init__(self) -> None:
        self.table, self.out = (
            nnx.Param(weight(VOCABULARY, WIDTH, seed=3)),
            nnx.Param(weight(WIDTH, VOCABULARY, seed=4)),
        )

    def __call__(self, input_ids: Any) -> Any:
        x = self.table[...][input_ids]
        return (jnp.tanh(summed(x) + x.mean(1, keepdims=True)) @ self.out[...],)


class OnTheHost(Plain):
    """Code that looks at numbers, which no trace has."""

    def __call__(self, input_ids: Any) -> Any:
        sign = 1 if int(input_ids[0, 0]) >= 0 else -1
        return sign * (jnp.tanh(summed(self.table[...][input_ids])) @ self.out[...])


class Summing(FlaxGenerationMixin, nnx.Module):
    """A cache: the sum so far, a row each."""

    axis = 0

    def __init__(self) -> None:
        self.table, self.out = (
            nnx.Param(weight(VOCABULARY, WIDTH, seed=5)),
            nnx.Param(weight(WIDTH, VOCABULARY, seed=6)),
        )

    def __call__(
        self, input_ids: Any, past_key_values: Any = None, use_cache: bool = False, output_hidden_states: bool = False
    ) -> Any:
        x = self.table[...][input_ids]
        before = None if past_key_values is None else past_key_values[0]
        sums = summed(x, before.T if self.axis and before is not None else before)
        last = sums[:, -1].T if self.axis else sums[:, -1]
        states = (x, jnp.tanh(sums)) if output_hidden_states else None
        return SimpleNamespace(
            logits=jnp.tanh(sums) @ self.out[...], past_key_values=(last,) if use_cache else None, hidden_states=states
        )

    def get_output_embeddings(self) -> Any:
        return lambda hidden: hidden @ self.out[...]


class Sideways(Summing):
    """The same with its rows along the second axis, where nobody looks for them."""

    axis = 1


class Attending(FlaxGenerationMixin, nnx.Module):
    """Attention with a cache of fixed length, as Flax models of transformers had."""

    def __init__(self) -> None:
        self.table = nnx.Param(weight(VOCABULARY, WIDTH, seed=7))
        self.mixer, self.out = nnx.Param(weight(WIDTH, 3 * WIDTH, seed=8)), nnx.Param(weight(WIDTH, VOCABULARY, seed=9))

    def init_cache(self, batch_size: int, max_length: int) -> Any:
        zeros = jnp.zeros((batch_size, max_length, WIDTH))
        return {"keys": zeros, "values": zeros, "index": jnp.int32(0)}

    def __call__(self, input_ids: Any, attention_mask: Any, position_ids: Any, past_key_values: Any = None) -> Any:
        x = self.table[...][input_ids] + jnp.sin(position_ids[..., None] * jnp.arange(1, WIDTH + 1) / WIDTH)
        q, k, v = jnp.split(x @ self.mixer[...], 3, -1)
        kept = None
        if past_key_values is not None:
            start = past_key_values["index"]
            k, v = (
                jax.lax.dynamic_update_slice(past_key_values[name], new, (0, start, 0))
                for name, new in (("keys", k), ("values", v))
            )
            kept = {"keys": k, "values": v, "index": start + x.shape[1]}
        seen = (jnp.arange(k.shape[1]) <= position_ids[..., None]) & (attention_mask[:, None] > 0)
        weights = jax.nn.softmax(jnp.where(seen, q @ jnp.swapaxes(k, 1, 2), -1e9), -1)
        return {"logits": (x + weights @ v) @ self.out[...], "past_key_values": kept}


class Beside(FlaxGenerationMixin):
    """Parameters beside the code, as models of linen have them; no module of NNX."""

    def __init__(self) -> None:
        self.params = {"table": weight(VOCABULARY, WIDTH, seed=1), "out": weight(WIDTH, VOCABULARY, seed=2)}

    def __call__(self, input_ids: Any, params: Any = None) -> Any:
        params = self.params if params is None else params
        return jnp.tanh(summed(params["table"][input_ids])) @ params["out"]


def summed(x: Any, before: Any = None) -> Any:
    """Float["R N D"]: a running sum in which what is past counts less and less."""

    def further(total: Any, column: Any) -> Any:
        total = 0.7 * total + column
        return total, total

    start = jnp.zeros_like(x[:, 0]) if before is None else before
    return jnp.swapaxes(jax.lax.scan(further, start, jnp.swapaxes(x, 0, 1))[1], 0, 1)


def greedy_by_hand(module: Any, prompt: list[int], steps: int) -> list[int]:
    """The best token after a whole pass of one row, step by step; padded behind where a module looks only backwards."""
    if isinstance(module, nnx.Module):
        module = nnx.merge(*nnx.split(module))
        module.eval()
    tokens, compiled = list(prompt), module if isinstance(module, OnTheHost) else jax.jit(module)
    for _ in range(steps):
        width = len(tokens) if isinstance(module, BothWays) else WIDEST
        ids = jnp.asarray([tokens + [0] * (width - len(tokens))])
        more = (jnp.ones_like(ids), jnp.arange(width)[None]) if isinstance(module, Attending) else ()
        output = compiled(ids, *more) if not isinstance(module, Summing) else module(ids)
        output = output if isinstance(output, (tuple, dict)) else (getattr(output, "logits", output),)
        logits = output["logits"] if isinstance(output, dict) else output[0]
        tokens.append(int(np.argmax(np.asarray(logits)[0, len(tokens) - 1])))
    return tokens


def turn(weight: Any) -> None:
    """Changes all its numbers' signs."""
    weight[...] = -weight[...]


constant = jnp.asarray
