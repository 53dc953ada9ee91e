"""One seed, one text: every way to decode gives in TensorFlow what it gives in PyTorch, for every family.

What XLA compiles is compared in tests/models, and here in two ways; for the others TensorFlow runs the same programs
itself, which takes a fraction of the time. What families share is asked of one: all ways of the one with a pattern.
"""

from __future__ import annotations

import pytest

tf = pytest.importorskip("tensorflow")
torch = pytest.importorskip("torch")

from fabula import AutoModelForCausalLM, TFAutoModelForCausalLM  # noqa: E402
from tests.equal.frameworks.ways import WAYS, assert_same, call_of, inputs_of  # noqa: E402
from tests.equal.strategies.tiny import FAMILIES, write_tiny  # noqa: E402

WHOLE = "gemma3"
MODELS = ("greedy", "drawn", "beams", "contrast of layers", "drafts of the first layers", "states")
CASES = [(family, way) for family in FAMILIES for way in (WAYS if family == WHOLE else MODELS)]


@pytest.fixture(scope="module")
def pair(request, tmp_path_factory):
    """A family's model in PyTorch, and that in TensorFlow."""
    folder = write_tiny(request.param, tmp_path_factory.mktemp(request.param))
    model = TFAutoModelForCausalLM.from_pretrained(folder)
    model.programs.xla, model.burst = False, None
    return request.param, AutoModelForCausalLM.from_pretrained(folder, backend="torch"), model


@pytest.mark.parametrize(("pair", "way"), CASES, indirect=["pair"])
def test_every_way_to_decode_gives_what_it_gives_in_pytorch(pair, way):
    assert_equal(*pair, way)


@pytest.mark.parametrize("way", ["beams", "states"])
def test_compiled_it_gives_the_same(way, tmp_path):
    folder = write_tiny(WHOLE, tmp_path)
    reference = AutoModelForCausalLM.from_pretrained(folder, backend="torch")
    assert_equal(WHOLE, reference, TFAutoModelForCausalLM.from_pretrained(folder), way)


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
