"""Beams over a table of logits: a model that transformers 4 can hold too, without weights to pass over.

`python tests/decoding/beam_tables.py cases.json results.json`, run where transformers 4.49 to 4.56 is installed, makes
what tests/decoding/beams_of_transformers_4.json holds (it was made by 4.55.4 with torch 2.13).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

SIZES = (1.5, 0.7)  # how much the last token and the one before it say


def tables(seed: int, vocabulary: int) -> list[torch.Tensor]:
    """What follows a token, and what follows it one later: logits ["V V"] each."""
    generator = np.random.default_rng(seed)
    shape = (vocabulary, vocabulary)
    return [torch.tensor(generator.standard_normal(shape).astype(np.float32) * size) for size in SIZES]


def table_logits(seed: int, vocabulary: int) -> Any:
    """Int["R L"] -> Float["R V"]."""
    last, before_last = tables(seed, vocabulary)

    def logits_of(rows: np.ndarray) -> torch.Tensor:
        tokens = torch.tensor(rows.astype(np.int64))
        return last[tokens[:, -1]] + before_last[tokens[:, max(-2, -tokens.shape[1])]]

    return logits_of


def table_model(seed: int, vocabulary: int) -> Any:
    """The same as a model of transformers."""
    from transformers import GenerationMixin, PretrainedConfig, PreTrainedModel
    from transformers.modeling_outputs import CausalLMOutput

    last, before_last = tables(seed, vocabulary)

    class Table(PreTrainedModel, GenerationMixin):  # type: ignore[misc]
        config_class = PretrainedConfig

        def __init__(self, config: Any) -> None:
            super().__init__(config)
            self.unused = torch.nn.Parameter(torch.zeros(1))

        def forward(self, input_ids: torch.Tensor, attention_mask: Any = None, **rest: Any) -> Any:
            before = torch.cat([input_ids[:, :1], input_ids[:, :-1]], dim=1)
            return CausalLMOutput(logits=last[input_ids] + before_last[before])

        def prepare_inputs_for_generation(
            self, input_ids: torch.Tensor, attention_mask: Any = None, **rest: Any
        ) -> dict[str, Any]:
            return {"input_ids": input_ids}

    return Table(PretrainedConfig(vocab_size=vocabulary)).eval()


def generated(case: dict[str, Any]) -> dict[str, Any]:
    """A case with what transformers generates for it."""
    prompt = torch.tensor([case["prompt"]])
    out = table_model(case["table"], case["vocabulary"]).generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        pad_token_id=case["padding"],
        do_sample=False,
        use_cache=False,
        return_dict_in_generate=True,
        output_scores=True,
        **case["settings"],
    )
    sequences = out.sequences[:, prompt.shape[1] :].tolist()
    return {**case, "sequences": sequences, "scores": out.sequences_scores.tolist(), "steps": len(out.scores)}


if __name__ == "__main__":
    cases = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    Path(sys.argv[2]).write_text(json.dumps([generated(case) for case in cases]), encoding="utf-8")
