"""Measures the kernels one by one: matmuls by format and number of tokens, and sampling, best of many runs.

python bench/kernels.py [--isa avx512] [--threads 2] [--seconds 0.3]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np

from fabula.kernels.compiled import ThreadPool
from fabula.kernels.library import Library, load_library
from fabula.kernels.sampling import RowChoice, sample_tokens
from fabula.ops.native import NativeModel, available_threads
from fabula.ops.protocol import Batch
from fabula.quant.formats import FORMATS, StoredTensor, quantize, stored

SHAPES = ((576, 1536), (2048, 5632))  # inputs, outputs
TOKENS = (1, 8, 128)
CHOICES = {
    "greedy": RowChoice(),
    "top_k=50": RowChoice(temperature=1.0, top_k=50),
    "top_k=50 top_p=0.9": RowChoice(temperature=0.7, top_k=50, tail=0.1),
    "top_p=0.9": RowChoice(temperature=1.0, tail=0.1),
    "temperature=1": RowChoice(temperature=1.0),
}


class Product:
    """A family that is one linear: what is measured is the embedding lookup, the quantization and the product."""

    layers = ()

    def embed(self, ops, w):
        return ops.embed(w.embed)

    def final(self, ops, x, w):
        return x

    def logits(self, ops, hidden, w):
        return ops.linear(hidden, w.weight)

    def weights(self):
        return {"embed": self, "weight": self}

    transposed = False


def best(work: Callable[[], object], seconds: float) -> float:
    """The shortest of the runs that fit in so many seconds."""
    shortest, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        work()
        shortest = min(shortest, time.perf_counter() - start)
    return shortest


def measure_products(library: Library, threads: int, seconds: float) -> None:
    """Prints multiplications and bytes of weights a second."""
    generator = np.random.default_rng(0)
    for name, entry in FORMATS.items():
        if entry.encode is None:
            continue
        for inputs, outputs in SHAPES:
            weights = generator.standard_normal((outputs, inputs)).astype(np.float32)
            weight = StoredTensor("weight", name, weights.shape, quantize(name, weights))
            table = stored("embed", generator.standard_normal((max(TOKENS), inputs)).astype(np.float32))
            model = NativeModel(
                Product(), {(None, "embed"): table, (None, "weight"): weight}, library=library, threads=threads
            )
            cache, line = model.new_cache(8), f"{name:5} {inputs:5} -> {outputs:5}"
            for count in TOKENS:
                every = np.arange(count, dtype=np.int32)
                batch = Batch(
                    every,
                    np.array([0, count], np.int32),
                    np.zeros(1, np.int32),
                    np.arange(8, dtype=np.int32)[None],
                    every,
                )
                taken = best(lambda model=model, batch=batch, cache=cache: model.step(batch, cache), seconds)
                products, read = count * inputs * outputs / taken / 1e9, weight.data.nbytes / taken / 1e9
                line += f"   {count:3} tokens {products:7.1f} GMAC/s {read:6.1f} GB/s"
            print(line, flush=True)


def measure_choices(library: Library, threads: int, seconds: float, vocabulary: int = 49152) -> None:
    """Prints microseconds a row."""
    pool = ThreadPool(library, threads)
    logits = (np.random.default_rng(1).standard_normal((1, vocabulary)) * 3).astype(np.float32)
    for name, row in CHOICES.items():
        taken = best(lambda row=row: sample_tokens(pool, logits, [row]), seconds)
        print(f"sample {vocabulary} scores, {name:20} {taken * 1e6:8.1f} us", flush=True)


def main() -> None:
    library = load_library()
    if library is None:
        raise SystemExit("the kernels are not built")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--isa", choices=library.isas, default=library.isa)
    parser.add_argument("--threads", type=int, default=available_threads())
    parser.add_argument("--seconds", type=float, default=0.3)
    arguments = parser.parse_args()
    library.set_isa(arguments.isa)
    measure_choices(library, arguments.threads, arguments.seconds)
    measure_products(library, arguments.threads, arguments.seconds)


if __name__ == "__main__":
    main()
