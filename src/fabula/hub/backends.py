"""What computes a model: a line a backend, with the packages that it needs and the classes that it has."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from fabula.errors import MissingDependencyError
from fabula.models.families.family import EncoderDecoder, Family

__all__ = ["BACKENDS", "Backend", "backend_for", "check_installed"]


@dataclass(frozen=True, slots=True)
class Backend:
    """A framework's part of `models`. Its classes have from_tensors(family, tensors, dtype=, device=)."""

    name: str
    title: str  # what people call it
    packages: tuple[str, ...]  # what must be installed; `fabula[name]` installs it
    causal: tuple[str, str]  # a module of `fabula.models`, and the class there
    seq2seq: tuple[str, str]  # the same for families with an encoder

    @property
    def devices(self) -> Any:
        """The module that knows where it computes: best_device() -> name, and check_device(name)."""
        return importlib.import_module(f"fabula.models.placement.{self.name}")

    def model_class(self, family: Family) -> Any:
        """What computes the family."""
        place = self.seq2seq if isinstance(family, EncoderDecoder) else self.causal
        return getattr(importlib.import_module(f"fabula.models.{place[0]}"), place[1])


BACKENDS: Mapping[str, Backend] = MappingProxyType(
    {
        one.name: one
        for one in (
            Backend("torch", "PyTorch", ("torch",), ("torch", "TorchCausalLM"), ("encoders.torch", "TorchSeq2SeqLM")),
            Backend("jax", "JAX and Flax", ("jax", "flax"), ("jax", "JaxCausalLM"), ("encoders.jax", "JaxSeq2SeqLM")),
            Backend(
                "tensorflow",
                "TensorFlow",
                ("tensorflow",),
                ("tensorflow", "TFCausalLM"),
                ("encoders.tensorflow", "TFSeq2SeqLM"),
            ),
        )
    }
)


def backend_for(door: str) -> str | None:
    """The backend of a door, by its name: FlaxAutoModel... is JAX's, TFAutoModel... TensorFlow's; None: any."""
    prefix = door.partition("AutoModel")[0]
    return {"Flax": "jax", "TF": "tensorflow"}.get(prefix)


def check_installed(backend: str, family: Family) -> None:
    """Raises MissingDependencyError where a package is absent, with the command that installs it."""
    one = BACKENDS[backend]
    if all(importlib.util.find_spec(package) for package in one.packages):
        return
    encodes = isinstance(family, EncoderDecoder)
    which = f"{family.config.model_type} models need" if encodes else f"backend {backend!r} needs"
    raise MissingDependencyError(f"{which} {one.title}: pip install 'fabula[{backend}]'.")
