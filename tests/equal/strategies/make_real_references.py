"""Writes references/*-5.json: beams, guidance and speculation of the real models, as transformers 5 runs them.

    PYTHONPATH=src:. python tests/equal/strategies/make_real_references.py

Their GGUF files, read to float32, must be in Fabula's cache. It takes minutes: that is why the results are kept.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import torch
import transformers

from fabula import AutoTokenizer
from fabula.hub.cache_folder import cache_folder
from tests.equal.strategies.cases import REAL_FILES, REFERENCES, TEXTS
from tests.equal.strategies.live import beams, one_token_a_step

NEW = 24
COUNTING = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11,"
VARIANTS = (
    {"num_beams": 3, "num_return_sequences": 3, "length_penalty": 1.5},
    {"guidance_scale": 1.5},
    {"guidance_scale": 2.0, "negative_prompt": TEXTS[1]},
    {"prompt_lookup_num_tokens": 4, "repetition_penalty": 1.05},
    {"num_assistant_tokens": 5},  # the model drafts for itself
)


def cases(name: str) -> Iterator[dict[str, Any]]:
    """Each variant after two prompts."""
    path = cache_folder() / REAL_FILES[name]
    tokenizer = AutoTokenizer.from_pretrained(path)
    model = transformers.AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
    for variant in VARIANTS:
        for text in (COUNTING, TEXTS[0]):
            settings = {"max_new_tokens": NEW, "eos_token_id": None, **variant}
            negative = settings.pop("negative_prompt", None)
            if negative is not None:
                settings["negative_prompt_ids"] = [tokenizer.encode(negative)]
            yield run(model, tokenizer.encode(text), settings)


def run(model: Any, prompt: list[int], settings: dict[str, Any]) -> dict[str, Any]:
    """One case with what transformers makes of it."""
    given = dict(settings)
    if "negative_prompt_ids" in given:
        given["negative_prompt_ids"] = torch.tensor(given["negative_prompt_ids"])
    if "num_assistant_tokens" in given:
        given["assistant_model"] = model
    searching = "num_beams" in settings
    found = (beams if searching else one_token_a_step)(model, prompt, **given)
    case = {"settings": settings, "prompt": prompt, "rows": found.rows}
    case["gaps"] = [float(f"{gap:.2g}") for gap in found.gaps]
    if searching:
        assert found.scores is not None
        case |= {"scores": [round(score, 6) for score in found.scores], "ranking_gap": case["gaps"][-1]}
    return case


def main() -> None:
    torch.set_num_threads(1)
    for name in REAL_FILES:
        lines = ",\n".join(json.dumps(case) for case in cases(name))
        peer = json.dumps({"transformers": transformers.__version__, "torch": torch.__version__})
        (REFERENCES / f"{name}-5.json").write_text(f'{{"peer": {peer},\n"cases": [\n{lines}\n]}}\n', encoding="utf-8")
        print(name, flush=True)


if __name__ == "__main__":
    main()
