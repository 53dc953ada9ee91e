"""T5 out of a GGUF file: the model that transformers wrote, in every framework, and as transformers reads the file."""

from __future__ import annotations

import re

import numpy as np
import pytest

import fabula
from fabula.errors import ModelFileError, NotSupportedError
from tests.equal.frameworks.doors import DOORS, REFERENCE
from tests.models.configurations import Case
from tests.models.encoders.cases import SMALL_T5, write

from .gguf_bytes import F32, STRING, U32, File, Tensor, floats, key, of

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
GATED = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
SIZES = {"d_model": 32, "d_kv": 8, "d_ff": 64}  # that blocks of packed weights divide
CASES = (
    Case("t5-1.0", "T5Config", SMALL_T5 | {"num_decoder_layers": 3, "relative_attention_num_buckets": 8}),
    Case("t5-1.1", "T5Config", SMALL_T5 | SIZES | GATED),
)
INNER = {
    "SelfAttention.relative_attention_bias": "attn_rel_b",
    **{f"SelfAttention.{part}": f"attn_{part}" for part in "qkvo"},
    **{f"EncDecAttention.{part}": f"cross_attn_{part}" for part in "qkvo"},
    "DenseReluDense.wi": "ffn_up",
    "DenseReluDense.wi_0": "ffn_gate",
    "DenseReluDense.wi_1": "ffn_up",
    "DenseReluDense.wo": "ffn_down",
}
NORMS = {"enc": ("attn_norm", "ffn_norm"), "dec": ("attn_norm", "cross_attn_norm", "ffn_norm")}
IDS, AFTER = np.array([[5, 9, 33, 2, 17]]), np.array([[0, 8, 4]])


def gguf_name(name: str) -> str:
    """What llama.cpp's converter calls this weight."""
    if name == "shared.weight":
        return "token_embd.weight"
    if name == "lm_head.weight":
        return "output.weight"
    side = name[:3]
    found = re.fullmatch(r"\w+\.block\.(\d+)\.layer\.(\d)\.(.+)\.weight", name)
    if found is None:
        return f"{side}.output_norm.weight"
    layer, part, inner = found.groups()
    return f"{side}.blk.{layer}.{NORMS[side][int(part)] if inner == 'layer_norm' else INNER[inner]}.weight"


def keys_of(config) -> tuple[bytes, ...]:
    numbers = {
        "vocab_size": config.vocab_size,
        "context_length": 512,
        "block_count": config.num_layers,
        "decoder_block_count": config.num_decoder_layers,
        "embedding_length": config.d_model,
        "feed_forward_length": config.d_ff,
        "attention.head_count": config.num_heads,
        "attention.key_length": config.d_kv,
        "attention.value_length": config.d_kv,
        "attention.relative_buckets_count": config.relative_attention_num_buckets,
        "decoder_start_token_id": config.decoder_start_token_id,
    }
    return (
        key("general.architecture", STRING, "t5"),
        *(key(f"t5.{name}", U32, number) for name, number in numbers.items()),
        key("t5.attention.layer_norm_epsilon", F32, config.layer_norm_epsilon),
        key("t5.attention.layer_norm_rms_epsilon", F32, config.layer_norm_epsilon),
        key("tokenizer.ggml.eos_token_id", U32, 1),
        key("tokenizer.ggml.padding_token_id", U32, 0),
    )


def tensors_of(model) -> dict[str, np.ndarray]:
    """The weights that a converter writes, by the names that it gives them."""
    state = {name: tensor.numpy() for name, tensor in model.state_dict().items() if "embed_tokens" not in name}
    if model.config.scale_decoder_outputs:  # as those are whose head is the table
        del state["lm_head.weight"]
    return {gguf_name(name): array for name, array in state.items()}


@pytest.fixture(scope="module", params=CASES, ids=str)
def written(request, tmp_path_factory):
    """transformers' model, and its file."""
    path = tmp_path_factory.mktemp("t5") / "model.gguf"
    model = write(request.param, path.parent / "directory")
    tensors = tuple(of(name, array) for name, array in tensors_of(model).items())
    unread = floats("dec.blk.0.cross_attn_rel_b.weight", (8, 4))
    path.write_bytes(File(keys_of(model.config), (*tensors, unread)).bytes())
    return model, path


