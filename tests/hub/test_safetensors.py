"""A safetensors header is believed in nothing; what is right reads as the library reads it."""

from __future__ import annotations

import json
import tracemalloc

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from fabula.errors import FabulaError, ModelFileError, NotSupportedError
from fabula.hub.safetensors import read_safetensors, read_sharded
from fabula.quant.formats import StoredTensor, quantize, stored
from fabula.quant.safetensors import save_safetensors

ONE = {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}
TWO = {"dtype": "F16", "shape": [4], "data_offsets": [16, 24]}


def file(header: object, data: bytes = bytes(24), size: int | None = None) -> bytes:
    """A file with this header: an object, or the very bytes."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if size is None else size).to_bytes(8, "little") + text + data


def written(tmp_path, content: bytes):
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    return path


def test_what_the_library_wrote_is_read_as_the_library_reads_it(tmp_path):
    generator = np.random.default_rng(0)
    arrays = {
        "a.weight": generator.standard_normal((3, 5)).astype(np.float32),
        "b": generator.standard_normal(7).astype(np.float16),
        "scalar": np.array(2.5, np.float32),
        "empty": np.zeros((0, 4), np.float32),
    }
    save_file(arrays, tmp_path / "model.safetensors", {"format": "pt"})
    weights = read_safetensors(tmp_path / "model.safetensors")
    assert weights.metadata == {"format": "pt"}
    assert set(weights) == set(load_file(tmp_path / "model.safetensors"))
    for name, array in arrays.items():
        assert weights[name].shape == array.shape
        assert np.array_equal(weights[name].dequantize(), array.astype(np.float32))
        assert not weights[name].data.flags.writeable


def test_saving_round_trips_every_type_of_weight(tmp_path):
    values = np.random.default_rng(1).standard_normal((4, 6)).astype(np.float32)
    tensors = {name: StoredTensor(name, name, (4, 6), quantize(name, values)) for name in ("F32", "F16", "BF16")}
    save_safetensors(tmp_path / "model.safetensors", tensors)
    weights = read_safetensors(tmp_path / "model.safetensors")
    for name, tensor in tensors.items():
        assert (weights[name].format, weights[name].shape) == (name, (4, 6))
        assert weights[name].data.tobytes() == tensor.data.tobytes()
    assert weights.metadata == {"format": "pt"}


def test_saving_turns_a_transposed_matrix_back(tmp_path):
    matrix = np.arange(6, dtype=np.float32).reshape(2, 3)
    turned = StoredTensor("w", "F32", (2, 3), stored("w", matrix).data, transposed=True)
    save_safetensors(tmp_path / "model.safetensors", {"w": turned})
    assert np.array_equal(read_safetensors(tmp_path / "model.safetensors")["w"].dequantize(), matrix.T)


def test_packed_weights_are_not_saved(tmp_path):
    packed = StoredTensor("w", "Q8_0", (1, 32), quantize("Q8_0", np.ones((1, 32), np.float32)))
    with pytest.raises(NotSupportedError, match="'w' must be F32, F16, BF16"):
        save_safetensors(tmp_path / "model.safetensors", {"w": packed})


def test_integers_are_passed_over_until_they_are_needed(tmp_path):
    save_file({"mask": np.zeros(4, np.int64), "w": np.ones(2, np.float32)}, tmp_path / "model.safetensors")
    weights = read_safetensors(tmp_path / "model.safetensors")
    assert weights["w"].dequantize().tolist() == [1, 1]
    with pytest.raises(ModelFileError, match="'mask' must be of type F32, F16, BF16 to be a weight, got I64"):
        weights["mask"]


def one(**changes: object) -> dict:
    return {"one": ONE | changes, "two": TWO}


WRONG = {
    "empty": (b"", "empty file"),
    "short": (b"1234567", "at least 8 bytes, got 7"),
    "header oversize": (file({}, size=100_000_001), "header must have at most 100000000 bytes"),
    "header of all bits": (file({}, size=(1 << 64) - 1), "header must have at most"),
    "header past the file": (file({}, size=1000), "header must end within the file's 34 bytes"),
    "no header": (bytes(8), "must be JSON"),
    "header no JSON": (file(b'{"one": '), "header must be JSON"),
    "header no UTF-8": (file(b'{"\xff": 1}'), "header must be UTF-8, got another byte at 10"),
    "header no object": (file([1]), "header must be a JSON object, got a list"),
    "two objects": (file(b"{}{}"), "header must be JSON"),
    "number NaN": (file(b'{"one": {"shape": [NaN]}}'), r"key 'one\.shape\.0' must be a finite number"),
    "number infinite": (file(b'{"one": {"shape": [1e999]}}'), "must be a finite number"),
    "deep": (file(b"[" * 100_000), "within at most 64"),
    "deep and closed": (file(b'{"a":' * 80 + b"1" + b"}" * 80), "within at most 64"),
    "duplicate tensor": (
        file(b'{"one": %s, "one": %s}' % ((json.dumps(ONE).encode(),) * 2)),
        "key 'one' must occur once",
    ),
    "metadata no object": (file({"__metadata__": 3}), "'__metadata__' of the header must be an object of strings"),
    "metadata of numbers": (file({"__metadata__": {"a": 3}}), "'__metadata__' of the header must be an object of"),
    "tensor no object": (file({"one": 3}), "'one' must have a dtype, a shape and data_offsets"),
    "field missing": (file({"one": {"dtype": "F32", "shape": [0]}}), "'one' must have a dtype, a shape"),
    "field too many": (file(one(more=1)), "'one' must have a dtype, a shape"),
    "dtype": (file(one(dtype="F31")), "'one' must have a dtype of .*; got 'F31'"),
    "dtype no text": (file(one(dtype=["F32"])), "'one' must have a dtype of"),
    "shape no list": (file(one(shape=4)), "'one' must have a shape"),
    "shape negative": (file(one(shape=[-2, -2])), "'one' must have a shape"),
    "shape fraction": (file(one(shape=[2.0, 2])), "'one' must have a shape"),
    "shape true": (file(one(shape=[True, 4])), "'one' must have a shape"),
    "shape overflow": (file(one(shape=[1 << 40, 1 << 40])), "'one' must have a shape of at most"),
    "shape overflows to nothing": (file(one(shape=[1 << 32, 1 << 32, 4])), "'one' must have a shape of at most"),
    "too many dimensions": (file(one(shape=[1] * 17)), "'one' must have a shape"),
    "offsets no list": (file(one(data_offsets="0-16")), "'one' must have data_offsets"),
    "one offset": (file(one(data_offsets=[16])), "'one' must have data_offsets"),
    "negative offset": (file(one(data_offsets=[-16, 0])), "'one' must have data_offsets"),
    "begin past end": (file(one(data_offsets=[16, 0])), "'one' must have data_offsets .* with begin <= end"),
    "too few bytes": (file(one(data_offsets=[0, 12])), "'one' must have 16 bytes for .* of F32, got 12"),
    "half a byte": (
        file({"x": {"dtype": "F4", "shape": [3], "data_offsets": [0, 1]}}, bytes(1)),
        "must have 1.5 bytes",
    ),
    "hole": (file({"one": ONE, "two": TWO | {"data_offsets": [24, 32]}}, bytes(32)), "'two' must not leave a hole"),
    "hole first": (file({"two": TWO}), "'two' must not leave a hole after 'the header'"),
    "overlap": (file({"one": ONE, "two": TWO | {"data_offsets": [8, 16]}}, bytes(16)), "'two' must not lie over 'one'"),
    "data too short": (file({"one": ONE, "two": TWO}, bytes(23)), "'two' must end within the 23 bytes"),
    "data too long": (file({"one": ONE, "two": TWO}, bytes(25)), "data must have the tensors' 24 bytes, got 25"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_named(case, tmp_path):
    content, message = WRONG[case]
    path = written(tmp_path, content)
    with pytest.raises(ModelFileError, match=message) as raised:
        read_safetensors(path)
    assert str(path) in str(raised.value)


def test_shards_are_read_as_one(tmp_path):
    save_file({"a": np.ones(2, np.float32)}, tmp_path / "model-00001-of-00002.safetensors")
    save_file({"b": np.zeros(3, np.float32)}, tmp_path / "model-00002-of-00002.safetensors")
    places = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 20}, "weight_map": places}))
    weights = read_sharded(index)
    assert list(weights) == ["a", "b"]
    assert weights["b"].shape == (3,)


@pytest.mark.parametrize(
    ("places", "message"),
    [
        (None, "'weight_map' must be an object"),
        ({}, "'weight_map' must be an object"),
        ({"a": "../model.safetensors"}, r"'weight_map\.a' must name a \.safetensors file beside it"),
        ({"a": "/model.safetensors"}, "beside it"),
        ({"a": "c:\\model.safetensors"}, "beside it"),
        ({"a": "model.bin"}, "beside it"),
        ({"a": 3}, "beside it"),
        ({"a": "absent.safetensors"}, r"absent\.safetensors must be a file"),
        ({"z": "model.safetensors"}, r"model\.safetensors: tensor 'z' must be there"),
    ],
)
def test_an_index_that_leads_nowhere_or_elsewhere_is_refused(places, message, tmp_path):
    save_file({"a": np.ones(2, np.float32)}, tmp_path / "model.safetensors")
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": places}))
    with pytest.raises(ModelFileError, match=message):
        read_sharded(index)


def test_a_mutated_file_is_read_or_refused_and_nothing_else(tmp_path):
    whole, generator = file({"__metadata__": {"a": "b"}, "one": ONE, "two": TWO}), np.random.default_rng(3)
    interesting = [b"-", b"9" * 30, b"[", b"}", b'"', b"e9", b".", b"null", b"\xff", b"\\u0000", b"0", b"true"]
    outcomes = set()
    tracemalloc.start()
    for _ in range(1500):
        content = bytearray(whole)
        for _ in range(generator.integers(1, 4)):
            place = int(generator.integers(0, len(whole) - 24))
            match generator.integers(0, 4):
                case 0:
                    content[place] = int(generator.integers(0, 256))
                case 1:
                    del content[place : place + int(generator.integers(1, 9))]
                case 2:
                    content[place:place] = interesting[generator.integers(0, len(interesting))]
                case 3:
                    content[place : place + 1] = interesting[generator.integers(0, len(interesting))]
        if generator.integers(0, 2):  # half the time the size agrees, so that the JSON is reached
            content[:8] = (len(content) - 32).to_bytes(8, "little") if len(content) >= 32 else content[:8]
        path = written(tmp_path, bytes(content))
        try:
            weights = read_safetensors(path)
            for name in weights:
                weights[name].dequantize()
            outcomes.add("read")
        except FabulaError:
            outcomes.add("refused")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16 << 20
    assert outcomes == {"read", "refused"}
