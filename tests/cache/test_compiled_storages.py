"""The caches of JAX and TensorFlow give back what was written, and their codes are those of PyTorch's."""

from __future__ import annotations

import importlib

import numpy as np
import pytest

from fabula.cache.blocks import BLOCK
from fabula.cache.coding import Coding
from fabula.cache.groups import layer_groups
from fabula.cache.kinds import DYNAMIC, CacheKind

SHAPES = [(2, 24, None), (2, 24, 40), (2, 24, None)]
PARTS = {"jax": "JaxCache", "tensorflow": "TFCache"}
CODED = {(bits, group): CacheKind("quantized", bits, group) for bits in (8, 4) for group in (64, 7)}
KINDS = {"plain": DYNAMIC, **CODED}


@pytest.fixture(scope="module", params=PARTS)
def framework(request):
    pytest.importorskip(request.param)
    return request.param


def storage(framework, kind, blocks=4, shapes=SHAPES):
    module, xp = (importlib.import_module(f"fabula.{part}.{framework}") for part in ("cache", "arrays"))
    dtype = xp.asarray([0.0], "float32").dtype
    return getattr(module, PARTS[framework])(layer_groups(shapes, KINDS.get(kind, kind)), blocks, dtype)


def functions(framework):
    return importlib.import_module(f"fabula.cache.{framework}_coding")


@pytest.mark.parametrize(
    ("kind", "error"),
    [("plain", 0), ((8, 64), 0.025), ((4, 7), 0.3)],
    ids=str,
)
def test_what_was_written_is_read_wherever_its_blocks_were_copied_and_grown(framework, kind, error):
    cache, random = storage(framework, kind), np.random.default_rng(1)
    given = random.normal(size=(3, 2, 40, 2, 24)).astype(np.float32)
    for layer, pair in enumerate(given):
        cache.write_row(layer, [2, 0], *pair)
    written = [[np.asarray(part) for part in cache.read_row(layer, [2, 0], 40)] for layer in range(3)]
    assert np.abs(np.array(written) - given).max() <= error
    size = cache.nbytes
    cache.copy([2, 0], [0, 1])  # a block may be a source and a target
    cache.grow(40)
    assert cache.blocks == 40 and cache.nbytes > size and cache.nowhere >= 40 * BLOCK
    found = [[np.asarray(part) for part in cache.read_row(layer, [0, 1], 40)] for layer in range(3)]
    assert np.array_equal(found, written)


@pytest.mark.parametrize(("bits", "most"), [(8, 0.54), (4, 0.29)])
def test_codes_take_as_much_of_16_bits_as_they_say(framework, bits, most):
    shapes = [(2, 64, None), (2, 64, 512)]
    sizes = [storage(framework, kind, 30, shapes).nbytes for kind in (DYNAMIC, CacheKind("quantized", bits, 64))]
    assert sizes[1] == sizes[0] // 4 // 64 * (64 * bits // 8 + 4)
    assert most - 0.02 < sizes[1] / (sizes[0] / 2) < most


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize(("features", "group"), [(64, 64), (64, 16), (24, 7), (12, 64)])
def test_codes_are_those_of_pytorch(framework, bits, features, group):
    """But for numbers on the border of two codes, as XLA multiplies by a step's inverse, and scales on that of two."""
    torch = pytest.importorskip("torch")
    from fabula.cache.torch_quantized import QuantizedTorchCache

    coding, random = Coding(features, bits, group), np.random.default_rng(features)
    xp, own = importlib.import_module(f"fabula.arrays.{framework}"), functions(framework)
    theirs = QuantizedTorchCache([(2, features)], 32, torch.float32, "cpu", bits, group)
    whole = random.integers(-64, 64, (1000, 2, features))
    for given, share in ((whole, 0 if features == 64 else 0.002), (random.normal(size=whole.shape), 0.002)):
        given = given.astype(np.float32)
        theirs.write(0, torch.arange(1000), torch.from_numpy(given), torch.from_numpy(given))
        codes, scales = (part[0].flatten(0, 1)[:1000].numpy() for part in (theirs.keys, theirs.key_scales))
        stored = own.encoded(xp.asarray(given, "float32"), coding, None)
        found = np.asarray(stored)
        assert found.shape == (1000, 2, coding.nbytes) and found.dtype == np.uint8
        steps = found[..., coding.code_bytes :].copy().view(np.float16).reshape(scales.shape)
        assert np.count_nonzero(steps != scales) <= share * scales.size
        np.testing.assert_allclose(steps.astype(np.float32), scales.astype(np.float32), rtol=1e-3, atol=1e-5)
        assert np.count_nonzero(found[..., : coding.code_bytes] != codes) <= max(share, 2e-4) * codes.size
        back = np.asarray(own.turned(own.decoded(stored, coding, stored_type(framework)), coding))
        right = theirs.read_row(0, list(range(32)), 1000)[0].numpy()
        assert np.count_nonzero(np.abs(back - right) > 1e-4) <= 0.05 * right.size


def stored_type(framework):
    return importlib.import_module(f"fabula.arrays.{framework}").asarray([0.0], "float32").dtype


def test_a_feature_that_stands_out_does_not_take_its_groups_codes(framework):
    cache, random = storage(framework, CacheKind("quantized", 4, 64), 1, [(2, 64, None)]), np.random.default_rng(3)
    keys = random.normal(size=(30, 2, 64)).astype(np.float32)
    keys[..., 5] += 40
    cache.write_row(0, [0], keys, keys)
    errors = np.abs(np.asarray(cache.read_row(0, [0], 30)[0]) - keys)
    assert errors.mean() < 40 / 15 / 4 / 2  # half of what codes over the whole range would be wrong by
