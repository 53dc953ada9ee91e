"""An architecture's keys in a GGUF file's metadata, read as what they must be."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from fabula.errors import ModelFileError, NotSupportedError

LARGEST = (1 << 31) - 1
REQUIRED: Any = object()


@dataclass(frozen=True, slots=True)
class Keys:
    """`size("block_count")` reads the key "llama.block_count" of a llama."""

    path: Path
    metadata: Mapping[str, Any]
    architecture: str

    def name(self, key: str) -> str:
        """The key's full name."""
        return f"{self.architecture}.{key}"

    def refuse(self, key: str, allowed: str, value: Any) -> NoReturn:
        """Raises ModelFileError: the key must be what is allowed."""
        raise ModelFileError(f"{self.path}: key {key!r} must be {allowed}, got {value!r:.60}. Convert the model again.")

    def size(self, key: str, default: Any = REQUIRED) -> Any:
        """A whole number above zero; a list of equal ones counts as one (some files have one a layer)."""
        value = self._value(key, default)
        if isinstance(value, list) and value:
            if any(other != value[0] for other in value):
                raise NotSupportedError(
                    f"{self.path}: key {self.name(key)!r} must be the same for every layer, got {value!r:.60}. "
                    "Models whose layers differ in size are not supported."
                )
            value = value[0]
        if value is default:
            return value
        if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= LARGEST:
            self.refuse(self.name(key), f"a whole number from 1 to {LARGEST}", value)
        return value

    def number(self, key: str, default: Any = REQUIRED) -> Any:
        """A positive finite number: the shortest decimal that is the stored float32."""
        value = self._value(key, default)
        if value is default:
            return value
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 1e30:
            self.refuse(self.name(key), "a number above 0", value)
        return float(str(np.float32(value))) if math.isfinite(value) else value

    def text(self, key: str, default: Any = REQUIRED) -> Any:
        """A string."""
        value = self._value(key, default)
        if value is not default and not isinstance(value, str):
            self.refuse(self.name(key), "a string", value)
        return value

    def token(self, key: str, vocabulary: int) -> int | None:
        """A token id under "tokenizer.ggml."; None where it is absent or set to "none" (all bits)."""
        return self._token(f"tokenizer.ggml.{key}", vocabulary)

    def own_token(self, key: str, vocabulary: int) -> int | None:
        """The same under the architecture's name."""
        return self._token(self.name(key), vocabulary)

    def _token(self, name: str, vocabulary: int) -> int | None:
        value = self.metadata.get(name)
        if value is None or value in (-1, 0xFFFFFFFF):
            return None
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < vocabulary:
            self.refuse(name, f"a token id below {vocabulary}", value)
        return value

    def _value(self, key: str, default: Any) -> Any:
        value = self.metadata.get(self.name(key), default)
        if value is REQUIRED:
            raise ModelFileError(
                f"{self.path}: key {self.name(key)!r} must be there, and is not. Convert the model again."
            )
        return value
