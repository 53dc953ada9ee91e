"""A model with an encoder loads from a directory, saves to one that transformers reads, and each door takes its own."""

from __future__ import annotations

import json

import numpy as np
import pytest

import fabula
from fabula import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM
from fabula.errors import ArgumentError, ModelFileError, NotSupportedError
from fabula.testing.tiny_model import write_tiny_model
from tests.models.configurations import Case
from tests.models.encoders.cases import CASES, SMALL_T5, write

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
IDS, AFTER = torch.tensor([[5, 9, 33, 2, 17]]), torch.tensor([[0, 8, 4]])


@pytest.fixture(scope="module", params=CASES[:3], ids=str)
def written(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("t5")
    return write(request.param, folder), folder


@torch.no_grad()
def logits(model):
    return model(input_ids=IDS, decoder_input_ids=AFTER).logits.float()


def test_what_transformers_wrote_loads_and_what_we_write_it_reads(written, tmp_path):
    reference, folder = written
    model = AutoModelForSeq2SeqLM.from_pretrained(folder, backend="torch")
    assert (type(model).__name__, model.device.type, model.training) == ("TorchSeq2SeqLM", "cpu", False)
    assert (logits(model) - logits(reference)).abs().max() < 1e-4
    model.save_pretrained(tmp_path)
    for again in (
        AutoModelForSeq2SeqLM.from_pretrained(tmp_path, backend="torch"),
        transformers.AutoModelForSeq2SeqLM.from_pretrained(tmp_path),
    ):
        assert (logits(again) - logits(model)).abs().max() < 1e-4
        state = again.state_dict()
        assert all(torch.equal(state[name], tensor) for name, tensor in model.state_dict().items())
    assert AutoConfig.from_pretrained(tmp_path).scale_decoder_outputs == reference.config.scale_decoder_outputs


def test_a_second_saving_writes_the_same_configuration(written, tmp_path):
    _, folder = written
    for name, source in (("first", folder), ("second", tmp_path / "first")):
        AutoModelForSeq2SeqLM.from_pretrained(source).save_pretrained(tmp_path / name)
    first, second = (json.loads((tmp_path / name / "config.json").read_text()) for name in ("first", "second"))
    assert first == second


def test_a_head_of_its_own_is_kept_whatever_the_configuration_says(tmp_path):
    from safetensors.torch import load_file, save_file

    write(CASES[0], tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    config = json.loads((tmp_path / "config.json").read_text())
    for name in ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight"):
        tensors[name] = tensors["shared.weight"].clone()
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    shared = AutoModelForSeq2SeqLM.from_pretrained(tmp_path)
    assert shared.num_parameters() == sum(v.numel() for k, v in tensors.items()) - 3 * tensors["shared.weight"].numel()
    tensors["lm_head.weight"] = torch.randn_like(tensors["lm_head.weight"])
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    for ties, scales in ((True, True), (False, False), (False, True)):
        values = {**config, "tie_word_embeddings": ties, "scale_decoder_outputs": scales}
        (tmp_path / "config.json").write_text(json.dumps(values))
        model = AutoModelForSeq2SeqLM.from_pretrained(tmp_path, backend="torch")
        native = AutoModelForSeq2SeqLM.from_pretrained(tmp_path)
        reference = transformers.AutoModelForSeq2SeqLM.from_pretrained(tmp_path)
        assert torch.equal(model.lm_head.weight, tensors["lm_head.weight"])
        assert (logits(model) - logits(reference)).abs().max() < 1e-4
        assert (logits(native) - logits(reference)).abs().max() < 1e-4
        assert not native.is_tied


def test_weights_load_in_other_formats(written, tmp_path):
    _, folder = written
    whole, half = (
        AutoModelForSeq2SeqLM.from_pretrained(folder, dtype=dtype, backend="torch") for dtype in ("float32", "bfloat16")
    )
    assert (whole.dtype, half.dtype) == (torch.float32, torch.bfloat16)
    with pytest.raises(NotSupportedError, match="`dtype` must be bfloat16 or float32"):
        AutoModelForSeq2SeqLM.from_pretrained(folder, dtype="float16", backend="torch")
    narrow = transformers.AutoModelForSeq2SeqLM.from_pretrained(folder, dtype="bfloat16").to(torch.float16)
    narrow.save_pretrained(tmp_path)
    assert AutoModelForSeq2SeqLM.from_pretrained(tmp_path, backend="torch").dtype == torch.float32


def test_matrices_are_quantized_and_tables_are_not(tmp_path):
    sizes = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_heads": 32, "relative_attention_num_buckets": 32}
    write(Case("t5-packed", "T5Config", {**SMALL_T5, **sizes}), tmp_path)
    whole, eight = (
        AutoModelForSeq2SeqLM.from_pretrained(tmp_path, load_in_8bit=packed, backend="torch")
        for packed in (False, True)
    )
    attention = "encoder.block.0.layer.0.SelfAttention."
    name = f"{attention}relative_attention_bias.weight"
    assert torch.equal(eight.state_dict()[name], whole.state_dict()[name])
    one, other = eight.state_dict()[f"{attention}q.weight"], whole.state_dict()[f"{attention}q.weight"]
    assert not torch.equal(one, other)
    assert (one - other).abs().max() < 0.02 * other.abs().max()


def test_each_door_takes_its_own_models(written, tmp_path):
    _, folder = written
    assert fabula.AutoModelForSeq2SeqLM is AutoModelForSeq2SeqLM
    assert type(AutoModelForSeq2SeqLM.from_pretrained(folder)).__name__ == "NativeSeq2SeqLM"
    with pytest.raises(ArgumentError, match="must be loaded by AutoModelForSeq2SeqLM, got AutoModelForCausalLM: a t5"):
        AutoModelForCausalLM.from_pretrained(folder)
    write_tiny_model(tmp_path)
    with pytest.raises(ArgumentError, match="must be loaded by AutoModelForCausalLM, got AutoModelForSeq2SeqLM"):
        AutoModelForSeq2SeqLM.from_pretrained(tmp_path)
    with pytest.raises(ArgumentError, match="`config` must be a ModelConfig"):
        AutoModelForSeq2SeqLM.from_pretrained(folder, config={})


def test_settings_of_the_decoder_come_with_the_model(written):
    _, folder = written
    model = AutoModelForSeq2SeqLM.from_pretrained(folder)
    assert model.generation_config.decoder_start_token_id == 0
    assert model.context_length == 1 << 15


def test_weights_that_are_missing_or_of_another_shape_are_named(written, tmp_path):
    from safetensors.numpy import load_file, save_file

    _, folder = written
    tensors = load_file(folder / "model.safetensors")
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    name = "decoder.block.0.layer.1.EncDecAttention.k.weight"
    save_file({key: value for key, value in tensors.items() if key != name}, tmp_path / "model.safetensors")
    with pytest.raises(ModelFileError, match=f"{name} must be among the checkpoint's tensors"):
        AutoModelForSeq2SeqLM.from_pretrained(tmp_path)
    save_file({**tensors, name: np.zeros((3, 4), np.float32)}, tmp_path / "model.safetensors")
    with pytest.raises(ModelFileError, match=rf"{name} must have the shape .* got \(3, 4\)"):
        AutoModelForSeq2SeqLM.from_pretrained(tmp_path)
