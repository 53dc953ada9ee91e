"""A GGUF header is believed in nothing: whatever is wrong is a ModelFileError that names the file and the place."""

from __future__ import annotations

import struct
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from fabula.errors import FabulaError, ModelFileError
from fabula.hub.gguf import read_gguf
from fabula.hub.open import open_checkpoint

from .gguf_bytes import (
    ARRAY,
    BOOL,
    F32,
    I64,
    SMALL,
    STRING,
    U8,
    U32,
    U64,
    File,
    Tensor,
    floats,
    key,
    text,
    with_key,
    with_tensor,
)

MANY = (1 << 64) - 1


def written(tmp_path, content: File | bytes):
    path = tmp_path / "model.gguf"
    path.write_bytes(content if isinstance(content, bytes) else content.bytes())
    return path


def raw_key(name: bytes, rest: bytes) -> File:
    return with_key(text(name) + rest)


def test_a_small_file_is_read_whole(tmp_path):
    file = read_gguf(written(tmp_path, SMALL))
    assert (file.version, file.metadata["llama.embedding_length"]) == (3, 8)
    assert file.metadata["tokenizer.ggml.tokens"] == ["a", "b", "", "ä"]
    assert file.metadata["tokenizer.ggml.scores"] == [0.0, -1.0, -2.0]
    assert file.metadata["tokenizer.ggml.add_bos_token"] is True
    assert file.tensors["token_embd.weight"].shape == (4, 8)
    assert file.tensors["token_embd.weight"].data.tobytes() == SMALL.tensors[0].data
    assert not file.tensors["token_embd.weight"].data.flags.writeable


def test_version_2_reads_as_version_3_does(tmp_path):
    assert read_gguf(written(tmp_path, replace(SMALL, version=2))).version == 2


def test_strings_that_hold_zeros_are_kept_apart(tmp_path):
    tokens = ["a\0b", "\0", "", "c"]
    file = read_gguf(written(tmp_path, with_key(key("x", ARRAY, (STRING, tokens)))))
    assert file.metadata["x"] == tokens


def test_another_alignment_is_followed(tmp_path):
    file = replace(with_key(key("general.alignment", U32, 128)), alignment=128)
    assert read_gguf(written(tmp_path, file)).tensors["output_norm.weight"].data.tobytes() == SMALL.tensors[1].data


def test_an_array_of_every_type_of_number_is_read(tmp_path):
    keys = tuple(key(f"x{kind}", ARRAY, (kind, [1, 0, 1])) for kind in range(13) if kind not in (STRING, ARRAY))
    metadata = read_gguf(written(tmp_path, replace(SMALL, keys=SMALL.keys + keys))).metadata
    assert all(metadata[f"x{kind}"] == [1, 0, 1] for kind in range(13) if kind not in (STRING, ARRAY))
    assert metadata[f"x{BOOL}"] == [True, False, True]


