"""The two real models open as their Hugging Face checkpoints would."""

from __future__ import annotations

import numpy as np
import pytest

from fabula.hub.gguf import read_gguf
from fabula.hub.open import open_checkpoint
from fabula.quant.formats import dequantize


@pytest.fixture(params=["smollm2_gguf", "gemma_gguf"])
def path(request):
    return request.getfixturevalue(request.param)


def test_metadata_and_bytes_equal_the_reference_reader(smollm2_gguf):
    gguf = pytest.importorskip("gguf")
    reference, file = gguf.GGUFReader(smollm2_gguf), read_gguf(smollm2_gguf)
    fields = {key: field for key, field in reference.fields.items() if not key.startswith("GGUF.")}
    assert {key: field.contents() for key, field in fields.items()} == file.metadata
    assert [tensor.name for tensor in reference.tensors] == list(file.tensors)
    for expected in reference.tensors:
        tensor = file.tensors[expected.name]
        assert (tensor.format, tensor.shape) == (expected.tensor_type.name, tuple(map(int, expected.shape[::-1])))
        assert np.array_equal(tensor.data, expected.data.view(np.uint8).reshape(-1))


def test_weights_of_every_format_decode_as_the_reference_does(path):
    gguf = pytest.importorskip("gguf")
    done = set()
    for tensor in read_gguf(path).tensors.values():
        if tensor.format in done:
            continue
        done.add(tensor.format)
        rows = tensor.data.reshape(tensor.shape[0] if len(tensor.shape) > 1 else 1, -1)[:512]
        expected = gguf.quants.dequantize(rows, gguf.GGMLQuantizationType[tensor.format])
        assert np.array_equal(dequantize(tensor.format, rows.reshape(-1), expected.shape), expected)


def test_configuration_equals_what_transformers_reads(smollm2_gguf):
    transformers = pytest.importorskip("transformers")
    checkpoint = open_checkpoint(smollm2_gguf)
    expected = transformers.AutoConfig.from_pretrained(smollm2_gguf.parent, gguf_file=smollm2_gguf.name).to_dict()
    config = {**checkpoint.config, "rms_norm_eps": float(np.float32(checkpoint.config["rms_norm_eps"]))}
    del config["architectures"]  # transformers leaves it out
    assert {key: expected.get(key) for key in config} == config


def test_names_are_those_of_the_checkpoint(path):
    checkpoint = open_checkpoint(path)
    layers = checkpoint.config["num_hidden_layers"]
    assert "model.embed_tokens.weight" in checkpoint.tensors
    assert "lm_head.weight" not in checkpoint.tensors
    assert checkpoint.config["tie_word_embeddings"]
    assert sum(name.endswith(".self_attn.q_proj.weight") for name in checkpoint.tensors) == layers
    assert all(checkpoint.tensors[name].name == name for name in checkpoint.tensors)


def test_smollm2_is_what_its_card_says(smollm2_gguf):
    checkpoint = open_checkpoint(smollm2_gguf)
    assert checkpoint.config["model_type"] == "llama"
    assert checkpoint.config["rope_parameters"] == {"rope_type": "default", "rope_theta": 100000.0}
    assert checkpoint.generation_config == {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}
    assert checkpoint.tokenizer.gguf["tokenizer.ggml.pre"] == "smollm"
    assert "<|im_start|>" in checkpoint.tokenizer.chat_template
    weights = sum(int(np.prod(tensor.shape)) for tensor in checkpoint.tensors.values())
    assert weights == 134515008


def test_gemma_slides_in_five_layers_of_six(gemma_gguf):
    config = open_checkpoint(gemma_gguf).config
    assert config["layer_types"] == (["sliding_attention"] * 5 + ["full_attention"]) * 3
    assert config["rope_parameters"]["sliding_attention"]["rope_theta"] == 10000.0
    assert config["rope_parameters"]["full_attention"]["rope_theta"] == 1000000.0
    assert (config["query_pre_attn_scalar"], config["head_dim"], config["sliding_window"]) == (256, 256, 512)
    assert (config["vocab_size"], config["hidden_activation"]) == (262144, "gelu_pytorch_tanh")
