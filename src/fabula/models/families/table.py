"""Which family a configuration belongs to: one table, one line a family."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from fabula.errors import ModelFileError
from fabula.models.families.family import Family
from fabula.models.families.gemma3 import Gemma3
from fabula.models.families.gpt2 import GPT2
from fabula.models.families.llama import Llama
from fabula.models.families.mistral import Mistral
from fabula.models.families.mt5 import MT5
from fabula.models.families.qwen2 import Qwen2
from fabula.models.families.qwen3 import Qwen3
from fabula.models.families.settings import Settings
from fabula.models.families.t5 import T5

FAMILIES: tuple[type[Family], ...] = (
    Llama,
    Mistral,
    Gemma3,
    Qwen2,
    Qwen3,
    GPT2,
    T5,
    MT5,
)


def model_types() -> dict[str, type[Family]]:
    """Every `model_type` that can be loaded, and its family."""
    return {name: family for family in FAMILIES for name in family.model_types}


def family_class(values: Mapping[str, Any]) -> type[Family]:
    """The class for a config.json's values. Raises ModelFileError for a model_type that is absent or unknown."""
    name, known = values.get("model_type"), model_types()
    if isinstance(name, str) and name in known:
        return known[name]
    near = difflib.get_close_matches(str(name), known, 1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise ModelFileError(f"model_type must be one of {', '.join(sorted(known))}, got {name!r:.60}.{hint}")


def family_for(config: Settings) -> Family:
    """The configuration's family, ready to run."""
    return family_class(config.to_dict())(config)
