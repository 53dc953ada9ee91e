"""Measures one row on a GPU: the share of its memory's bandwidth, and the ratio to transformers' generate() as it is.

python bench/gpu.py [--device cuda] [--shape 8b] [--rows 1] [--prompt 32] [--new 256] [--rounds 7]

A model of Llama 3's shape with random weights in bfloat16, which both sides share. Each round measures the bandwidth,
asks Fabula and transformers (default settings: a dynamic cache, operations launched one by one), who goes first
alternates, and no token ends a row. A token's time is that of a call for all new tokens less that of a call for one,
divided by the tokens between; rates, the share and the ratio are medians of the rounds with the lowest and highest.
The bandwidth is the better of reading 1 GiB (a sum) and copying it; the bytes of a token are all weights but the
embeddings, of which a row is read. `--device cpu --shape tiny` only shows that it runs.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
import transformers

import fabula
from fabula.models.families.config import ModelConfig
from fabula.models.families.table import family_for
from fabula.models.torch import TorchCausalLM

SHAPES = {
    "8b": {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
           "num_key_value_heads": 8, "vocab_size": 128256, "rope_theta": 500000.0, "max_position_embeddings": 8192},
    "1b": {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32,
           "num_key_value_heads": 8, "vocab_size": 128256, "rope_theta": 500000.0, "max_position_embeddings": 8192},
    "tiny": {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
             "num_key_value_heads": 2, "vocab_size": 1000, "max_position_embeddings": 1024},
}  # fmt: skip
READ = 1 << 30  # bytes
KINDS = {"greedy": {"do_sample": False}, "sampled": {"do_sample": True, "temperature": 0.8, "top_k": 50, "top_p": 0.9}}


class Sides:
    """The same weights in both libraries."""

    def __init__(self, shape: str, device: str) -> None:
        torch.manual_seed(0)
        before = torch.get_default_dtype()
        torch.set_default_dtype(torch.bfloat16)
        try:
            with torch.device(device):
                theirs = transformers.LlamaForCausalLM(transformers.LlamaConfig(**SHAPES[shape])).eval()
        finally:
            torch.set_default_dtype(before)
        theirs.requires_grad_(False)
        theirs.generation_config = transformers.GenerationConfig(eos_token_id=None, pad_token_id=0)
        family = family_for(ModelConfig.from_dict(theirs.config.to_dict()))
        ours = TorchCausalLM(family, dict(theirs.state_dict())).requires_grad_(False)
        self.device, self.vocabulary = torch.device(device), SHAPES[shape]["vocab_size"]
        self.models: dict[str, Any] = {"fabula": ours, "transformers": theirs}
        self.bytes_of_a_token = sum(
            weight.nbytes for name, weight in theirs.state_dict().items() if "embed_tokens" not in name
        )

    def seconds(self, side: str, ids: torch.Tensor, new: int, asked: dict[str, Any]) -> tuple[float, torch.Tensor]:
        """What one call takes, until its tokens are there."""
        settings = {"attention_mask": torch.ones_like(ids), "eos_token_id": None, "pad_token_id": 0, **asked}
        begin = time.perf_counter()
        with torch.inference_mode() if side == "transformers" else torch.no_grad():
            made = self.models[side].generate(ids, max_new_tokens=new, **settings).cpu()
        assert made.shape[1] == ids.shape[1] + new, (side, made.shape)
        return time.perf_counter() - begin, made

    def per_token(self, side: str, ids: torch.Tensor, new: int, asked: dict[str, Any]) -> tuple[float, torch.Tensor]:
        """Seconds of a step of decoding, the prompt's own time taken off."""
        once, _ = self.seconds(side, ids, 1, asked)
        whole, made = self.seconds(side, ids, new, asked)
        return (whole - once) / (new - 1), made


def bandwidth(device: torch.device, size: int) -> float:
    """Bytes a second: the best of a few runs of a sum and of a copy, which reads and writes."""
    source = torch.ones(size // 4, dtype=torch.float32, device=device)
    target = torch.empty_like(source)
    ways: list[tuple[int, Callable[[], Any]]] = [(size, source.sum), (2 * size, lambda: target.copy_(source))]
    return max(count / clocked(run, device) for count, run in ways for _ in range(5))


def clocked(run: Callable[[], Any], device: torch.device) -> float:
    """Seconds until what was started is done."""
    wait(device)
    begin = time.perf_counter()
    run()
    wait(device)
    return time.perf_counter() - begin


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def measured(sides: Sides, options: argparse.Namespace, asked: dict[str, Any]) -> dict[str, list[float]]:
    """Of each round: the rates, the share of the bandwidth, and the ratio. One round before them is not counted."""
    found: dict[str, list[float]] = {name: [] for name in ("bandwidth", "fabula", "transformers", "share", "ratio")}
    size = READ if sides.device.type == "cuda" else READ >> 5
    for turn in range(options.rounds + 1):
        ids = torch.randint(3, sides.vocabulary, (options.rows, options.prompt), device=sides.device)
        order = sorted(sides.models, reverse=bool(turn % 2))
        taken = {side: sides.per_token(side, ids, options.new, asked) for side in order}
        rates = {side: options.rows / seconds for side, (seconds, _) in taken.items()}
        if not turn:
            continue
        reads = bandwidth(sides.device, size)
        found["bandwidth"].append(reads)
        found["share"].append(sides.bytes_of_a_token / taken["fabula"][0] / reads)
        found["ratio"].append(rates["fabula"] / rates["transformers"])
        for side, rate in rates.items():
            found[side].append(rate)
        print(f"round {turn}: {' '.join(f'{side} {rate:.1f}' for side, rate in rates.items())}", file=sys.stderr)
    return found


def spread(values: Sequence[float], scale: float = 1.0, unit: str = "") -> str:
    """The median with the lowest and highest."""
    low, middle, high = (scale * value for value in (min(values), statistics.median(values), max(values)))
    return f"{middle:.2f}{unit} ({low:.2f} to {high:.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--shape", choices=tuple(SHAPES), default="8b")
    parser.add_argument("--rows", type=int, default=1)
    parser.add_argument("--prompt", type=int, default=32)
    parser.add_argument("--new", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--kinds", nargs="+", choices=tuple(KINDS), default=["greedy"])
    parser.add_argument("--json", help="where every round goes")
    options = parser.parse_args()
    if torch.device(options.device).type == "cuda" and not torch.cuda.is_available():
        sys.exit("there is no CUDA device here. Try --device cpu --shape tiny, which only shows that it runs.")
    sides, every = Sides(options.shape, options.device), {}
    name = torch.cuda.get_device_name(sides.device) if sides.device.type == "cuda" else options.device
    print(
        f"{name}, {options.shape} in bfloat16, {options.rows} row(s), {options.new} new tokens after {options.prompt}"
    )
    print(f"fabula {fabula.__version__}, transformers {transformers.__version__}, torch {torch.__version__}")
    for kind in options.kinds:
        found = every[kind] = measured(sides, options, KINDS[kind])
        print(f"{kind}: fabula {spread(found['fabula'])} tokens/s, transformers {spread(found['transformers'])}")
        print(f"  {spread(found['ratio'])} times transformers' rate")
        print(f"  {spread(found['share'], 100, ' %')} of {spread(found['bandwidth'], 1e-9, ' GB/s')}")
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump({"device": name, "options": vars(options), "rounds": every}, file, indent=1)


if __name__ == "__main__":
    main()
