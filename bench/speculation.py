"""What keyed draws cost in accepted drafts beside textbook rejection sampling, and how many tokens a model call gives.

    python bench/speculation.py [--model smollm2] [--tokens 96] [--layers 24 27 29] [--temperature 1.0]

For a text that the model draws, and the same model stopped after fewer layers as its drafter: at each position
p is the target's distribution and q the drafter's, both after temperature. A draft is accepted

- by rejection sampling (Leviathan et al. 2023, section 3.2) with probability sum_i min(p_i, q_i);
- by keyed draws, where both take the maximum of log-probability plus the same Gumbel noise, with probability
  sum_i 1 / sum_j max(p_j / p_i, q_j / q_i) (Daliri, Musco and Suresh 2025, "Coupling without communication").

Then, measured: tokens a call of the target gives under prompt lookup on an edit task, and under the drafters above.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np

import fabula
from fabula.arrays import numpy as xp
from fabula.cache.blocks import blocks_for
from fabula.ops.protocol import NO_TAPS, Batch, Taps

EDIT = (
    "Repeat this text, but write 'colour' for 'color': The color of the sky is a color that painters call azure, and "
    "the color of the sea below it is the same color in a darker shade, since the water takes its color from the sky."
)
STORY = "Write a short story about a lighthouse keeper and a whale."


def main() -> None:
    """Prints the two tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--tokens", type=int, default=96)
    parser.add_argument("--layers", type=int, nargs="+", default=[24, 27, 29])
    parser.add_argument("--temperature", type=float, default=1.0)
    asked = parser.parse_args()
    model = fabula.AutoModelForCausalLM.from_pretrained(asked.model)
    tokenizer = fabula.AutoTokenizer.from_pretrained(asked.model)
    prompt = chat(tokenizer, STORY)
    settings = {"do_sample": True, "seed": 1, "top_k": 0, "temperature": asked.temperature}
    (text,) = model.generate([prompt], max_new_tokens=asked.tokens, eos_token_id=None, **settings)
    p = distributions(model, text, len(prompt), NO_TAPS, asked.temperature)
    print("drafter            rejection   keyed   ratio")
    for layers in asked.layers:
        q = distributions(model, text, len(prompt), Taps(last_layer=layers), asked.temperature)
        rejection, keyed = (
            np.minimum(p, q).sum(-1).mean(),
            np.mean([agreement(a, b) for a, b in zip(p, q, strict=True)]),
        )
        print(f"first {layers:2d} layers    {rejection:8.3f} {keyed:8.3f} {keyed / rejection:8.3f}")
    print("\ntokens a call of the target")
    for name, ids, call in [
        ("lookup, an edit, greedy", chat(tokenizer, EDIT), {"prompt_lookup_num_tokens": 8}),
        ("lookup, a story, greedy", prompt, {"prompt_lookup_num_tokens": 8}),
        *((f"first {n} layers, drawn", prompt, {"assistant_early_exit": n, "num_assistant_tokens": 4, **settings})
          for n in asked.layers),
    ]:  # fmt: skip
        print(f"{name:28s} {tokens_a_call(model, ids, asked.tokens, call):6.2f}")


def chat(tokenizer: Any, words: str) -> list[int]:
    """The ids of a conversation's first message."""
    messages = [{"role": "user", "content": words}]
    return list(tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False))


def distributions(model: Any, text: list[int], start: int, taps: Taps, temperature: float) -> np.ndarray:
    """Float64["N V"]: what the model says of each token from `start` on."""
    count = blocks_for(len(text))
    batch = Batch(
        np.array(text, np.int32), np.array([0, len(text)], np.int32), np.zeros(1, np.int32),
        np.arange(count, dtype=np.int32)[None], np.arange(start - 1, len(text) - 1, dtype=np.int32),
    )  # fmt: skip
    logits = model.step(batch, model.new_cache(count), taps).logits
    return xp.softmax(logits.astype(np.float64) / temperature)


def agreement(p: np.ndarray, q: np.ndarray) -> float:
    """The probability that two draws with the same noise are the same token."""
    likely = np.flatnonzero((p > 1e-6) & (q > 1e-6))  # the rest adds less than a thousandth
    ratios = [np.maximum(p / p[token], q / q[token]).sum() for token in likely]
    return float(sum(1 / ratio for ratio in ratios))


def tokens_a_call(model: Any, ids: list[int], tokens: int, call: dict[str, Any]) -> float:
    """New tokens over passes of the whole model that choose, the prompt's included."""
    calls, step = 0, model.step

    def counted(batch: Batch, cache: Any, taps: Taps = NO_TAPS) -> Any:
        nonlocal calls
        calls += taps.last_layer is None and len(batch.scored) > 0
        return step(batch, cache, taps)

    model.step = counted
    try:
        (text,) = model.generate([ids], max_new_tokens=tokens, **call)
    finally:
        del model.step
    return (len(text) - len(ids)) / calls


if __name__ == "__main__":
    main()
