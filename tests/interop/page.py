"""The page that says which models of transformers Fabula generates with, from what became of each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import transformers

from tests.interop.tiny_models import CAUSAL, SEQ2SEQ, model_types

TITLES = {CAUSAL: "Causal language models", SEQ2SEQ: "Models with an encoder"}
CACHES = {
    "blocks": "blocks",
    "columns": "cache of full length",
    "own": "the model's own cache",
    "none": "computed anew each step",
}
SIDES = {
    "end to end": "rows of any lengths end to end",
    "left": "rows padded on the left",
    "right": "rows padded on the right",
    "none": "rows of one length together",
}
TEXT = """# Models of transformers

```python
from transformers import LlamaConfig, LlamaForCausalLM

from fabula import interop

theirs = LlamaForCausalLM(LlamaConfig(vocab_size=99, hidden_size=32, num_hidden_layers=2, num_attention_heads=4))
model = interop.wrap(theirs)  # any PreTrainedModel that generates text
print(model.generate([[5, 6, 7], [8, 9]], max_new_tokens=5))
```

A wrapped model has the whole of Fabula's `generate()`. How its rows are brought together is found out at the first
call: the ways below are tried on a few tokens, from the fastest on, and the first one is taken that gives each row what
the model gives it alone. The parameters are used where they are.

A decoder whose layers attend through transformers' attention interface, causally and with nothing but a scale, a window
and a cap on scores, reads and writes Fabula's blocks: rows of any lengths go end to end through one call, nothing is
padded, and beams and samples share what they have in common. While a step is under way its configurations name another
attention implementation; the blocks are an argument of its forward. The others keep keys and values in a cache of their
own, and rows are padded to a rectangle; so does a model over several devices, or with another `attn_implementation`
than "sdpa".

This page is written by `tests/interop/table.py`, with transformers {version}. Of each class in its mappings a small
model with random weights generates greedily from two prompts of different lengths: through Fabula in one batch, and by
its own `generate()`, each prompt alone. A class passes if all tokens are equal.

**{passed} of the {built} classes that can be built from a small configuration pass ({share:.0%})**; {whole} classes are
in the mappings{untried}.
"""


def page(rows: Sequence[dict[str, Any]]) -> str:
    """The page as Markdown. `rows`: what became of each class that was tried."""
    counted = Counter(row["status"] for row in rows)
    built = len(rows) - counted["not built"]
    whole = sum(len(model_types(mapping)) for mapping in TITLES)
    untried = "" if whole == len(rows) else f", {whole - len(rows)} of them not tried yet"
    numbers = {"passed": counted["passes"], "built": built, "share": counted["passes"] / max(built, 1), "whole": whole}
    text = TEXT.format(version=transformers.__version__, untried=untried, **numbers)
    return text + "".join(_section(mapping, rows) for mapping in TITLES)


def _section(mapping: str, rows: Sequence[dict[str, Any]]) -> str:
    lines = [f"\n## {TITLES[mapping]}\n", "| model type | class | result | how, or why not |", "|---|---|---|---|"]
    for row in sorted((row for row in rows if row["mapping"] == mapping), key=lambda row: row["kind"]):
        lines.append(f"| {row['kind']} | {row['class']} | {row['status']} | {_remark(row)} |")
    return "\n".join(lines) + "\n"


def _remark(row: dict[str, Any]) -> str:
    """How the class was computed, or what went wrong, on one line of a table."""
    if row["status"] == "passes":
        return f"{CACHES[row['cache']]}, {SIDES[row['padding']]}"
    return row["reason"].replace("|", "\\|").replace("<", "&lt;")[:200]
