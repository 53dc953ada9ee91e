"""What a call would do: every setting that holds, where it came from, and which ones do nothing, and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from fabula.generation.settings.combinations import without_effect
from fabula.generation.settings.fields import FIELDS, Field
from fabula.generation.settings.modes import GenerationMode, mode_of
from fabula.generation.settings.rules import SOURCES, merge, reject_unknown, unsupported

__all__ = ["Explained", "Explanation", "explain"]


@dataclass(frozen=True, slots=True)
class Explained:
    """One setting of a call."""

    name: str
    value: Any
    source: str  # one of rules.SOURCES
    idle: str | None = None  # why it has no effect, though somebody set it
    refused: str | None = None  # why generate() would not take it


@dataclass(frozen=True, slots=True)
class Explanation:
    """Every setting of a call; print it, or look one up by name."""

    mode: GenerationMode
    settings: Mapping[str, Explained]

    def __getitem__(self, name: str) -> Explained:
        return self.settings[name]

    @property
    def without_effect(self) -> dict[str, str]:
        """The settings that somebody made and that do nothing as they are, with the reason."""
        return {one.name: one.idle for one in self.settings.values() if one.idle is not None}

    def __str__(self) -> str:
        """A table: what the call says, then the configs, then defaults, then what is off."""
        lines = [f"mode: {self.mode}"]
        rows = sorted(self.settings.values(), key=lambda one: SOURCES.index(one.source))
        shown = [one for one in rows if one.source != "default" or one.value is not None]
        wide = max(len(one.name) for one in shown)
        for one in shown:
            notes = [one.refused or "", f"no effect: {one.idle}" if one.idle else ""]
            line = f"{one.name:{wide}}  {one.value!r:20}  {one.source:17}  {' '.join(notes)}"
            lines.append(line.rstrip())
        unset = [one.name for one in rows if one not in shown]
        return "\n".join([*lines, f"not set: {', '.join(unset)}"])


def explain(call: Mapping[str, Any], given: Any, model: Any = None) -> Explanation:
    """The settings of generate(generation_config=given, **call) of a model with the config `model`, or None.

    Raises UnknownArgumentError, ArgumentError for what `call` must not hold.
    """
    reject_unknown(call, given)
    settings = merge(call, given, model)
    for name in FIELDS.keys() & call.keys():
        FIELDS[name].check.require(name, settings[name].value)
    effective = SimpleNamespace(**{name: setting.value for name, setting in settings.items()})
    explained = {}
    for name, setting in settings.items():
        idle = None if setting.source == "default" else _idle(FIELDS[name], effective)
        refused = unsupported(FIELDS[name], effective)
        explained[name] = Explained(name, setting.value, setting.source, idle, refused)
    return Explanation(mode_of(effective), explained)


def _idle(field: Field, effective: Any) -> str | None:
    """Why a setting that somebody made does nothing."""
    for new, total in (("max_new_tokens", "max_length"), ("min_new_tokens", "min_length")):
        if field.name == total and getattr(effective, new) is not None:
            return f"`{new}` is set, and holds."
    return without_effect(field, effective)
