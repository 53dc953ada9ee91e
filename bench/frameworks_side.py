"""One side of bench/frameworks.py: a framework's generate(), asked over a pipe. Needs nothing but that framework."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np  # after TensorFlow has been told to be quiet

Generate = Callable[[np.ndarray, dict[str, Any]], Any]  # (ids Int["R P"], what is asked) -> ids with the new ones
CLASSES = {"llama": "Llama", "gpt2": "GPT2"}


def fabula(framework: str, folder: str, threads: int) -> Generate:
    """Fabula's model in a framework."""
    import fabula

    doors = {"jax": "FlaxAutoModelForCausalLM", "tensorflow": "TFAutoModelForCausalLM", "torch": "AutoModelForCausalLM"}
    kept = {"torch": {"backend": "torch"}}.get(framework, {})
    convert = _converter(framework, threads)
    model = getattr(fabula, doors[framework]).from_pretrained(folder, dtype="float32", **kept)

    def generate(ids: np.ndarray, asked: dict[str, Any]) -> Any:
        return model.generate(convert(ids), eos_token_id=None, pad_token_id=0, use_cache=True, **asked)

    return generate


def transformers_torch(folder: str, threads: int) -> Generate:
    """PyTorch, eagerly."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    model.generation_config.eos_token_id = None
    convert = _converter("torch", threads)

    def generate(ids: np.ndarray, asked: dict[str, Any]) -> Any:
        torch.manual_seed(asked.get("seed", 0))
        kept = {name: value for name, value in asked.items() if name != "seed"}
        with torch.inference_mode():
            return model.generate(convert(ids), attention_mask=torch.ones(ids.shape), pad_token_id=0, **kept)

    return generate


def transformers_flax(folder: str, threads: int) -> Generate:
    """Flax of transformers 4, compiled as its documentation says; random weights of the same shapes."""
    import jax
    import transformers

    config = transformers.AutoConfig.from_pretrained(folder)
    model = getattr(transformers, f"Flax{CLASSES[config.model_type]}{_head(config)}")(config, seed=0)
    compiled: dict[str, Any] = {}

    def generate(ids: np.ndarray, asked: dict[str, Any]) -> Any:
        kept = {**asked, "eos_token_id": config.vocab_size, "pad_token_id": 0}  # which there is not
        seed, key = kept.pop("seed", 0), repr(asked)
        if key not in compiled:
            compiled[key] = jax.jit(lambda ids, prng: model.generate(ids, prng_key=prng, **kept).sequences)
        return compiled[key](ids, jax.random.PRNGKey(seed))

    return generate


def transformers_tensorflow(folder: str, threads: int) -> Generate:
    """TensorFlow of transformers 4, compiled by XLA as its documentation says; random weights of the same shapes."""
    import tensorflow as tf
    import transformers

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    config = transformers.AutoConfig.from_pretrained(folder)
    model = getattr(transformers, f"TF{CLASSES[config.model_type]}{_head(config)}")(config)
    compiled = tf.function(model.generate, jit_compile=True)

    def generate(ids: np.ndarray, asked: dict[str, Any]) -> Any:
        kept = {name: value for name, value in asked.items() if name != "seed"}
        return compiled(tf.constant(ids), eos_token_id=config.vocab_size, pad_token_id=0, **kept)

    return generate


SIDES: dict[str, Callable[[str, int], Generate]] = {
    "fabula jax": lambda folder, threads: fabula("jax", folder, threads),
    "fabula tensorflow": lambda folder, threads: fabula("tensorflow", folder, threads),
    "fabula torch": lambda folder, threads: fabula("torch", folder, threads),
    "transformers torch": transformers_torch,
    "transformers flax": transformers_flax,
    "transformers tensorflow": transformers_tensorflow,
}


def _head(config: Any) -> str:
    return "ForCausalLM" if config.model_type == "llama" else "LMHeadModel"


def _converter(framework: str, threads: int) -> Callable[[np.ndarray], Any]:
    """Ids as the framework's own array, after it was told how many threads to use."""
    if framework == "torch":
        import torch

        torch.set_num_threads(threads)
        return torch.as_tensor
    if framework == "jax":
        import jax.numpy as jnp

        return jnp.asarray
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    return tf.constant


def main() -> None:
    """Answers each line of a question with a line of what was measured."""
    name, folder, threads = sys.argv[1], sys.argv[2], int(sys.argv[3])
    answers, sys.stdout = sys.stdout, sys.stderr  # what libraries print is no answer
    generate = SIDES[name](folder, threads)
    print(json.dumps({"ready": True}), file=answers, flush=True)
    for line in sys.stdin:
        question = json.loads(line)
        ids = np.array(question["ids"], np.int32 if "torch" not in name else np.int64)
        wall, processor = time.perf_counter(), time.process_time()
        made = np.asarray(generate(ids, question["asked"]))
        answer = {"wall": time.perf_counter() - wall, "processor": time.process_time() - processor}
        print(json.dumps({**answer, "shape": list(made.shape)}), file=answers, flush=True)


if __name__ == "__main__":
    main()
