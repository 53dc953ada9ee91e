"""Whatever stores keys and values gives back what was written, wherever its blocks were copied, grown or moved."""

import pytest

torch = pytest.importorskip("torch")

from fabula import AutoModelForCausalLM  # noqa: E402
from fabula.cache.blocks import BLOCK  # noqa: E402
from fabula.cache.kinds import CacheKind  # noqa: E402
from fabula.cache.torch import TorchCache  # noqa: E402
from fabula.cache.torch_offloaded import OffloadedTorchCache  # noqa: E402
from fabula.cache.torch_quantized import QuantizedTorchCache  # noqa: E402
from fabula.testing.tiny_model import write_tiny_model  # noqa: E402

HEADS = [(2, 24), (3, 10)]


def storage(kind):
    if kind == "plain":
        return TorchCache(HEADS, 4, torch.float32, "cpu")
    if kind == "offloaded":
        return OffloadedTorchCache(HEADS, 4, torch.float32, "cpu")
    bits, group = kind
    return QuantizedTorchCache(HEADS, 4, torch.float32, "cpu", bits, group)


@pytest.mark.parametrize(
    ("kind", "error"),
    [("plain", 0), ("offloaded", 0), ((8, 64), 0.02), ((8, 7), 0.015), ((4, 64), 0.35), ((4, 8), 0.3), ((4, 3), 0.25)],
)
def test_what_was_written_is_read(kind, error):
    cache, random = storage(kind), torch.Generator().manual_seed(1)
    for layer, shape in enumerate(HEADS):
        keys, values = (torch.randn(40, *shape, generator=random) for _ in range(2))
        cache.write_row(layer, [2, 0], keys, values)
        for ours, given in zip(cache.read_row(layer, [2, 0], 40), (keys, values), strict=True):
            assert ours.shape == given.shape and (ours - given).abs().max() <= error
        slots = torch.arange(8) + BLOCK
        now = cache.write(layer, slots, keys[:8], values[:8])
        later = cache.read(layer, torch.tensor([[1]]))
        for one, other in zip(now, later, strict=True):
            torch.testing.assert_close(one, other[0, :8])  # a step attends to what later steps will read


@pytest.mark.parametrize("kind", ["plain", "offloaded", (8, 64), (4, 8)])
def test_blocks_are_copied_cleared_and_kept_when_there_are_more(kind):
    cache, random = storage(kind), torch.Generator().manual_seed(2)
    for layer, shape in enumerate(HEADS):
        cache.write_row(layer, [0, 1], *(torch.randn(2 * BLOCK, *shape, generator=random) for _ in range(2)))
    before = [cache.read_row(layer, [0, 1], 2 * BLOCK) for layer in range(2)]
    cache.copy([0, 1], [1, 0])
    cache.grow(7)
    assert cache.blocks == 7 and cache.nbytes > storage(kind).nbytes
    for layer in range(2):
        for ours, given in zip(cache.read_row(layer, [1, 0], 2 * BLOCK), before[layer], strict=True):
            assert torch.equal(ours, given)
        cache.clear(layer, torch.tensor([0]))
        assert not any(part.any() for part in cache.read_row(layer, [0], BLOCK))


def test_a_feature_that_stands_out_does_not_take_its_groups_codes():
    cache, random = QuantizedTorchCache([(2, 64)], 1, torch.float32, "cpu", 4, 64), torch.Generator().manual_seed(3)
    keys = torch.randn(30, 2, 64, generator=random)
    keys[..., 5] += 40
    cache.write_row(0, [0], keys, keys)
    errors = (cache.read_row(0, [0], 30)[0] - keys).abs()
    assert errors.mean() < 40 / 15 / 4 / 2  # half of what codes over the whole range would be wrong by


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_an_offloaded_cache_changes_no_token(tmp_path, device):
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    model = AutoModelForCausalLM.from_pretrained(write_tiny_model(tmp_path / "tiny"), backend="torch").to(device)
    model.storage_kind = lambda kind: kind  # on a CPU, too
    prompts, call = [[72, 101, 108], list(range(40, 110))], {"max_new_tokens": 12, "eos_token_id": None}
    expected = model.generate(prompts, **call)
    assert model.generate(prompts, cache_implementation="offloaded", **call) == expected
    stored = model.engine_for(CacheKind("offloaded")).storage
    assert isinstance(stored, OffloadedTorchCache) and stored.keys[0].device.type == "cpu"
