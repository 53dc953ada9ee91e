"""The frameworks that must write the same texts: how each loads a model, is given a rectangle of ids, and is read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest

import fabula
from fabula import arrays

Ids = tuple[np.ndarray, np.ndarray]  # Int["R L"] and its mask


@dataclass(frozen=True)
class Door:
    """One framework."""

    backend: str
    entry: str  # its name in fabula
    arrays: str  # what its arrays are, as fabula.arrays names it
    needs: tuple[str, ...] = ()
    lacks: tuple[str, ...] = ()  # what an output cannot have here, which is then not asked for

    def require(self) -> None:
        """Skips the test where the framework is absent."""
        for name in self.needs:
            pytest.importorskip(name)

    def load(self, source: Any, encodes: bool = False, **options: Any) -> Any:
        """The model of a directory or file, which may have an encoder; where the framework is absent, a skip."""
        self.require()
        bound = {"threads": 1} if self.backend == "native" else {}
        given = {"dtype": "float32", "backend": self.backend, **bound, **options}
        entry = self.entry.replace("CausalLM", "Seq2SeqLM") if encodes else self.entry
        return getattr(fabula, entry).from_pretrained(source, **given)

    def generate(self, model: Any, ids: Ids, **call: Any) -> Any:
        """What generate() makes of the rectangle, which it is given and gives back in the framework's arrays."""
        tokens, mask = self.given(ids)
        asked = {name: value for name, value in call.items() if name.removeprefix("output_") not in self.lacks}
        return model.generate(tokens, attention_mask=mask, **asked)

    def forward(self, model: Any, ids: Ids, **call: Any) -> Any:
        """What a call of the model gives for the rectangle."""
        tokens, mask = self.given(ids)
        return model(tokens, attention_mask=mask, **call)

    def given(self, ids: Ids) -> list[Any]:
        """The rectangle in the framework's arrays."""
        module = import_module(f"fabula.arrays.{self.arrays}")
        return [module.asarray(part, "int32") for part in ids]

    def on_host(self, output: Any) -> np.ndarray:
        """An array of an answer, which must be the framework's own."""
        assert arrays.framework(output) == self.arrays
        return arrays.of(output).to_host(output)


@contextmanager
def step_by_step(model: Any) -> Iterator[None]:
    """Within, models of this kind take one step after another, and never many in one call."""
    with patch.multiple(type(model), create=True, burst=None, burst_beams=None, burst_texts=None):
        yield


REFERENCE = Door("torch", "AutoModelForCausalLM", "torch", ("torch",))
DOORS = {
    one.backend: one
    for one in (
        Door("native", "AutoModelForCausalLM", "numpy", lacks=("attentions",)),
        Door("jax", "FlaxAutoModelForCausalLM", "jax", ("jax", "flax")),
        Door("tensorflow", "TFAutoModelForCausalLM", "tensorflow", ("tensorflow",)),
    )
}
