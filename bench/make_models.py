"""Writes the models that the quoted ratios need beside the default one, into a folder.

    python bench/make_models.py FOLDER --requantize SmolLM2-135M-Instruct.Q4_1.gguf   (needs llama-cpp-python)
    python bench/make_models.py FOLDER --random                                       (needs gguf)

`--requantize` makes the Q4_0 file of a model with llama.cpp's own tool; `--random` writes a Llama of TinyLlama's shape
in Q4_0 with seeded random weights: 1.1 thousand million parameters whose text means nothing and whose speed is real.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

WIDTH, INNER, LAYERS, HEADS, KV_HEADS, VOCABULARY, CONTEXT = 2048, 5632, 22, 32, 4, 32000, 2048
HEAD_WIDTH = WIDTH // HEADS
RANDOM_NAME = "random-1.1b.Q4_0.gguf"
SPECIAL = ("<unk>", "<s>", "</s>")
BYTE, NORMAL, UNKNOWN, CONTROL = 6, 1, 2, 3  # tokenizer.ggml.token_type


def requantize(source: Path, folder: Path) -> Path:
    """The model in Q4_0, as a file in the folder; llama.cpp decides the types of norms and of a tied embedding."""
    import llama_cpp

    target = folder / f"{source.name.removesuffix('.gguf').rsplit('.', 1)[0]}.Q4_0.gguf"
    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.ftype = llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_0
    parameters.allow_requantize = True
    llama_cpp.llama_backend_init()
    status = llama_cpp.llama_model_quantize(str(source).encode(), str(target).encode(), parameters)
    if status:
        raise SystemExit(f"llama.cpp could not quantize {source}: status {status}")
    return target


def write_random(folder: Path, seed: int = 0) -> Path:
    """The random model, as a file in the folder; its matrices keep the size of what they are given."""
    import gguf

    target = folder / RANDOM_NAME
    writer = gguf.GGUFWriter(target, "llama")
    describe(writer, gguf.LlamaFileType.MOSTLY_Q4_0)
    random = np.random.default_rng(seed)
    for name, shape in weights():
        if len(shape) == 1:
            writer.add_tensor(name, np.ones(shape, np.float32))
            continue
        weight = random.standard_normal(shape, np.float32) * shape[1] ** -0.5
        packed = gguf.quantize(weight, gguf.GGMLQuantizationType.Q4_0)
        writer.add_tensor(name, packed, raw_dtype=gguf.GGMLQuantizationType.Q4_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target


def describe(writer: Any, file_type: int) -> None:
    """The configuration, and a tokenizer of bytes that fills the vocabulary."""
    writer.add_name("random 1.1B")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(INNER)
    writer.add_block_count(LAYERS)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_rope_dimension_count(HEAD_WIDTH)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(VOCABULARY)
    writer.add_file_type(file_type)
    tokens, types = vocabulary()
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * len(SPECIAL) + [-1.0 * index for index in range(len(tokens) - len(SPECIAL))])
    writer.add_token_types(types)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)


def vocabulary() -> tuple[list[str], list[int]]:
    """Special tokens, the 256 bytes, and made-up pieces."""
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    made_up = [f"▁w{index}" for index in range(VOCABULARY - len(SPECIAL) - len(bytes_))]
    types = [UNKNOWN, CONTROL, CONTROL] + [BYTE] * len(bytes_) + [NORMAL] * len(made_up)
    return [*SPECIAL, *bytes_, *made_up], types


def weights() -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes, as a llama GGUF has them."""
    yield "token_embd.weight", (VOCABULARY, WIDTH)
    for layer in range(LAYERS):
        yield f"blk.{layer}.attn_norm.weight", (WIDTH,)
        yield f"blk.{layer}.attn_q.weight", (WIDTH, WIDTH)
        yield f"blk.{layer}.attn_k.weight", (KV_HEADS * HEAD_WIDTH, WIDTH)
        yield f"blk.{layer}.attn_v.weight", (KV_HEADS * HEAD_WIDTH, WIDTH)
        yield f"blk.{layer}.attn_output.weight", (WIDTH, WIDTH)
        yield f"blk.{layer}.ffn_norm.weight", (WIDTH,)
        yield f"blk.{layer}.ffn_gate.weight", (INNER, WIDTH)
        yield f"blk.{layer}.ffn_up.weight", (INNER, WIDTH)
        yield f"blk.{layer}.ffn_down.weight", (WIDTH, INNER)
    yield "output_norm.weight", (WIDTH,)
    yield "output.weight", (VOCABULARY, WIDTH)


def main() -> None:
    """Reads the arguments, prints the paths of what was written."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--requantize", type=Path, metavar="GGUF", help="make this model's Q4_0 file")
    parser.add_argument("--random", action="store_true", help="write the random model of TinyLlama's shape")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    if arguments.requantize:
        print(requantize(arguments.requantize, arguments.folder))
    if arguments.random:
        print(write_random(arguments.folder))


if __name__ == "__main__":
    main()
