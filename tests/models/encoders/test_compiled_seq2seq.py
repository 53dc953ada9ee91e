"""In JAX and TensorFlow models with an encoder give transformers' logits and PyTorch's tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from fabula.errors import ArgumentError, NotSupportedError  # noqa: E402
from fabula.testing.tiny_model import write_tiny_model  # noqa: E402
from tests.equal.frameworks.doors import DOORS, REFERENCE, Door  # noqa: E402
from tests.models.conftest import Written  # noqa: E402
from tests.models.encoders.cases import AFTER, IDS, MASK, TEXTS, uncompiled  # noqa: E402
from tests.models.steps import relative_error  # noqa: E402

PAIRS = [("jax", "t5-1.1"), ("tensorflow", "t5-1.0"), ("tensorflow", "t5-1.1")]
WAYS = {
    "greedy": {"output_attentions": True, "output_hidden_states": True},
    "drawn": {"do_sample": True, "seed": 2, "num_return_sequences": 2},
    "beams": {"num_beams": 3, "output_attentions": True},
}


@dataclass(frozen=True)
class Side:
    """A framework, its model, and the same in PyTorch and in transformers."""

    door: Door
    ours: Any
    torch: Any
    written: Written

    def own(self, given):
        """Arrays in the framework."""
        return dict(zip(given, self.door.given(given.values()), strict=True))


@pytest.fixture(scope="module", params=PAIRS, ids="-".join)
def side(request, writing):
    backend, name = request.param
    door, written = DOORS[backend], writing(name)
    return Side(door, load(door, written.directory), REFERENCE.load(written.directory, encodes=True), written)


def load(door, directory):
    model = door.load(directory, encodes=True)
    return uncompiled(model) if door.backend == "tensorflow" else model


def theirs(given):
    """Arrays in PyTorch."""
    return {name: torch.tensor(array) for name, array in given.items()}


def assert_close(door, ours, right):
    if isinstance(right, tuple):
        assert len(ours) == len(right)
        for pair in zip(ours, right, strict=True):
            assert_close(door, *pair)
    elif right is not None:
        assert relative_error(door.on_host(ours), right.detach()) < 1e-5


def test_a_call_gives_logits_loss_states_and_weights(side):
    given = {**TEXTS, "decoder_input_ids": AFTER, "labels": np.where(np.arange(5) < 3, AFTER, -100)}
    shown = {"output_hidden_states": True, "output_attentions": True}
    right, found = side.torch(**theirs(given), **shown), side.ours(**side.own(given), **shown)
    names = list(right.keys())
    if side.door.backend == "jax":
        names.remove("past_key_values")  # which it keeps where it is asked to
    assert list(found.keys()) == names
    for name in set(right.keys()) - {"past_key_values"}:
        assert_close(side.door, found[name], right[name])
    assert_close(side.door, found.logits, side.written.reference(**theirs(given)).logits)


@pytest.mark.parametrize("way", WAYS)
def test_texts_are_those_of_pytorch(side, way):
    call = {"max_new_tokens": 6, "return_dict_in_generate": True, "output_scores": True, **WAYS[way]}
    right, found = side.torch.generate(**theirs(TEXTS), **call), side.ours.generate(**side.own(TEXTS), **call)
    assert np.array_equal(side.door.on_host(found.sequences), right.sequences)
    assert list(found.keys()) == list(right.keys())
    if way == "greedy":
        assert_close(side.door, found.cross_attentions, right.cross_attentions)
        assert_close(side.door, found.encoder_hidden_states, right.encoder_hidden_states)


def test_texts_that_were_encoded_apart_share_a_step(side):
    prompts = [[5, 6, 7, 8], [9, 10], [11] * 20]
    found, right = (
        [one.generated_tokens for one in model.generate_batch(prompts, max_new_tokens=4).values()]
        for model in (side.ours, side.torch)
    )
    assert found == right


def test_what_an_encoder_left_may_be_given(side):
    model, own = side.ours, side.own(TEXTS)
    outputs = model.get_encoder()(**own)
    assert not side.door.on_host(outputs.last_hidden_state)[MASK == 0].any()
    right = model.generate(**own, max_new_tokens=6)
    del own["input_ids"]
    for given in (outputs, outputs.to_tuple(), {"last_hidden_state": outputs.last_hidden_state}):
        assert np.array_equal(model.generate(encoder_outputs=given, **own, max_new_tokens=6), right)


def test_what_is_saved_is_the_same_everywhere(side, tmp_path):
    side.ours.save_pretrained(tmp_path / "ours")
    side.torch.save_pretrained(tmp_path / "torch")
    given = {**TEXTS, "decoder_input_ids": AFTER}
    right = side.written.reference(**theirs(given)).logits
    for one in (
        transformers.AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "ours"),
        REFERENCE.load(tmp_path / "ours", encodes=True),
    ):
        assert relative_error(one(**theirs(given)).logits.detach(), right.detach()) < 1e-5
    for folder in ("ours", "torch"):
        assert_close(side.door, load(side.door, tmp_path / folder)(**side.own(given)).logits, right)


def test_each_door_takes_its_own_models_and_types(side, tmp_path):
    entry = side.door.entry.replace("CausalLM", "Seq2SeqLM")
    with pytest.raises(ArgumentError, match=f"must be loaded by {entry}, got {side.door.entry}"):
        side.door.load(side.written.directory)
    with pytest.raises(ArgumentError, match=f"must be loaded by {side.door.entry}, got {entry}"):
        load(side.door, write_tiny_model(tmp_path))
    with pytest.raises(NotSupportedError, match="`dtype` must be bfloat16 or float32 for t5"):
        side.door.load(side.written.directory, encodes=True, dtype="float16")
    with pytest.raises(ArgumentError, match=f"`backend` must be '{side.door.backend}' or absent"):
        side.door.load(side.written.directory, encodes=True, backend="torch")
    with pytest.raises(ArgumentError, match="`decoder_input_ids` or `decoder_inputs_embeds`"):
        side.ours(**side.own({"input_ids": IDS}))