def scores_of(model, kind=torch.tensor) -> np.ndarray:
    """Float["1 T V"]."""
    with torch.no_grad():
        return np.asarray(model(input_ids=kind(IDS), decoder_input_ids=kind(AFTER)).logits)


@pytest.mark.parametrize("door", [REFERENCE, *DOORS.values()], ids=lambda door: door.backend)
def test_a_file_computes_what_it_was_written_from(written, door):
    model, path = written
    ours = door.load(path, encodes=True)
    np.testing.assert_allclose(scores_of(ours, lambda ids: door.given((ids, ids))[0]), scores_of(model), atol=1e-4)
    assert ours.generation_config.decoder_start_token_id == 0
    texts = ours.generate(IDS.tolist(), max_new_tokens=8, do_sample=False)
    assert texts == model.generate(torch.tensor(IDS), max_new_tokens=8, do_sample=False, use_cache=False).tolist()


def test_transformers_finds_the_same_weights(written):
    """Their names; it takes each T5 of a GGUF file for one with gates, and their activation for a ReLU."""
    model, path = written
    if not model.config.is_gated_act:
        pytest.skip("transformers takes every T5 in a GGUF file for one with gates")
    pytest.importorskip("gguf")
    theirs = transformers.T5ForConditionalGeneration.from_pretrained(path.parent, gguf_file=path.name).state_dict()
    assert all(torch.equal(theirs[name], tensor) for name, tensor in model.state_dict().items())


def test_packed_weights_are_computed_on_as_they_are(written, tmp_path):
    model, _ = written
    if model.config.d_model % 32:
        pytest.skip("blocks of 32 weights do not divide its rows")
    gguf = pytest.importorskip("gguf")
    path, tensors, rounded = tmp_path / "model.gguf", [], {}
    for name, array in tensors_of(model).items():
        if array.ndim < 2 or array.shape[1] % 32:
            tensors.append(of(name, array))
            continue
        packed = gguf.quants.quantize(array, gguf.GGMLQuantizationType.Q8_0)
        rounded[name] = gguf.quants.dequantize(packed, gguf.GGMLQuantizationType.Q8_0)
        tensors.append(Tensor(name, array.shape[::-1], gguf.GGMLQuantizationType.Q8_0, packed.tobytes()))
    path.write_bytes(File(keys_of(model.config), tuple(tensors)).bytes())
    exact = fabula.AutoModelForSeq2SeqLM.from_pretrained(path, dtype="float32", backend="torch")
    assert np.array_equal(exact.state_dict()["lm_head.weight"].numpy(), rounded["output.weight"])
    ours = fabula.AutoModelForSeq2SeqLM.from_pretrained(path)
    one, other = (scores_of(each).ravel() for each in (exact, ours))
    assert one @ other / np.linalg.norm(one) / np.linalg.norm(other) > 0.99


@pytest.mark.parametrize(
    ("name", "error", "said"),
    [
        ("enc.blk.1.attn_rel_b.weight", NotSupportedError, r"bias of their own \(UMT5\) are not supported"),
        ("blk.0.attn_q.weight", ModelFileError, r"'blk.0.attn_q.weight' must be one that its architecture has"),
        ("enc.blk.0.cross_attn_q.weight", ModelFileError, r"cross_attn_q.weight' must be one that"),
    ],
)
def test_weights_that_no_t5_has_are_refused(written, tmp_path, name, error, said):
    model, _ = written
    tensors = tensors_of(model) | {name: np.zeros((8, 4))}
    path = tmp_path / "model.gguf"
    path.write_bytes(File(keys_of(model.config), tuple(of(*each) for each in tensors.items())).bytes())
    with pytest.raises(error, match=said):
        fabula.AutoModelForSeq2SeqLM.from_pretrained(path)
