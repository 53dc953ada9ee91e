"""llama.cpp's side: its own C interface through llama-cpp-python, many sequences a batch, the best token by NumPy."""

from __future__ import annotations

import time
from typing import Any

import llama_cpp
import numpy as np


class Side:
    """One loaded model, and a context for each shape of batch, with the settings that were asked for last."""

    def __init__(self) -> None:
        llama_cpp.llama_backend_init()
        self.model: Any = None
        self.vocabulary = 0
        self.contexts: dict[tuple[int, int], tuple[dict[str, Any], Any]] = {}  # (rows, positions) -> settings, context
        self.context: Any = None

    def load(self, source: str, settings: dict[str, Any]) -> dict[str, Any]:
        """Loads as its defaults say (mapped, repacked where it can), with a context for one row."""
        self.model = llama_cpp.llama_model_load_from_file(source.encode(), llama_cpp.llama_model_default_params())
        if not self.model:
            raise RuntimeError(f"llama.cpp cannot load {source}")
        self.vocabulary = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self.model))
        self.configure(settings, rows=1, positions=1024)
        return {"version": llama_cpp.__version__, "vocabulary": self.vocabulary}

    def configure(self, settings: dict[str, Any], rows: int, positions: int) -> None:
        """Makes or finds the context for rows of so many positions."""
        had, self.context = self.contexts.get((rows, positions), (None, None))
        if had != settings:
            if self.context is not None:
                llama_cpp.llama_free(self.context)
            self.context = self._new_context(settings, rows, positions)
            self.contexts[rows, positions] = settings, self.context

    def measure(self, prompts: list[list[int]], new_tokens: int) -> tuple[float, float, list[int]]:
        """Seconds to every row's first token, from there to the last, and tokens a row; the memory is cleared first."""
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self.context), True)
        batch = Batch(max(512, len(prompts)))
        start = time.perf_counter()
        batch.put_prompts(prompts)
        best = self._decode(batch, len(prompts))
        first = time.perf_counter()
        batch.put_rows([len(prompt) for prompt in prompts])
        for _ in range(new_tokens - 1):
            batch.token[: len(prompts)] = best
            best = self._decode(batch, len(prompts))
            batch.position[: len(prompts)] += 1
        last = time.perf_counter()
        batch.free()
        return first - start, last - first, [new_tokens] * len(prompts)

    def _decode(self, batch: Batch, rows: int) -> np.ndarray:
        """Computes the batch; each row's best next token."""
        if llama_cpp.llama_decode(self.context, batch.batch) != 0:
            raise RuntimeError("llama_decode failed")
        logits = np.ctypeslib.as_array(llama_cpp.llama_get_logits(self.context), (rows, self.vocabulary))
        return logits.argmax(axis=1)

    def _new_context(self, settings: dict[str, Any], rows: int, positions: int) -> Any:
        parameters = llama_cpp.llama_context_default_params()
        parameters.n_seq_max = rows
        parameters.n_ctx = rows * -(-positions // 256) * 256  # llama.cpp rounds a sequence's part up to this
        parameters.n_batch = 512
        parameters.n_ubatch = settings.get("n_ubatch", 512)
        parameters.n_threads = parameters.n_threads_batch = settings["threads"]
        if "flash_attention" in settings:
            parameters.flash_attn_type = int(settings["flash_attention"])
        parameters.kv_unified = settings.get("unified_cache", False)
        context = llama_cpp.llama_init_from_model(self.model, parameters)
        if not context:
            raise RuntimeError(f"llama.cpp cannot compute with {settings}")
        return context


class Batch:
    """A llama_batch whose fields are NumPy arrays."""

    def __init__(self, tokens: int) -> None:
        self.batch = llama_cpp.llama_batch_init(tokens, 0, 1)
        self.token = np.ctypeslib.as_array(self.batch.token, (tokens,))
        self.position = np.ctypeslib.as_array(self.batch.pos, (tokens,))
        self.scored = np.ctypeslib.as_array(self.batch.logits, (tokens,))
        self.sequence = [np.ctypeslib.as_array(self.batch.seq_id[index], (1,)) for index in range(tokens)]
        np.ctypeslib.as_array(self.batch.n_seq_id, (tokens,))[:] = 1

    def put_prompts(self, prompts: list[list[int]]) -> None:
        """Whole prompts, each a sequence of its own, whose last tokens are scored."""
        self.scored[:] = 0
        end = 0
        for row, prompt in enumerate(prompts):
            begin, end = end, end + len(prompt)
            self.token[begin:end] = prompt
            self.position[begin:end] = np.arange(len(prompt))
            self.scored[end - 1] = 1
            for index in range(begin, end):
                self.sequence[index][0] = row
        self.batch.n_tokens = end

    def put_rows(self, positions: list[int]) -> None:
        """One token a sequence, at these positions; the tokens are the caller's to set."""
        rows = len(positions)
        self.position[:rows] = positions
        self.scored[:rows] = 1
        for row in range(rows):
            self.sequence[row][0] = row
        self.batch.n_tokens = rows

    def free(self) -> None:
        """Gives the memory back."""
        llama_cpp.llama_batch_free(self.batch)
