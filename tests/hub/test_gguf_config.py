"""Each architecture's GGUF layout becomes the checkpoint and the configuration that transformers has for it."""

from __future__ import annotations

import numpy as np
import pytest

from fabula.errors import ModelFileError, NotSupportedError
from fabula.hub.gguf import read_gguf
from fabula.hub.gguf_config import model_config
from fabula.hub.open import open_checkpoint

from .gguf_bytes import ARRAY, F32, SMALL, STRING, U32, File, Tensor, floats, key, of, with_key, with_tensor

LAYERS, WIDTH, INNER, HEADS, KV_HEADS, HEAD, VOCABULARY, POSITIONS = 2, 24, 40, 4, 2, 6, 11, 32
STEMS = {  # Hugging Face's name -> GGUF's, for what the decoders share
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
GEMMA3_STEMS = STEMS | {
    "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}
GPT2_STEMS = {
    "transformer.wte": "token_embd",
    "transformer.wpe": "position_embd",
    "transformer.ln_f": "output_norm",
    "ln_1": "attn_norm",
    "ln_2": "ffn_norm",
    "attn.c_attn": "attn_qkv",
    "attn.c_proj": "attn_output",
    "mlp.c_fc": "ffn_up",
    "mlp.c_proj": "ffn_down",
}
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": WIDTH,
    "intermediate_size": INNER,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KV_HEADS,
    "head_dim": HEAD,
    "max_position_embeddings": POSITIONS,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False,
}


def decoder_keys(architecture: str, *more: bytes) -> tuple[bytes, ...]:
    """Metadata of a decoder of the sizes above."""
    prefix = architecture + "."
    numbers = {
        "block_count": LAYERS,
        "context_length": POSITIONS,
        "embedding_length": WIDTH,
        "feed_forward_length": INNER,
        "attention.head_count": HEADS,
        "attention.head_count_kv": KV_HEADS,
        "attention.key_length": HEAD,
        "attention.value_length": HEAD,
    }
    return (
        key("general.architecture", STRING, architecture),
        *(key(prefix + name, U32, number) for name, number in numbers.items()),
        key(prefix + "attention.layer_norm_rms_epsilon", F32, 1e-5),
        *more,
    )


def gguf_name(name: str, stems: dict[str, str]) -> str:
    """What llama.cpp's converter calls this weight."""
    stem, kind = name.rsplit(".", 1)
    if ".layers." in name or ".h." in name:
        number, inner = stem.split(".", 3)[2:]
        return f"blk.{number}.{stems[inner]}.{kind}"
    return f"{stems[stem]}.{kind}"


def paired(weights: np.ndarray, heads: int) -> np.ndarray:
    """llama.cpp's order of the rows of queries and keys: feature i of a head beside feature i + half."""
    halves = weights.reshape(heads, 2, weights.shape[0] // heads // 2, *weights.shape[1:])
    return halves.swapaxes(1, 2).reshape(weights.shape)


def llama_layout(name: str, weights: np.ndarray) -> np.ndarray:
    heads = {"q_proj": HEADS, "k_proj": KV_HEADS}.get(name.split(".")[-2])
    return weights if heads is None else paired(weights, heads)


def gemma_layout(name: str, weights: np.ndarray) -> np.ndarray:
    return weights + np.float32(1) if name.endswith("norm.weight") else weights


def gpt2_layout(name: str, weights: np.ndarray) -> np.ndarray:
    return weights.T if ".c_" in name and weights.ndim == 2 else weights


def same(name: str, weights: np.ndarray) -> np.ndarray:
    return weights


def reference(model_type: str, **settings):
    """A random model of transformers: its configuration and its weights."""
    transformers, torch = pytest.importorskip("transformers"), pytest.importorskip("torch")
    torch.manual_seed(1)
    config = transformers.AutoConfig.for_model(model_type, **settings)
    state = transformers.AutoModelForCausalLM.from_config(config).state_dict()
    generator = torch.Generator().manual_seed(2)
    weights = {name: torch.randn(tensor.shape, generator=generator).numpy() for name, tensor in state.items()}
    if config.tie_word_embeddings:
        del weights["lm_head.weight"]
    return config, weights


def opened(tmp_path, keys, weights, stems, layout):
    tensors = tuple(of(gguf_name(name, stems), layout(name, array)) for name, array in weights.items())
    path = tmp_path / "model.gguf"
    path.write_bytes(File(keys, tensors).bytes())
    return open_checkpoint(path)


def assert_same(checkpoint, config, weights, near: float = 0.0):
    assert set(checkpoint.tensors) == set(weights)
    for name, expected in weights.items():
        tensor = checkpoint.tensors[name]
        assert tensor.name == name
        actual = tensor.dequantize().T if tensor.transposed else tensor.dequantize()
        np.testing.assert_allclose(actual, expected, atol=near, rtol=0)
    known = config.to_dict()
    left = ("architectures",)
    actual = {key: value for key, value in checkpoint.config.items() if key not in left}
    assert {key: known.get(key) for key in actual} == actual


@pytest.mark.parametrize("bias", [False, True])
def test_llama(tmp_path, bias):
    settings = {**SIZES, "attention_bias": bias, "mlp_bias": bias, "bos_token_id": 1, "eos_token_id": 2}
    settings["rope_parameters"] = {"rope_type": "default", "rope_theta": 500000.0}
    config, weights = reference("llama", **settings)
    more = (key("llama.rope.freq_base", F32, 500000.0),)
    more += (key("tokenizer.ggml.bos_token_id", U32, 1), key("tokenizer.ggml.eos_token_id", U32, 2))
    assert_same(opened(tmp_path, decoder_keys("llama", *more), weights, STEMS, llama_layout), config, weights)


def test_qwen2_has_biases_and_no_window(tmp_path):
    config, weights = reference("qwen2", **{name: value for name, value in SIZES.items() if name != "head_dim"})
    checkpoint = opened(tmp_path, decoder_keys("qwen2"), weights, STEMS, same)
    assert checkpoint.config.pop("head_dim") == HEAD
    assert_same(checkpoint, config, weights)


def test_qwen3_has_head_norms(tmp_path):
    config, weights = reference("qwen3", **SIZES)
    assert_same(opened(tmp_path, decoder_keys("qwen3"), weights, STEMS, same), config, weights)


def test_gemma3_norms_lose_their_one(tmp_path):
    settings = {**SIZES, "tie_word_embeddings": True, "query_pre_attn_scalar": HEAD, "sliding_window": 8}
    settings |= {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
    config, weights = reference("gemma3_text", **settings)
    more = (key("gemma3.attention.sliding_window", U32, 8),)
    checkpoint = opened(tmp_path, decoder_keys("gemma3", *more), weights, GEMMA3_STEMS, gemma_layout)
    assert_same(checkpoint, config, weights, near=1e-6)


def test_gpt2_matrices_stay_as_they_lie_and_say_so(tmp_path):
    settings = {"vocab_size": VOCABULARY, "n_positions": POSITIONS, "n_embd": WIDTH, "n_layer": LAYERS, "n_head": HEADS}
    config, weights = reference("gpt2", **settings, n_inner=INNER, bos_token_id=None, eos_token_id=None)
    numbers = {
        "block_count": LAYERS,
        "context_length": POSITIONS,
        "embedding_length": WIDTH,
        "feed_forward_length": INNER,
        "attention.head_count": HEADS,
    }
    keys = (
        key("general.architecture", STRING, "gpt2"),
        *(key(f"gpt2.{name}", U32, number) for name, number in numbers.items()),
        key("gpt2.attention.layer_norm_epsilon", F32, 1e-5),
    )
    checkpoint = opened(tmp_path, keys, weights, GPT2_STEMS, gpt2_layout)
    assert_same(checkpoint, config, weights)
    tensor = checkpoint.tensors["transformer.h.0.attn.c_attn.weight"]
    assert (tensor.shape, tensor.transposed) == ((3 * WIDTH, WIDTH), True)
    assert not checkpoint.tensors["transformer.h.0.attn.c_attn.bias"].transposed


def config_with(tmp_path, *keys: bytes, tensors: tuple[Tensor, ...] = ()) -> dict:
    path = tmp_path / "model.gguf"
    embedding = floats("token_embd.weight", (VOCABULARY, WIDTH))
    path.write_bytes(File(decoder_keys("llama", *keys), (embedding, *tensors)).bytes())
    return model_config(read_gguf(path))


def test_rope_is_default_where_nothing_is_said(tmp_path):
    assert config_with(tmp_path)["rope_parameters"] == {"rope_type": "default", "rope_theta": 10000.0}


def test_linear_and_yarn_scaling_are_spelled_as_transformers_does(tmp_path):
    factor = key("llama.rope.scaling.factor", F32, 4.0)
    linear = config_with(tmp_path, key("llama.rope.scaling.type", STRING, "linear"), factor)["rope_parameters"]
    assert linear == {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}
    original = key("llama.rope.scaling.original_context_length", U32, 8)
    yarn = config_with(tmp_path, key("llama.rope.scaling.type", STRING, "yarn"), factor, original)["rope_parameters"]
    expected = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 8}
    assert yarn == expected


def test_an_unknown_scaling_is_refused(tmp_path):
    with pytest.raises(NotSupportedError, match=r"rope\.scaling\.type"):
        config_with(tmp_path, key("llama.rope.scaling.type", STRING, "su"))


@pytest.mark.parametrize("factor", [8.0, 32.0])
def test_llama_3_factors_become_its_rule(tmp_path, factor):
    theta, head = 500000.0, 64
    inverse = 1 / theta ** (np.arange(0, head, 2) / head)
    waves = 2 * np.pi / inverse
    smooth = (8192 / waves - 1) / (4 - 1)
    scaled = np.where(waves > 8192, inverse / factor, inverse)
    between = (waves <= 8192) & (waves >= 8192 / 4)
    scaled = np.where(between, (1 - smooth) * inverse / factor + smooth * inverse, scaled)
    keys = (key("llama.attention.key_length", U32, head), key("llama.attention.value_length", U32, head))
    lengths = tuple(entry for entry in decoder_keys("llama") if b"y_length" not in entry and b"ue_length" not in entry)
    tensors = (floats("token_embd.weight", (VOCABULARY, WIDTH)), of("rope_freqs.weight", inverse / scaled))
    path = tmp_path / "model.gguf"
    path.write_bytes(File((*lengths, *keys, key("llama.rope.freq_base", F32, theta)), tensors).bytes())
    assert model_config(read_gguf(path))["rope_parameters"] == {
        "rope_type": "llama3",
        "rope_theta": theta,
        "factor": factor,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    assert "rope_freqs.weight" not in open_checkpoint(path).tensors


def test_other_factors_are_kept_as_they_are(tmp_path):
    factors = of("rope_freqs.weight", np.array([1.0, 1.5, 3.0]))
    rope = config_with(tmp_path, tensors=(factors,))["rope_parameters"]
    assert (rope["rope_type"], rope["short_factor"], rope["attention_factor"]) == ("longrope", [1.0, 1.5, 3.0], 1.0)


@pytest.mark.parametrize("values", [[1.0, np.nan, 2.0], [1.0, 0.0, 2.0], [1.0, 2.0]])
def test_impossible_factors_are_refused(tmp_path, values):
    with pytest.raises(ModelFileError, match=r"rope_freqs\.weight"):
        config_with(tmp_path, tensors=(of("rope_freqs.weight", np.array(values)),))


def test_ends_of_turns_end_the_text_too(tmp_path):
    keys = [
        key(f"tokenizer.ggml.{name}_token_id", U32, number) for name, number in (("eos", 1), ("eot", 7), ("eom", 1))
    ]
    assert config_with(tmp_path, *keys)["eos_token_id"] == [1, 7]


def test_a_window_makes_a_llama_a_mistral(tmp_path):
    config = config_with(tmp_path, key("llama.attention.sliding_window", U32, 16))
    assert (config["model_type"], config["sliding_window"]) == ("mistral", 16)


def test_equal_sizes_of_every_layer_count_as_one(tmp_path):
    path = tmp_path / "model.gguf"
    keys = tuple(entry for entry in decoder_keys("llama") if b"head_count_kv" not in entry)
    embedding = floats("token_embd.weight", (VOCABULARY, WIDTH))
    path.write_bytes(File((*keys, key("llama.attention.head_count_kv", ARRAY, (U32, [2, 2]))), (embedding,)).bytes())
    assert model_config(read_gguf(path))["num_key_value_heads"] == 2
    path.write_bytes(File((*keys, key("llama.attention.head_count_kv", ARRAY, (U32, [2, 1]))), (embedding,)).bytes())
    with pytest.raises(NotSupportedError, match="head_count_kv"):
        model_config(read_gguf(path))


REFUSED = {
    "unknown architecture": (key("general.architecture", STRING, "mamba"), 0, "'general.architecture' must be one of"),
    "architecture of another type": (key("general.architecture", U32, 7), 0, "'general.architecture' must be one of"),
    "size 0": (key("llama.block_count", U32, 0), 1, "'llama.block_count' must be a whole number"),
    "size as text": (key("llama.block_count", STRING, "2"), 1, "'llama.block_count' must be a whole number"),
    "size as number": (key("llama.block_count", F32, 2.0), 1, "'llama.block_count' must be a whole number"),
    "no epsilon": (key("other", U32, 0), 6, "'llama.attention.layer_norm_rms_epsilon' must be there"),
    "epsilon NaN": (key("llama.attention.layer_norm_rms_epsilon", F32, float("nan")), 6, "must be a number above 0"),
    "token beyond the vocabulary": (key("tokenizer.ggml.eos_token_id", U32, 4), 11, "must be a token id below 4"),
    "more tokens than rows": (
        key("tokenizer.ggml.tokens", ARRAY, (STRING, list("abcdefg"))),
        8,
        "'tokenizer.ggml.tokens' must be at most 4 tokens",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_an_impossible_key_is_named(case, tmp_path):
    entry, place, message = REFUSED[case]
    keys = list(SMALL.keys)
    keys[place] = entry
    path = tmp_path / "model.gguf"
    path.write_bytes(File(tuple(keys), SMALL.tensors).bytes())
    with pytest.raises(ModelFileError, match=message) as raised:
        open_checkpoint(path)
    assert str(path) in str(raised.value)


def test_a_tensor_that_the_architecture_does_not_have_is_refused(tmp_path):
    path = tmp_path / "model.gguf"
    path.write_bytes(with_tensor(floats("blk.0.ssm_a.weight", (8,))).bytes())
    with pytest.raises(ModelFileError, match=r"'blk\.0\.ssm_a\.weight'"):
        open_checkpoint(path)


@pytest.mark.parametrize(("name", "number"), [("split.count", 3), ("llama.expert_count", 8)])
def test_what_is_not_supported_says_so(name, number, tmp_path):
    path = tmp_path / "model.gguf"
    path.write_bytes(with_key(key(name, U32, number)).bytes())
    with pytest.raises(NotSupportedError, match=name):
        open_checkpoint(path)


def test_heads_that_do_not_divide_the_rows_are_refused(tmp_path):
    path = tmp_path / "model.gguf"
    path.write_bytes(with_key(key("llama.attention.head_count_kv", U32, 3)).bytes())
    checkpoint = open_checkpoint(path)
    with pytest.raises(ModelFileError, match="even number of rows for each of 3 heads"):
        checkpoint.tensors["model.layers.0.self_attn.k_proj.weight"]
