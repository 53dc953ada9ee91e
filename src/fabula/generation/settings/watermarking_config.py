"""The settings of the two watermarks, green lists and SynthID, as validated data."""

from __future__ import annotations

import json
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, fields
from os import PathLike
from typing import Any, Self

from fabula.errors import ArgumentError
from fabula.generation.settings.checks import Check, is_whole, listed, number, one_of, whole
from fabula.watermark.green_list import WatermarkLogitsProcessor
from fabula.watermark.synthid import SynthIDTextWatermarkLogitsProcessor

__all__ = ["BaseWatermarkingConfig", "SynthIDTextWatermarkingConfig", "WatermarkingConfig", "watermark_of"]

_KEY = Check("an int of -2**63 to 2**63 - 1", lambda value: is_whole(value) and -(2**63) <= value < 2**63)


def _is_key(value: Any) -> bool:
    return is_whole(value) and 0 <= value < 2**63


@dataclass(repr=False)
class BaseWatermarkingConfig:
    """What both have: a dict and JSON form, and checks by name."""

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Self:
        """The config of `config_dict`; known names in `kwargs` go first, unknown ones are left."""
        unknown = sorted(set(config_dict) - {field.name for field in fields(cls)})
        if unknown:
            known = ", ".join(field.name for field in fields(cls))
            raise ArgumentError(f"`watermarking_config` must hold only {known}, got {unknown}. Remove the others.")
        config = cls(**config_dict)
        config.update(**kwargs)
        return config

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        """Names and values, so that dict(config) works."""
        yield from self.to_dict().items()

    def __repr__(self) -> str:
        return f"{type(self).__name__} {self.to_json_string()}"

    def to_dict(self) -> dict[str, Any]:
        """A copy of every value by name."""
        return deepcopy(vars(self))

    def to_json_string(self) -> str:
        """The values as JSON, in the order of their declaration."""
        return json.dumps(self.to_dict(), indent=2) + "\n"

    def to_json_file(self, json_file_path: str | PathLike[str]) -> None:
        """Write the values as JSON with sorted names."""
        with open(json_file_path, "w", encoding="utf-8") as file:
            file.write(json.dumps(self.to_dict(), indent=2, sort_keys=True) + "\n")

    def update(self, **kwargs: Any) -> None:
        """Set the known names among `kwargs`."""
        for name, value in kwargs.items():
            if hasattr(self, name):
                setattr(self, name, value)

    def checks(self) -> dict[str, Check]:
        """The check of each value."""
        raise NotImplementedError

    def validate(self) -> None:
        """Raise ArgumentError for the first value that is out of range."""
        for name, check in self.checks().items():
            check.require(f"watermarking_config.{name}", getattr(self, name))

    def construct_processor(self, vocab_size: int | None = None, device: Any = None) -> Any:
        """The processor that marks; vocab_size None: as many tokens as there are scores."""
        raise NotImplementedError


@dataclass(repr=False)
class WatermarkingConfig(BaseWatermarkingConfig):
    """Green lists (Kirchenbauer et al. 2023): a share of the vocabulary, hashed from the context, is favoured."""

    greenlist_ratio: float = 0.25  # share of the vocabulary that is green
    bias: float = 2.0  # added to green logits
    hashing_key: int = 15485863  # the millionth prime
    seeding_scheme: str = "lefthash"  # the context's last token decides, or ("selfhash") the token itself
    context_width: int = 1  # tokens of context that are hashed

    def checks(self) -> dict[str, Check]:
        """The check of each value; a ratio of 0 or 1 marks nothing."""
        return {
            "seeding_scheme": one_of("selfhash", "lefthash").advise("'lefthash' is the faster one."),
            "greenlist_ratio": number("(0,1)").advise("0.25 is usual."),
            "bias": number("(-inf,inf)").advise("2.0 is usual."),
            "hashing_key": _KEY.advise("Keep it secret."),
            "context_width": whole(1).advise("1 is usual."),
        }

    def construct_processor(self, vocab_size: int | None = None, device: Any = None) -> WatermarkLogitsProcessor:
        """The processor that marks; vocab_size None: as many tokens as there are scores."""
        return WatermarkLogitsProcessor(vocab_size, device, **self.to_dict())


@dataclass(repr=False)
class SynthIDTextWatermarkingConfig(BaseWatermarkingConfig):
    """SynthID text (Dathathri et al. 2024): a tournament of keyed hashes of the context."""

    ngram_len: int  # tokens that are hashed together
    keys: list[int]  # one a depth of the tournament
    context_history_size: int = 1024  # contexts remembered, so that repeated ones are skipped
    sampling_table_seed: int = 0
    sampling_table_size: int = 2**16
    skip_first_ngram_calls: bool = False
    debug_mode: bool = False  # mark a uniform distribution, to test the mark itself

    def checks(self) -> dict[str, Check]:
        """The check of each value."""
        table = Check("an int of 1 to 2**24", lambda value: whole(1).accepts(value) and value <= 2**24)
        return {
            "ngram_len": whole(1).advise("5 is usual."),
            "keys": listed("a non-empty list of ints from 0", _is_key).advise("Give one secret int a depth."),
            "sampling_table_seed": whole(0).advise("0 is usual."),
            "context_history_size": whole(1).advise("1024 is usual."),
            "sampling_table_size": table.advise("2**16 is usual."),
        }

    def construct_processor(
        self, vocab_size: int | None = None, device: Any = None
    ) -> SynthIDTextWatermarkLogitsProcessor:
        """The processor that marks; it is the same for every vocabulary."""
        return SynthIDTextWatermarkLogitsProcessor(**self.to_dict(), device=device)


def watermark_of(values: dict[str, Any]) -> BaseWatermarkingConfig:
    """The settings of a dict: SynthID's where it names an n-gram's length, else those of green lists."""
    kind = SynthIDTextWatermarkingConfig if "ngram_len" in values else WatermarkingConfig
    return kind.from_dict(values)
