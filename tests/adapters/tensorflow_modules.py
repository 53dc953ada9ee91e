"""Modules of TensorFlow and Keras as people write them: with ids alone, with a mask, with a cache of their own."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import tensorflow as tf

from fabula import TFGenerationMixin

VOCABULARY = 61
WIDTH = 16


def weight(*shape: int, seed: int) -> tf.Variable:
    """Random numbers that follow from the seed."""
    return tf.Variable(tf.random.stateless_normal(shape, (seed, 5), stddev=1.5 / shape[-1] ** 0.5))


class Plain(TFGenerationMixin, tf.Module):
    """Nothing but ids in and logits out; a decaying sum, which looks only backwards."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.out = weight(VOCABULARY, WIDTH, seed=1), weight(WIDTH, VOCABULARY, seed=2)
        self.columns: list[tuple[int, ...]] = []

    def __call__(self, input_ids: Any) -> Any:
        self.columns.append(tuple(input_ids.shape))
        return tf.tanh(summed(tf.gather(self.table, input_ids))) @ self.out


class BothWays(tf.Module, TFGenerationMixin):
    """A module that looks ahead, the other order of parents, and logits in a tuple."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.out = weight(VOCABULARY, WIDTH, seed=3), weight(WIDTH, VOCABULARY, seed=4)

    def __call__(self, input_ids: Any) -> Any:
        x = tf.gather(self.table, input_ids)
        return (tf.tanh(summed(x) + tf.reduce_mean(x, 1, keepdims=True)) @ self.out,)


class Summing(TFGenerationMixin, tf.Module):
    """A cache: the sum so far, a row each."""

    axis = 0

    def __init__(self) -> None:
        super().__init__()
        self.table, self.out = weight(VOCABULARY, WIDTH, seed=5), weight(WIDTH, VOCABULARY, seed=6)
        self.columns: list[tuple[int, ...]] = []

    def __call__(
        self, input_ids: Any, past_key_values: Any = None, use_cache: bool = False, output_hidden_states: bool = False
    ) -> Any:
        self.columns.append(tuple(input_ids.shape))
        x = tf.gather(self.table, input_ids)
        before = None if past_key_values is None else past_key_values[0]
        if before is not None and self.axis:
            before = tf.transpose(before)
        sums = summed(x, before)
        hidden = tf.tanh(sums)
        last = tf.transpose(sums[:, -1]) if self.axis else sums[:, -1]
        states = (x, hidden) if output_hidden_states else None
        return SimpleNamespace(
            logits=hidden @ self.out, past_key_values=(last,) if use_cache else None, hidden_states=states
        )

    def get_output_embeddings(self) -> Any:
        return lambda hidden: hidden @ self.out


class Sideways(Summing):
    """The same with its rows along the second axis, where nobody looks for them."""

    axis = 1


def summed(x: Any, before: Any = None) -> Any:
    """Float["R N D"]: a running sum in which what is past counts less and less."""
    total, sums = tf.zeros_like(x[:, 0]) if before is None else before, []
    for column in range(x.shape[1]):
        total = 0.7 * total + x[:, column]
        sums.append(total)
    return tf.stack(sums, 1)


def keras_model() -> Any:
    """A model of Keras, subclassed."""
    import keras

    class Subclassed(TFGenerationMixin, keras.Model):
        def __init__(self) -> None:
            super().__init__()
            keras.utils.set_random_seed(3)
            self.table = keras.layers.Embedding(VOCABULARY, WIDTH, embeddings_initializer="random_normal")
            self.cells = keras.layers.GRU(WIDTH, return_sequences=True)
            self.head = keras.layers.Dense(VOCABULARY, kernel_initializer="random_normal")

        def call(self, input_ids: Any) -> Any:
            return 40 * self.head(self.cells(40 * self.table(input_ids)))

    return Subclassed()


def greedy_by_hand(module: Any, prompt: list[int], steps: int) -> list[int]:
    """The best token after a whole pass, step by step, of one row."""
    tokens = list(prompt)
    for _ in range(steps):
        output = module(tf.constant([tokens]))
        logits = output[0] if isinstance(output, tuple) else getattr(output, "logits", output)
        tokens.append(int(tf.argmax(logits[0, -1])))
    return tokens


def turn(weight: Any) -> None:
    """Changes all its numbers' signs."""
    weight.assign(-weight)


constant = tf.constant
