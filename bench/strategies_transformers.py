"""transformers' side of strategies.py: reads calls as lines of JSON, runs generate(), writes how long each took.

python bench/strategies_transformers.py THREADS   (started by strategies.py, in this Python or in --peer-python)
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import torch
import transformers


def load(folder: str) -> Any:
    """The model in float32, which no token ends."""
    arguments: dict[str, Any] = {"torch_dtype" if transformers.__version__[0] == "4" else "dtype": torch.float32}
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, **arguments).eval()
    model.generation_config = transformers.GenerationConfig(eos_token_id=None, pad_token_id=0)
    return model


class Side:
    """Models by their folder, loaded once."""

    def __init__(self) -> None:
        self.models: dict[str, Any] = {}

    def model(self, folder: str) -> Any:
        if folder not in self.models:
            self.models[folder] = load(folder)
        return self.models[folder]

    def measure(self, folder: str, prompts: list[list[int]], settings: dict[str, Any]) -> dict[str, Any]:
        """Seconds of one call, on the clock and of the processor, and the new tokens."""
        model, ids = self.model(folder), torch.tensor(prompts)
        call = self.call(model, settings)
        wall, own = time.perf_counter(), time.process_time()
        out = model.generate(ids, attention_mask=torch.ones_like(ids), **call)
        taken = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - own}
        return {**taken, "tokens": out[:, ids.shape[1] :].tolist()}

    def call(self, model: Any, settings: dict[str, Any]) -> dict[str, Any]:
        """The call's arguments; what a draft is like is the assistant's to say."""
        call = dict(settings)
        if "assistant_model" in call:
            assistant = call["assistant_model"] = self.model(call["assistant_model"])
            for name in ("num_assistant_tokens", "num_assistant_tokens_schedule", "assistant_confidence_threshold"):
                setattr(assistant.generation_config, name, call.pop(name))
        if "negative_prompt_ids" in call:
            call["negative_prompt_ids"] = torch.tensor(call["negative_prompt_ids"])
        return call


def main() -> None:
    """Answers calls until the input ends."""
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(int(sys.argv[1]))
    side, answers = Side(), sys.stdout
    sys.stdout = sys.stderr
    print(sys.executable, transformers.__version__, torch.__version__)
    for line in sys.stdin:
        try:
            answer = side.measure(**json.loads(line))
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
