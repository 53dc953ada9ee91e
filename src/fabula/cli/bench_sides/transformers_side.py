"""transformers' side: generate() on a CPU, timed by a stopping criterion that never stops."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
import transformers


class Side:
    """One source, loaded once for each type it was asked to compute in."""

    def __init__(self) -> None:
        self.source = ""
        self.models: dict[str, Any] = {}
        self.model: Any = None

    def load(self, source: str, settings: dict[str, Any]) -> dict[str, Any]:
        """Loads; a GGUF's weights are dequantized."""
        self.source = source
        self.configure(settings, rows=1, positions=0)
        return {"version": transformers.__version__, "vocabulary": self.model.config.vocab_size}

    def configure(self, settings: dict[str, Any], rows: int, positions: int) -> None:
        """Sets the threads, and loads the model in the type that the settings name."""
        torch.set_num_threads(settings["threads"])
        name = settings.get("dtype", "bfloat16")
        if name not in self.models:
            self.models[name] = load(self.source, getattr(torch, name))
        self.model = self.models[name]

    def measure(self, prompts: list[list[int]], new_tokens: int) -> tuple[float, float, list[int]]:
        """Seconds to every row's first token, from there to the last, and tokens a row."""
        ids = torch.tensor(prompts)
        clock = Clock()
        start = time.perf_counter()
        out = self.model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=new_tokens,
            do_sample=False,
            stopping_criteria=transformers.StoppingCriteriaList([clock]),
        )
        made = out.shape[1] - ids.shape[1]
        return clock.times[0] - start, clock.times[-1] - clock.times[0], [made] * len(prompts)


class Clock(transformers.StoppingCriteria):
    """Notes when each step ended."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
        self.times.append(time.perf_counter())
        return torch.zeros(len(input_ids), dtype=torch.bool)


def load(source: str, dtype: Any) -> Any:
    """The model, which no token ends."""
    path = Path(source)
    arguments = (path.parent, path.name) if path.suffix == ".gguf" else (source, None)
    model = transformers.AutoModelForCausalLM.from_pretrained(arguments[0], gguf_file=arguments[1], dtype=dtype).eval()
    model.generation_config = transformers.GenerationConfig(eos_token_id=None, pad_token_id=0)
    return model
