"""SynthID's Bayesian detector: the probability that a text is marked, given its g-values, in NumPy."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self

import numpy as np
from safetensors.numpy import load_file, save_file

from fabula import arrays
from fabula.errors import ArgumentError, ModelFileError

__all__ = ["BayesianDetectorConfig", "BayesianDetectorModel", "BayesianWatermarkDetectorModelOutput", "Parameters"]

_CONFIG, _WEIGHTS = "config.json", "model.safetensors"
_NAMES = {"beta": "likelihood_model_watermarked.beta", "delta": "likelihood_model_watermarked.delta", "prior": "prior"}


@dataclass
class BayesianDetectorConfig:
    """What a detector is made for."""

    watermarking_depth: int | None = None  # depths of the tournament: the number of keys
    base_rate: float = 0.5  # the share of marked texts, before a text is seen
    model_name: str | None = None
    watermarking_config: Any = None  # the mark's settings, to make its processor from

    def set_detector_information(self, model_name: str, watermarking_config: Any) -> None:
        """Notes which model and mark the detector is for."""
        self.model_name = model_name
        self.watermarking_config = watermarking_config

    def to_dict(self) -> dict[str, Any]:
        """The values by name; a mark's settings as a dict."""
        mark = self.watermarking_config
        return {**asdict(self), "watermarking_config": mark.to_dict() if hasattr(mark, "to_dict") else mark}


@dataclass(frozen=True, slots=True)
class Parameters:
    """What training finds: logistic weights of "two different tokens met at this depth"."""

    beta: np.ndarray  # Float["D"]: the logit of it at each depth
    delta: np.ndarray  # Float["D D"]: what the g-values of earlier depths (columns) add to it
    prior: np.ndarray  # Float["1"]: the share of marked texts


@dataclass
class BayesianWatermarkDetectorModelOutput:
    """What the detector found."""

    loss: Any = None  # Float[""], where labels were given
    posterior_probabilities: Any = None  # Float["B"]


class BayesianDetectorModel:
    """P(marked | g-values) by Bayes' rule: the Bayesian score of Dathathri et al. 2024.

    Good for g-values that are 0 or 1 with a chance of a half each. New parameters are small random numbers, drawn from
    `seed`: train them (`fabula.watermark.training.train`), or read a folder that transformers saved.
    """

    def __init__(self, config: BayesianDetectorConfig, parameters: Parameters | None = None, seed: int = 0) -> None:
        depth = config.watermarking_depth
        if not isinstance(depth, int) or depth < 1:
            raise ArgumentError(f"`watermarking_depth` must be at least 1, got {depth!r}. Give the number of keys.")
        self.config = config
        self.parameters = _untrained(depth, config.base_rate, seed) if parameters is None else parameters

    def __call__(
        self, g_values: Any, mask: Any, labels: Any = None, loss_batch_weight: float = 1, return_dict: bool = False
    ) -> tuple[Any, ...] | BayesianWatermarkDetectorModelOutput:
        """(posterior Float["B"],), with labels also the loss: as transformers' forward.

        g_values Int["B L D"] and mask Bool["B L"], which says what counts; labels Float["B"], 1 for marked texts.
        """
        xp = arrays.of(g_values)
        posterior = self.posterior(xp.to_host(g_values), arrays.of(mask).to_host(mask))
        found = xp.asarray(posterior, "float32", like=g_values)
        loss = None
        if labels is not None:
            truth = np.asarray(arrays.of(labels).to_host(labels), dtype=np.float64)
            loss = xp.asarray(self.loss(posterior, truth, loss_batch_weight), "float32", like=g_values)
        if return_dict:
            return BayesianWatermarkDetectorModelOutput(loss, found)
        return (found,) if loss is None else (found, loss)

    def posterior(self, g_values: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """Float64["B"]: the probability that each text is marked."""
        prior = np.clip(self.parameters.prior, 1e-5, 1 - 1e-5)
        evidence = np.log(2 * self.likelihoods(g_values)) * mask[..., None]  # without a mark each g-value has 1/2
        return 1 / (1 + np.exp(-(np.log(prior / (1 - prior)) + evidence.sum(axis=(1, 2)))))

    def likelihoods(self, g_values: np.ndarray) -> np.ndarray:
        """Float64["B L D"]: P(g-value | marked, the g-values of earlier depths)."""
        return 0.5 * (1 + (g_values - 0.5) * self.two_met(g_values))

    def two_met(self, g_values: np.ndarray) -> np.ndarray:
        """Float64["B L D"]: the probability that two different tokens met at each depth."""
        earlier = np.tril(self.parameters.delta.astype(np.float64), -1)
        return 1 / (1 + np.exp(-(g_values.astype(np.float64) @ earlier.T + self.parameters.beta)))

    def loss(self, posterior: np.ndarray, labels: np.ndarray, weight: float) -> np.ndarray:
        """Float64[""]: the cross-entropy of the texts' labels, and the weighted squares of delta."""
        chance = np.clip(posterior, 1e-5, 1 - 1e-5)
        entropy = -np.mean(labels * np.log(chance) + (1 - labels) * np.log(1 - chance))
        return entropy + weight * np.sum(self.parameters.delta.astype(np.float64) ** 2)

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> Self:
        """The detector that `save_pretrained`, ours or transformers', wrote. Raises ModelFileError."""
        folder = Path(folder)
        if not (folder / _CONFIG).is_file() or not (folder / _WEIGHTS).is_file():
            raise ModelFileError(f"`{folder}` must be a folder with {_CONFIG} and {_WEIGHTS}. Download it first.")
        values = json.loads((folder / _CONFIG).read_text(encoding="utf-8"))
        known = {field.name for field in fields(BayesianDetectorConfig)}
        config = BayesianDetectorConfig(**{name: value for name, value in values.items() if name in known})
        weights = load_file(folder / _WEIGHTS)
        if not set(_NAMES.values()) <= set(weights):
            raise ModelFileError(
                f"{_WEIGHTS} must hold {sorted(_NAMES.values())}, got {sorted(weights)}. Fetch it again."
            )
        beta, delta, prior = (weights[name] for name in _NAMES.values())
        depth = beta.size
        return cls(config, Parameters(beta.reshape(depth), delta.reshape(depth, depth), prior.reshape(1)))

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes what `from_pretrained` reads, in transformers' names and shapes; the folder is made where absent."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        values = {**self.config.to_dict(), "architectures": [type(self).__name__]}
        (folder / _CONFIG).write_text(json.dumps(values, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        depth = len(self.parameters.beta)
        shapes = {"beta": (1, 1, depth), "delta": (1, 1, depth, depth), "prior": (1,)}
        weights = {_NAMES[name]: getattr(self.parameters, name).reshape(shape) for name, shape in shapes.items()}
        contiguous = {name: np.ascontiguousarray(weight, dtype=np.float32) for name, weight in weights.items()}
        save_file(contiguous, folder / _WEIGHTS, metadata={"format": "pt"})


def _untrained(depth: int, base_rate: float, seed: int) -> Parameters:
    noise = np.random.default_rng(seed)
    beta = -2.5 + 0.001 * noise.standard_normal(depth)
    return Parameters(beta, 0.001 * noise.standard_normal((depth, depth)), np.array([base_rate]))
