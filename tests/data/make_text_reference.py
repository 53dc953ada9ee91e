"""Writes text_llama_cpp.json: digests of llama.cpp's ids for text.json.gz, for tests that run without llama.cpp.

Run with llama-cpp-python installed: `python make_text_reference.py SMOLLM2.gguf GEMMA.gguf`. Texts that the two
tokenizers treat differently by definition are left out; the tests say which and why.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import sys
from collections.abc import Callable
from pathlib import Path

from llama_cpp import Llama

HERE = Path(__file__).parent
# Bytes without a token in SmolLM2's vocabulary.
ABSENT = frozenset((4, 6, 19, 20, 22, 29, 192, 193, 241, 242, 245, 246, 247, 248, 249, 250, 251, 252, 253, 254, 255))


def digests(model: str, texts: list[str], add_bos: bool, keep: Callable[[str], bool]) -> list[str]:
    """A digest of the ids of each hundred texts."""
    llama = Llama(model, vocab_only=True, verbose=False)
    rows = [llama.tokenize(text.encode(), add_bos=add_bos, special=True) if keep(text) else [] for text in texts]
    blocks = [json.dumps(rows[start : start + 100]).encode() for start in range(0, len(rows), 100)]
    return [hashlib.sha256(block).hexdigest()[:16] for block in blocks]


if __name__ == "__main__":
    texts = json.loads(gzip.decompress((HERE / "text.json.gz").read_bytes()))
    smollm2, gemma = sys.argv[1:]
    found = {
        "smollm2": digests(smollm2, texts, False, lambda text: not ABSENT.intersection(text.encode())),
        "gemma": digests(gemma, texts, True, lambda text: " " * 32 not in text and "\u2581" not in text),
    }
    (HERE / "text_llama_cpp.json").write_text(json.dumps(found, indent=0) + "\n")
