"""What `model(...)` takes, returns and refuses in PyTorch."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from fabula.errors import ArgumentError, ContextLengthError, ModelFileError, NotSupportedError  # noqa: E402
from fabula.models.families.config import ModelConfig  # noqa: E402
from fabula.models.families.table import family_for  # noqa: E402
from fabula.models.torch import TorchCausalLM  # noqa: E402
from fabula.models.weights.table import placed_entries  # noqa: E402
from fabula.models.weights.torch import to_tensor  # noqa: E402
from fabula.ops.protocol import Taps  # noqa: E402
from fabula.quant.formats import StoredTensor, quantize  # noqa: E402
from tests.models.configurations import GPT2, SMALL, stored  # noqa: E402
from tests.models.steps import make_batch, relative_error, shuffled_tables  # noqa: E402

GEMMA = {**SMALL, "model_type": "gemma3_text", "head_dim": 8, "sliding_window": 5, "sliding_window_pattern": 2}


def random_tensors(family, seed=0):
    random = np.random.default_rng(seed)
    entries = [entry for _, _, entry in placed_entries(family) if entry.tied is None]
    return {entry.name: stored(entry.name, 0.3 * random.standard_normal(entry.shape)) for entry in entries}


def build(**values):
    family = family_for(ModelConfig(**values))
    return TorchCausalLM.from_tensors(family, random_tensors(family))


@pytest.fixture(scope="module", params=["llama", "gemma3", "gpt2"])
def model(request):
    values = {"llama": {**SMALL, "model_type": "llama"}, "gemma3": GEMMA, "gpt2": {**GPT2, "model_type": "gpt2"}}
    return build(**values[request.param])


@pytest.fixture
def ids():
    return torch.from_numpy(np.random.default_rng(2).integers(0, 101, (3, 20)))


def test_a_model_that_has_generated_can_be_copied_and_moved(model):
    first = model.generate([[1, 2, 3]], max_new_tokens=4, eos_token_id=None)
    assert copy.deepcopy(model).generate([[1, 2, 3]], max_new_tokens=4, eos_token_id=None) == first
    moved = copy.deepcopy(model)
    moved.generate([[1, 2, 3]], max_new_tokens=2, eos_token_id=None)
    moved.to(torch.bfloat16)
    assert len(moved.generate([[1, 2, 3]], max_new_tokens=4, eos_token_id=None)[0]) == 7
    assert pickle.loads(pickle.dumps(model)).generate([[1, 2, 3]], max_new_tokens=4, eos_token_id=None) == first


@torch.no_grad()
def test_a_cropped_past_continues_as_if_the_rest_had_not_been(model, ids):
    past = model(ids).past_key_values
    past.crop(-6)
    assert past.get_seq_length() == 14
    again = model(ids[:, 14:], past_key_values=past).logits
    assert relative_error(again, model(ids).logits[:, 14:]) < 1e-5
    past.crop(0)
    assert past.get_seq_length() == 20


@torch.no_grad()
def test_reordered_rows_part_without_touching_each_other(model, ids):
    past = model(ids[:, :10]).past_key_values
    past.reorder_cache(torch.tensor([1, 1, 0, 2]))
    following = torch.cat([ids[1:2, 10:], ids[0:1, 10:], ids[0:1, 10:], ids[2:3, 10:]])
    logits = model(following, past_key_values=past).logits
    whole = torch.cat([ids[[1, 1, 0, 2], :10], following], 1)
    assert relative_error(logits, model(whole).logits[:, 10:]) < 1e-5


@torch.no_grad()
def test_a_row_of_the_mask_without_new_tokens_stands_still(model, ids):
    past = model(ids[:, :5]).past_key_values
    mask = torch.ones(3, 2, dtype=torch.long)
    mask[1] = 0
    logits = model(ids[:, 5:7], attention_mask=mask, past_key_values=past).logits
    assert past.lengths.tolist() == [7, 5, 7]
    assert not logits[1].any()
    assert relative_error(logits[0], model(ids[:1, :7]).logits[0, 5:]) < 1e-5


@torch.no_grad()
def test_only_the_columns_that_are_kept_are_scored(model, ids):
    whole = model(ids).logits
    assert torch.allclose(model(ids, logits_to_keep=3).logits, whole[:, -3:], atol=1e-5)
    chosen = torch.tensor([0, 7])
    assert torch.allclose(model(ids, logits_to_keep=chosen).logits, whole[:, chosen], atol=1e-5)


@torch.no_grad()
def test_hidden_states_and_attentions_come_as_rectangles(model, ids):
    mask = torch.ones_like(ids)
    mask[1, :9] = 0
    output = model(ids, attention_mask=mask, output_hidden_states=True, output_attentions=True)
    assert [tuple(x.shape) for x in output.hidden_states] == [(3, 20, 32)] * 3
    assert [tuple(x.shape) for x in output.attentions] == [(3, 4, 20, 20)] * 2
    sums = output.attentions[0].sum(-1)
    assert torch.allclose(sums, mask[:, None].expand(3, 4, 20).float(), atol=1e-5)
    assert not output.attentions[0][1, :, :, :9].any()


@torch.no_grad()
def test_an_output_answers_to_names_and_places(model, ids):
    output = model(ids, labels=ids)
    assert output.keys() == ("loss", "logits", "past_key_values")
    assert output[0] is output.loss is output["loss"]
    assert output.to_tuple()[1] is output.logits
    assert "attentions" not in output
    assert model(ids, use_cache=False, return_dict=False)[0].shape == (3, 20, 101)


def test_positions_may_be_given(model, ids):
    with torch.no_grad():
        counted = torch.arange(20).expand(3, 20)
        assert torch.allclose(model(ids, position_ids=counted).logits, model(ids).logits, atol=1e-5)
        assert not torch.allclose(model(ids, position_ids=counted * 2).logits, model(ids).logits, atol=1e-3)


def test_a_call_that_continues_has_no_gradients(model, ids):
    past = model(ids[:, :10]).past_key_values
    assert not model(ids[:, 10:], past_key_values=past).logits.requires_grad
    assert model(ids).logits.requires_grad


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"input_ids": torch.tensor([[0, 101]])}, r"\[0, 101\), got 101"),
        ({"input_ids": torch.tensor([[-1, 3]])}, r"got -1"),
        ({"input_ids": torch.tensor([3])}, r"shape \(rows, columns\)"),
        ({"input_ids": torch.zeros(1, 0, dtype=torch.long)}, r"shape \(1, 0\)"),
        ({"input_ids": torch.zeros(1, 3)}, "must be integers"),
        ({}, "`input_ids` or `inputs_embeds`"),
        ({"input_ids": torch.tensor([[1, 2]]), "attention_mask": torch.ones(1, 3)}, r"\(1, 2\), got \(1, 3\)"),
        ({"input_ids": torch.tensor([[1, 2]]), "attention_mask": torch.zeros(1, 2)}, "at least one token"),
        (
            {"input_ids": torch.tensor([[1, 2]]), "labels": torch.tensor([[1]])},
            r"`labels` must have the shape \(1, 2\)",
        ),
        ({"input_ids": torch.tensor([[1, 2]]), "past_key_values": ((1, 2),)}, "`past_key_values`.*got tuple"),
    ],
)
def test_inputs_that_do_not_fit_are_refused_by_name(model, arguments, message):
    with pytest.raises(ArgumentError, match=message):
        model(**arguments)


def test_a_mask_of_four_dimensions_is_not_supported(model, ids):
    with pytest.raises(NotSupportedError, match="attention_mask"):
        model(ids, attention_mask=torch.ones(3, 1, 20, 20))


def test_learned_positions_end():
    model = build(**{**GPT2, "model_type": "gpt2", "n_positions": 8})
    with pytest.raises(ContextLengthError, match="at most 8 positions, got 9"):
        model(torch.zeros(1, 9, dtype=torch.long))
    past = model(torch.zeros(1, 8, dtype=torch.long)).past_key_values
    with pytest.raises(ContextLengthError):
        model(torch.zeros(1, 1, dtype=torch.long), past_key_values=past)
    assert past.get_seq_length() == 8


def test_weights_that_are_missing_or_of_another_shape_are_named():
    family = family_for(ModelConfig(**SMALL, model_type="llama"))
    tensors = random_tensors(family)
    name = "model.layers.1.mlp.up_proj.weight"
    with pytest.raises(ModelFileError, match=name):
        TorchCausalLM.from_tensors(family, {key: value for key, value in tensors.items() if key != name})
    with pytest.raises(ModelFileError, match=rf"{name} must have the shape \(48, 32\).*got \(32, 48\)"):
        TorchCausalLM.from_tensors(family, {**tensors, name: stored(name, np.zeros((32, 48)))})


def test_checkpoints_of_the_inner_model_and_turned_matrices_load():
    family = family_for(ModelConfig(**GPT2, model_type="gpt2"))
    tensors = random_tensors(family)
    inner = {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}
    for name in ("h.0.attn.c_attn.weight", "h.1.attn.c_proj.weight"):
        inner[name] = stored(name, inner[name].dequantize().T, transposed=True)
    expected = TorchCausalLM.from_tensors(family, tensors).state_dict()
    found = TorchCausalLM.from_tensors(family, inner).state_dict()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("prefix", ["language_model.model.", "model.language_model."])
def test_the_text_part_of_a_multimodal_checkpoint_loads(prefix):
    family = family_for(ModelConfig.from_dict({"model_type": "gemma3", "text_config": GEMMA}))
    tensors = random_tensors(family)
    outer = {prefix + name.removeprefix("model."): tensor for name, tensor in tensors.items()}
    outer["vision_tower.weight"] = stored("vision_tower.weight", np.zeros(3))
    expected = TorchCausalLM.from_tensors(family, tensors).state_dict()
    found = TorchCausalLM.from_tensors(family, outer).state_dict()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@torch.no_grad()
def test_lists_and_arrays_are_taken_too(model, ids):
    assert torch.equal(model(ids.tolist()).logits, model(ids).logits)
    assert torch.equal(model(ids.numpy(), attention_mask=np.ones((3, 20))).logits, model(ids).logits)


@pytest.mark.parametrize("format", ["F32", "F16", "BF16", "Q8_0", "Q4_0"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_stored_weight_becomes_its_dequantized_values(format, dtype):
    array = np.random.default_rng(0).standard_normal((6, 64), np.float32)
    data = quantize(format, array)
    data.flags.writeable = False
    tensor = StoredTensor("w", format, (6, 64), data)
    kind = getattr(torch, dtype)
    expected = torch.tensor(tensor.dequantize()).to(kind)
    assert torch.equal(to_tensor(tensor, kind, "cpu"), expected)


@pytest.mark.parametrize(
    "values", [{**SMALL, "model_type": "mistral", "sliding_window": 5}, GEMMA], ids=["mistral", "gemma3"]
)
def test_everything_happens_on_the_models_device(values):
    family = family_for(ModelConfig(**values))
    entries = [entry for _, _, entry in placed_entries(family) if entry.tied is None]
    model = TorchCausalLM(family, {e.name: torch.empty(e.shape, device="meta", dtype=torch.bfloat16) for e in entries})
    rows = [list(range(40)), list(range(3)), list(range(50))]
    tables, blocks = shuffled_tables(rows, np.random.default_rng(0))
    cache, taps = model.new_cache(blocks), Taps((0, 1), (1,), True)
    for chosen, computed, counts in (([0, 1, 2], [0, 0, 0], [39, 3, 20]), ([0, 2], [39, 3, 20], [1, 7])):
        forward = model.step(make_batch(rows, chosen, computed, counts, tables), cache, taps)
        assert forward.logits.device.type == forward.hidden.device.type == "meta"
    ids = torch.zeros(2, 9, dtype=torch.long)
    output = model(ids, attention_mask=torch.tensor([[0] * 4 + [1] * 5, [1] * 9]), labels=ids)
    assert output.logits.device.type == output.loss.device.type == "meta"
    assert model(ids, past_key_values=output.past_key_values).logits.device.type == "meta"


def test_a_type_that_models_do_not_compute_in_is_refused():
    family = family_for(ModelConfig(**SMALL, model_type="llama"))
    with pytest.raises(ArgumentError, match="`dtype` must be float32"):
        TorchCausalLM.from_tensors(family, random_tensors(family), dtype="int8")
