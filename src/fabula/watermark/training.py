"""Trains SynthID's Bayesian detector on marked and plain texts: gradient descent with momentum (Adam), in NumPy."""

from __future__ import annotations

import numpy as np

from fabula.errors import ArgumentError
from fabula.watermark.bayesian import BayesianDetectorModel, Parameters

__all__ = ["gradients", "train"]


def train(
    model: BayesianDetectorModel,
    g_values: np.ndarray,
    mask: np.ndarray,
    labels: np.ndarray,
    steps: int = 250,
    learning_rate: float = 0.01,
    loss_batch_weight: float = 0.01,
) -> BayesianDetectorModel:
    """A detector with the parameters that `steps` steps of Adam (Kingma and Ba 2015) over all texts lead to.

    g_values Int["B L D"], mask Bool["B L"], labels ["B"]: 1 for marked texts, 0 for plain ones; both are needed.
    Texts must be those that the detector will judge: of the same keys, and of a similar length.
    """
    truth = np.asarray(labels, dtype=np.float64)
    if set(np.unique(truth).tolist()) != {0.0, 1.0}:
        raise ArgumentError("`labels` must hold both 1 (marked) and 0 (plain), got only one kind. Add the other texts.")
    values = _flat(model.parameters)
    mean, square = np.zeros_like(values), np.zeros_like(values)
    for step in range(1, steps + 1):
        slope = _flat(gradients(model, g_values, mask, truth, loss_batch_weight))
        mean = 0.9 * mean + 0.1 * slope
        square = 0.999 * square + 0.001 * slope**2
        moved = (mean / (1 - 0.9**step)) / (np.sqrt(square / (1 - 0.999**step)) + 1e-8)
        values = values - learning_rate * moved
        model = BayesianDetectorModel(model.config, _shaped(values, len(model.parameters.beta)))
    return model


def gradients(
    model: BayesianDetectorModel, g_values: np.ndarray, mask: np.ndarray, labels: np.ndarray, weight: float
) -> Parameters:
    """The slope of `model.loss` in each parameter."""
    posterior = model.posterior(g_values, mask)
    inside = (posterior > 1e-5) & (posterior < 1 - 1e-5)
    pull = np.where(inside, posterior - labels, 0.0) / len(labels)  # of the posterior's logit, one a text
    met = model.two_met(g_values)
    of_logits = (g_values - 0.5) * met * (1 - met) / (1 + (g_values - 0.5) * met)
    of_logits = of_logits * (mask * pull[:, None])[..., None]
    delta = model.parameters.delta
    crossed = np.tril(np.einsum("btl,btk->lk", of_logits, g_values.astype(np.float64)), -1)
    prior = float(model.parameters.prior[0])
    within = 1e-5 <= prior <= 1 - 1e-5
    of_prior = pull.sum() / (prior * (1 - prior)) if within else 0.0
    return Parameters(of_logits.sum(axis=(0, 1)), crossed + 2 * weight * delta, np.array([of_prior]))


def _flat(parameters: Parameters) -> np.ndarray:
    return np.concatenate([part.reshape(-1) for part in (parameters.beta, parameters.delta, parameters.prior)]).astype(
        np.float64
    )


def _shaped(values: np.ndarray, depth: int) -> Parameters:
    return Parameters(values[:depth], values[depth:-1].reshape(depth, depth), values[-1:])
