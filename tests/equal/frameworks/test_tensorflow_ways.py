"""One seed, one text: every way to decode gives in TensorFlow what it gives in PyTorch, for every family.

What XLA compiles is compared in tests/models; here TensorFlow runs the same programs itself, which takes a fraction of
the time. One family goes through some ways compiled.
"""

from __future__ import annotations

import pytest

tf = pytest.importorskip("tensorflow")
torch = pytest.importorskip("torch")

from fabula import AutoModelForCausalLM, TFAutoModelForCausalLM  # noqa: E402
from tests.equal.frameworks.ways import WAYS, assert_same, call_of, inputs_of  # noqa: E402
from tests.equal.strategies.tiny import FAMILIES, write_tiny  # noqa: E402

COMPILED = ("greedy", "drawn", "beams", "contrastive search", "drafts of the first layers", "states")


@pytest.fixture(scope="module", params=FAMILIES)
def pair(request, tmp_path_factory):
    """A family's name, its model in PyTorch, and that in TensorFlow."""
    folder = write_tiny(request.param, tmp_path_factory.mktemp(request.param))
    model = TFAutoModelForCausalLM.from_pretrained(folder)
    model.programs.xla, model.burst = False, None
    return request.param, AutoModelForCausalLM.from_pretrained(folder, backend="torch"), model


@pytest.mark.parametrize("way", WAYS)
def test_every_way_to_decode_gives_what_it_gives_in_pytorch(pair, way):
    assert_equal(*pair, way)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    folder = write_tiny("gemma3", tmp_path_factory.mktemp("compiled"))
    reference = AutoModelForCausalLM.from_pretrained(folder, backend="torch")
    return "gemma3", reference, TFAutoModelForCausalLM.from_pretrained(folder)


@pytest.mark.parametrize("way", COMPILED)
def test_compiled_it_gives_the_same(compiled, way):
    assert_equal(*compiled, way)


def assert_equal(family, reference, model, way):
    for side in ("left", "right") if way in ("greedy", "drawn") else ("left",):
        ids, mask = inputs_of(family, side)
        right = reference.generate(torch.tensor(ids), attention_mask=torch.tensor(mask), **call_of(way))
        ours = model.generate(tf.constant(ids), attention_mask=tf.constant(mask), **call_of(way))
        if isinstance(right, torch.Tensor):
            assert isinstance(ours, tf.Tensor)
            assert_same(ours, right)
            continue
        assert list(ours.keys()) == list(right.keys())
        for name in right.keys() - {"past_key_values"}:
            assert_same(ours[name], right[name])
