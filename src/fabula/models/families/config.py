"""A model's config.json as an object: every key an attribute, sizes checked, unknown keys kept."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from fabula.errors import ModelFileError
from fabula.models.families.config_checks import OLDER_NAMES, checked_values
from fabula.models.families.table import family_class

_ABSENT = object()
# What transformers' configurations answer where their file says nothing. No file gets it from here.
_UNSAID: Mapping[str, Any] = MappingProxyType(
    {
        "is_encoder_decoder": False,
        "output_attentions": False,
        "output_hidden_states": False,
        "return_dict": True,
        "use_return_dict": True,
    }
)


class ModelConfig:
    """The values of a config.json with the family's defaults filled in. `config.hidden_size` reads a key, and sets it.

    A family's own names answer to the usual ones as well (GPT-2: `hidden_size` is `n_embd`).
    """

    __slots__ = ("_aliases", "_values")
    _values: dict[str, Any]
    _aliases: Mapping[str, str]

    def __init__(self, /, **values: Any) -> None:
        checked = checked_values(values)
        object.__setattr__(self, "_aliases", {**OLDER_NAMES, **family_class(checked).aliases})
        object.__setattr__(self, "_values", checked)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ModelConfig:
        """The configuration of a parsed config.json. Raises ModelFileError, which names the key."""
        if not isinstance(values, Mapping):
            raise ModelFileError(f"config.json must hold an object, got {type(values).__name__}. Fetch it again.")
        return cls(**{str(key): copy.deepcopy(value) for key, value in values.items()})

    def get(self, key: str, default: Any = None) -> Any:
        """The value of a key, or `default` where there is none."""
        return self._values.get(self._aliases.get(key, key), default)

    def to_dict(self) -> dict[str, Any]:
        """A copy of every value, defaults included, by the file's names."""
        return copy.deepcopy(self._values)

    def to_json_string(self) -> str:
        """What `save_pretrained` writes."""
        return json.dumps(self._values, indent=2, sort_keys=True) + "\n"

    def save_pretrained(self, save_directory: str | Path) -> None:
        """Writes config.json to a directory, which is made where it is absent."""
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(self.to_json_string(), encoding="utf-8")

    def get_text_config(self, decoder: bool | None = None, encoder: bool | None = None) -> ModelConfig:
        """This configuration: that of the text part is all that is kept, and it serves encoder and decoder."""
        return self

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name in ModelConfig.__slots__:
            raise AttributeError(name)
        found = self._values.get(self._aliases.get(name, name), _UNSAID.get(name, _ABSENT))
        if found is _ABSENT:
            raise AttributeError(f"this configuration ({self._values.get('model_type')}) has no {name!r}")
        return found

    def __setattr__(self, name: str, value: Any) -> None:
        if name in ModelConfig.__slots__:
            object.__setattr__(self, name, value)
        else:
            self._values[self._aliases.get(name, name)] = value

    def __contains__(self, key: str) -> bool:
        return self._aliases.get(key, key) in self._values

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ModelConfig) and self._values == other._values

    __hash__ = None  # type: ignore[assignment]  # its values may change

    def __repr__(self) -> str:
        return f"ModelConfig {self.to_json_string()}"