WRONG = {
    "empty file": (b"", "empty file"),
    "two bytes": (b"GG", "magic"),
    "magic": (replace(SMALL, magic=b"GGML"), "must start with b'GGUF'"),
    "only a magic": (b"GGUF", "the version"),
    "version 0": (replace(SMALL, version=0), "version must be 2 or 3, got 0"),
    "version 1": (replace(SMALL, version=1), "version must be 2 or 3, got 1"),
    "future version": (replace(SMALL, version=4), "version must be 2 or 3, got 4"),
    "big-endian": (replace(SMALL, version=3 << 24), "big-endian 3"),
    "tensor count": (replace(SMALL, tensor_count=MANY), "number of tensors must be at most"),
    "tensor count past the file": (replace(SMALL, tensor_count=1000), "number of tensors must be at most"),
    "one tensor too many": (replace(SMALL, tensor_count=6), "tensor"),
    "key count": (replace(SMALL, key_count=MANY), "number of keys must be at most"),
    "key count past the file": (replace(SMALL, key_count=500), "number of keys must be at most"),
    "key size": (with_key(text(b"x", size=MANY) + bytes(5)), "name of key 12 must have 1 to 65535 bytes"),
    "long key": (with_key(key("x" * 65536, U8, 1)), "name of key 12 must have 1 to 65535 bytes, got 65536"),
    "key past the file": (with_key(text(b"x", size=60000)), "name of key 12 must end within"),
    "empty key": (with_key(key("", U8, 1)), "name of key 12 must have 1 to"),
    "key no UTF-8": (with_key(key(b"\xff\xfe", U8, 1)), "name of key 12 must be UTF-8"),
    "duplicate key": (with_key(SMALL.keys[1]), "'llama.block_count' must occur once"),
    "value type": (raw_key(b"odd", struct.pack("<I", 13)), "'odd' must have a value type of 0 to 12, got 13"),
    "string past the file": (raw_key(b"odd", struct.pack("<IQ", STRING, MANY)), "'odd' must end within"),
    "string no UTF-8": (with_key(text("odd") + struct.pack("<I", STRING) + text(b"\xff")), "'odd' must be UTF-8"),
    "boolean": (with_key(key("odd", BOOL, 2)), "'odd' must be true .1. or false .0., got 2"),
    "boolean in an array": (with_key(key("odd", ARRAY, (BOOL, [0, 3]))), "each of key 'odd' must be true"),
    "array's type": (raw_key(b"odd", struct.pack("<IIQ", ARRAY, 77, 1)), "elements must have a value type"),
    "array of arrays": (raw_key(b"odd", struct.pack("<IIQ", ARRAY, ARRAY, 1)), "'odd' must be an array of numbers or"),
    "array's length": (raw_key(b"odd", struct.pack("<IIQ", ARRAY, U8, MANY)), "length must be at most"),
    "array past the file": (raw_key(b"odd", struct.pack("<IIQ", ARRAY, U64, 1 << 20)), "length must be at most"),
    "strings' count": (raw_key(b"odd", struct.pack("<IIQ", ARRAY, STRING, 1 << 40)), "length must be at most"),
    "strings past the file": (
        raw_key(b"odd", struct.pack("<IIQ", ARRAY, STRING, 2) + text("a") + struct.pack("<Q", MANY)),
        "'odd' must have 2 strings within",
    ),
    "strings no UTF-8": (
        with_key(text("odd") + struct.pack("<IIQ", ARRAY, STRING, 2) + text(b"a") + text(b"\xc3")),
        r"'odd'\[1\] must be UTF-8",
    ),
    "alignment 0": (with_key(key("general.alignment", U32, 0)), "'general.alignment' must be a power of two, got 0"),
    "alignment 24": (with_key(key("general.alignment", U32, 24)), "must be a power of two, got 24"),
    "alignment's type": (with_key(key("general.alignment", U64, 32)), "32-bit unsigned integer"),
    "alignment as text": (with_key(key("general.alignment", STRING, "32")), "32-bit unsigned integer"),
    "alignment that offsets do not keep": (
        with_key(key("general.alignment", U32, 4096)).bytes() + bytes(8192),
        "offset of a multiple of 4096",
    ),
    "tensor's name": (with_tensor(floats("x" * 65, (4,))), "name of tensor 5 must have 1 to 64 bytes, got 65"),
    "tensor without a name": (with_tensor(floats("", (4,))), "name of tensor 5 must have 1 to 64"),
    "duplicate tensor": (with_tensor(floats("output_norm.weight", (8,))), "'output_norm.weight' must occur once"),
    "no dimensions": (with_tensor(Tensor("odd", (), 0, bytes(4))), "'odd' must have 1 to 4 dimensions, got 0"),
    "five dimensions": (with_tensor(Tensor("odd", (1,) * 5, 0, bytes(4))), "'odd' must have 1 to 4 dimensions, got 5"),
    "shape with 0": (with_tensor(Tensor("odd", (4, 0), 0)), "'odd' must have a shape of 1 to"),
    "too many elements": (with_tensor(Tensor("odd", (1 << 62, 4), 0)), "'odd' must have a shape of 1 to"),
    "shape overflows to something small": (with_tensor(Tensor("odd", (1 << 32, 1 << 32), 0)), "shape of 1 to"),
    "too many bytes": (with_tensor(Tensor("odd", (1 << 61,), 0)), "'odd' must end within"),
    "tensor type": (with_tensor(Tensor("odd", (32,), 99, bytes(99))), r"'odd' must have a type of F32 \(0\)"),
    "tensor type that was removed": (with_tensor(Tensor("odd", (32,), 4, bytes(99))), "'odd' must have a type"),
    "half a block": (with_tensor(Tensor("odd", (33,), 2, bytes(99))), "rows of a multiple of 32 Q4_0 weights, got 33"),
    "offset": (
        with_tensor(Tensor("odd", (4,), 0, bytes(16), offset=4)),
        "'odd' must have an offset of a multiple of 32",
    ),
    "offset past the file": (with_tensor(Tensor("odd", (4,), 0, bytes(16), offset=1 << 40)), "'odd' must end within"),
    "largest offset": (with_tensor(Tensor("odd", (4,), 0, bytes(16), offset=MANY - 31)), "'odd' must end within"),
    "overlap": (
        with_tensor(Tensor("odd", (4,), 0, bytes(16), offset=0)),
        "must follow tensor '.*' at 128, got the offset 0",
    ),
    "gap": (
        with_tensor(Tensor("odd", (4,), 0, bytes(96), offset=864)),
        "'odd' must follow tensor 'blk.0.ffn_down.weight' at 832, got the offset 864",
    ),
    "alignment that the writer did not keep": (
        replace(with_key(key("general.alignment", U32, 64)), alignment=32),
        "must follow|multiple of 64|must end within",
    ),
    "data missing": (SMALL.bytes()[:-33], "'blk.0.ffn_down.weight' must end within"),
    "no data at all": (with_tensor(floats("odd", (4,)), File()).bytes()[:64], "tensor 'odd' must end within|offset"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_named(case, tmp_path):
    content, message = WRONG[case]
    path = written(tmp_path, content)
    with pytest.raises(ModelFileError, match=message) as raised:
        read_gguf(path)
    assert str(path) in str(raised.value)


def test_a_file_cut_anywhere_is_refused(tmp_path):
    whole = SMALL.bytes()
    for size in range(0, len(whole) - 16, 3):  # the last 16 bytes are padding
        with pytest.raises(ModelFileError):
            read_gguf(written(tmp_path, whole[:size]))


def test_no_file_and_a_directory_are_refused(tmp_path):
    with pytest.raises(ModelFileError, match="nothing of that name"):
        read_gguf(tmp_path / "absent.gguf")
    with pytest.raises(ModelFileError, match="readable file"):
        read_gguf(tmp_path)


def test_huge_counts_take_no_memory(tmp_path):
    files = [replace(SMALL, key_count=MANY), replace(SMALL, tensor_count=1 << 60)]
    files += [raw_key(b"odd", struct.pack("<IIQ", ARRAY, kind, 1 << 62)) for kind in (U8, STRING, F32, I64)]
    paths = [written(tmp_path, file) for file in files]
    tracemalloc.start()
    for path in paths:
        with pytest.raises(ModelFileError):
            read_gguf(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20


def test_a_mutated_file_is_read_or_refused_and_nothing_else(tmp_path):
    """Bytes changed, inserted, removed; whatever passes must also open, decode and keep within its bounds."""
    whole, generator = SMALL.bytes(), np.random.default_rng(7)
    header = len(whole) - sum(len(tensor.data) for tensor in SMALL.tensors)
    read = 0
    tracemalloc.start()
    for _ in range(1500):
        content = bytearray(whole)
        for _ in range(generator.integers(1, 4)):
            place = int(generator.integers(0, header))
            match generator.integers(0, 5):
                case 0:
                    content[place] = int(generator.integers(0, 256))
                case 1:
                    content[place] ^= 1 << int(generator.integers(0, 8))
                case 2:
                    content[place : place + 8] = bytes([255] * 8)
                case 3:
                    del content[place : place + int(generator.integers(1, 9))]
                case 4:
                    content[place:place] = generator.bytes(int(generator.integers(1, 9)))
        path = written(tmp_path, bytes(content))
        try:
            checkpoint = open_checkpoint(path)
            for name in checkpoint.tensors:
                checkpoint.tensors[name].dequantize()
            read += 1
        except FabulaError:
            pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16 << 20
    assert 0 < read < 1500
