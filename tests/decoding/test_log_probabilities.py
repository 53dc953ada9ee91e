"""Log-probabilities are the log-softmax of the raw logits."""

from __future__ import annotations

import numpy as np

from fabula.arrays.numpy import log_softmax
from fabula.decoding.log_probabilities import log_probabilities, top_log_probabilities

LOGITS = np.random.default_rng(0).normal(0, 4, (4, 300)).astype(np.float32)


def test_they_are_the_log_softmax_at_the_chosen_tokens(xp):
    tokens = np.array([0, 299, 7, 7], dtype=np.int32)
    got = xp.to_host(log_probabilities(xp.asarray(LOGITS, "float32"), xp.asarray(tokens, "int32")))
    np.testing.assert_allclose(got, log_softmax(LOGITS.astype(np.float64))[np.arange(4), tokens], rtol=1e-5)


def test_the_likeliest_tokens_come_in_falling_order(xp):
    tokens, values = (xp.to_host(part) for part in top_log_probabilities(xp.asarray(LOGITS, "float32"), 5))
    order = np.argsort(-LOGITS, axis=-1)[:, :5]
    assert np.array_equal(tokens, order)
    exact = np.take_along_axis(log_softmax(LOGITS.astype(np.float64)), order, axis=-1)
    np.testing.assert_allclose(values, exact, rtol=1e-5)


def test_more_than_the_vocabulary_gives_the_vocabulary(xp):
    tokens, values = top_log_probabilities(xp.asarray(LOGITS[:, :3], "float32"), 10)
    assert tuple(tokens.shape) == tuple(values.shape) == (4, 3)
