"""What a family may ask of a configuration, which is built from what families say of themselves."""

from __future__ import annotations

from typing import Any, Protocol


class Settings(Protocol):
    """The values of a config.json with the family's defaults filled in: `settings.hidden_size` reads a key."""

    def get(self, key: str, default: Any = None) -> Any:
        """The value of a key, or `default` where there is none."""

    def to_dict(self) -> dict[str, Any]:
        """A copy of every value by the file's names."""

    def save_pretrained(self, save_directory: Any) -> None:
        """Writes config.json to a directory."""

    def __getattr__(self, name: str) -> Any: ...
