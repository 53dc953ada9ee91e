"""Writes GGUF files byte by byte, so that every number in them can be wrong."""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 = range(13)
CODES = {U8: "B", I8: "b", U16: "H", I16: "h", U32: "I", I32: "i", F32: "f", BOOL: "B", U64: "Q", I64: "q", F64: "d"}
TYPES = {"F32": 0, "F16": 1, "Q4_0": 2, "Q4_1": 3, "Q8_0": 8}


def text(value: str | bytes, size: int | None = None) -> bytes:
    """A string, with a size of its own choosing."""
    data = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(data) if size is None else size) + data


def value(kind: int, content: Any) -> bytes:
    """A value without its type; an array is (element type, list)."""
    if kind == STRING:
        return text(content)
    if kind == ARRAY:
        element, items = content
        return struct.pack("<IQ", element, len(items)) + b"".join(value(element, item) for item in items)
    return struct.pack("<" + CODES[kind], content)


def key(name: str | bytes, kind: int, content: Any) -> bytes:
    """A key with its value."""
    return text(name) + struct.pack("<I", kind) + value(kind, content)


@dataclass(frozen=True)
class Tensor:
    """A tensor, and what the header says of it."""

    name: str | bytes
    dimensions: tuple[int, ...]  # as GGUF has them: the row's length first
    kind: int = 0
    data: bytes = b""
    offset: int | None = None  # None: after the tensor before

    def header(self, offset: int) -> bytes:
        place = offset if self.offset is None else self.offset
        count = len(self.dimensions)
        return text(self.name) + struct.pack(f"<I{count}QIQ", count, *self.dimensions, self.kind, place)


@dataclass(frozen=True)
class File:
    """A file; every field may be wrong."""

    keys: tuple[bytes, ...] = ()
    tensors: tuple[Tensor, ...] = ()
    magic: bytes = b"GGUF"
    version: int = 3
    tensor_count: int | None = None
    key_count: int | None = None
    alignment: int = 32

    def bytes(self) -> bytes:
        counts = (
            len(self.tensors) if self.tensor_count is None else self.tensor_count,
            len(self.keys) if self.key_count is None else self.key_count,
        )
        header = self.magic + struct.pack("<IQQ", self.version, *counts) + b"".join(self.keys)
        data = b""
        for tensor in self.tensors:
            header += tensor.header(len(data))
            data += tensor.data + bytes(-len(tensor.data) % self.alignment)
        return header + bytes(-len(header) % self.alignment) + data


def floats(name: str, shape: tuple[int, ...], seed: int = 0) -> Tensor:
    """A tensor of random float32 numbers, `shape` row-major."""
    return of(name, np.random.default_rng(seed).standard_normal(shape))


def of(name: str, weights: np.ndarray) -> Tensor:
    """A tensor of these weights in float32."""
    return Tensor(name, tuple(weights.shape[::-1]), 0, weights.astype("<f4").tobytes())


SMALL = File(
    keys=(
        key("general.architecture", STRING, "llama"),
        key("llama.block_count", U32, 1),
        key("llama.context_length", U32, 64),
        key("llama.embedding_length", U32, 8),
        key("llama.feed_forward_length", U32, 16),
        key("llama.attention.head_count", U32, 2),
        key("llama.attention.layer_norm_rms_epsilon", F32, 1e-5),
        key("tokenizer.ggml.model", STRING, "gpt2"),
        key("tokenizer.ggml.tokens", ARRAY, (STRING, ["a", "b", "", "ä"])),
        key("tokenizer.ggml.scores", ARRAY, (F32, [0.0, -1.0, -2.0])),
        key("tokenizer.ggml.add_bos_token", BOOL, 1),
        key("tokenizer.ggml.eos_token_id", U32, 2),
    ),
    tensors=(
        floats("token_embd.weight", (4, 8), 1),
        floats("output_norm.weight", (8,), 2),
        floats("blk.0.attn_q.weight", (8, 8), 3),
        floats("blk.0.attn_k.weight", (8, 8), 4),
        Tensor("blk.0.ffn_down.weight", (32, 8), TYPES["Q4_0"], bytes(range(8 * 18))),
    ),
)


def with_key(entry: bytes, file: File = SMALL) -> File:
    """The file with one key more."""
    return replace(file, keys=(*file.keys, entry))


def with_tensor(tensor: Tensor, file: File = SMALL) -> File:
    """The file with one tensor more."""
    return replace(file, tensors=(*file.tensors, tensor))
