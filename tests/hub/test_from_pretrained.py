"""Every argument of from_pretrained is honoured or refused by name, and what it loads saves and loads again."""

from types import SimpleNamespace

import numpy as np
import pytest

from fabula import AutoConfig, AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, GenerationConfig
from fabula.errors import ArgumentError, ModelFileError, NotSupportedError, OutOfMemoryError, UnknownArgumentError
from fabula.testing.tiny_model import write_tiny_model

torch = pytest.importorskip("torch")
IDS = [[72, 101, 108, 108, 111]]


def logits(model):
    return torch.as_tensor(model(IDS).logits).detach()


@pytest.mark.parametrize(
    "arguments",
    [
        *({"device_map": device} for device in ("auto", "cpu", "cpu:0", {"": "cpu"}, torch.device("cpu"))),
        *({"dtype": kind} for kind in ("auto", "float32", "float16", torch.bfloat16, np.float32, np.dtype("float16"))),
        {"low_cpu_mem_usage": True, "attn_implementation": "sdpa", "trust_remote_code": False, "use_safetensors": True},
        {"load_in_4bit": True, "device_map": "auto"},
        {"device_map": {"model": "cpu", "lm_head": "cpu"}},
        {"device_map": "balanced", "max_memory": {"cpu": "1GiB"}},
        {"load_in_8bit": True},
        {"quantization_config": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}},
        {"quantization_config": SimpleNamespace(_load_in_8bit=True)},
        {"quantization_config": BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")},
        {"quantization_config": BitsAndBytesConfig(load_in_8bit=True)},
        {"load_in_4bit": False, "quantization_config": None, "dtype": None, "torch_dtype": None, "device_map": None},
    ],
)
def test_a_model_on_the_cpu_is_native(folder, arguments):
    model = AutoModelForCausalLM.from_pretrained(folder, **arguments)
    assert type(model).__name__ == "NativeCausalLM"
    assert len(model.generate(IDS, max_new_tokens=2, eos_token_id=None)[0]) == 7


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"load_in_4bit": "yes"}, ArgumentError, "`load_in_4bit` must be True or False, got 'yes'"),
        ({"load_in_4bit": True, "load_in_8bit": True}, ArgumentError, "`load_in_4bit` and `load_in_8bit`"),
        ({"quantization_config": "int4"}, ArgumentError, "`quantization_config` must be .* got 'int4'"),
        ({"quantization_config": SimpleNamespace(bits=3)}, NotSupportedError, "`quantization_config` must set"),
        ({"dtype": "int8"}, ArgumentError, "`dtype` must be one of .* got 'int8'"),
        ({"device_map": "nonsense"}, ArgumentError, "`device_map` must be .* got 'nonsense'"),
        ({"device_map": {"": "disk"}}, NotSupportedError, "`device_map` must not place anything on 'disk'"),
        ({"device_map": {"model": "cpu", "lm_head": "disk"}}, NotSupportedError, "must not place anything on 'disk'"),
        ({"device_map": {}}, ArgumentError, "`device_map` must name modules"),
        ({"device_map": {0: "cpu", "x": "cpu"}}, ArgumentError, "must map the names of modules to devices, got .* 0"),
        ({"device_map": -1}, ArgumentError, "`device_map` must be .* got -1"),
        ({"device_map": "cuda:99"}, ArgumentError, "`device_map` must name a device that PyTorch finds here"),
        ({"device_map": {"model": "cpu"}}, ArgumentError, "`device_map` must place every module, .* lm_head"),
        ({"device_map": {"": "cpu", "model.layer": "cpu"}}, ArgumentError, "Did you mean 'model.layers'"),
        (
            {"device_map": {"": "cpu", "lm_head": 99}},
            ArgumentError,
            "`device_map` must name a device that PyTorch finds here, got 'cuda:99'",
        ),
        (
            {"device_map": {"": "cpu", "lm_head": 0}, "backend": "native"},
            ArgumentError,
            "`backend` 'native' computes on the CPU only",
        ),
        ({"max_memory": {0: "1GB"}}, ArgumentError, "`max_memory` must come with one of the device maps"),
        ({"max_memory": {99: "1GB"}, "device_map": "auto"}, ArgumentError, "must name GPUs that PyTorch finds here"),
        ({"max_memory": {"cpu": "1 cup"}, "device_map": "auto"}, ArgumentError, "such as '20GiB', got '1 cup'"),
        ({"max_memory": {"disk": 1}, "device_map": "auto"}, NotSupportedError, "`max_memory` must not name 'disk'"),
        ({"max_memory": [1], "device_map": "auto"}, ArgumentError, "`max_memory` must map devices to sizes"),
        ({"max_memory": {"cpu": 1000}, "device_map": "auto"}, OutOfMemoryError, "does not fit: cpu 1000 bytes"),
        ({"trust_remote_code": True}, NotSupportedError, "`trust_remote_code` .* no code"),
        ({"use_safetensors": False}, NotSupportedError, "`use_safetensors=False`"),
        ({"force_download": True}, NotSupportedError, "`force_download`"),
        ({"subfolder": "x"}, NotSupportedError, "`subfolder`"),
        ({"backend": "torch", "threads": 2}, NotSupportedError, "`threads`"),
        ({"attn_implementation": "flash_attention_2"}, NotSupportedError, "`attn_implementation` must be"),
        ({"load_in_4bits": True}, UnknownArgumentError, "`load_in_4bits`. Did you mean `load_in_4bit`"),
        ({"generation_config": {}}, ArgumentError, "`generation_config` must be a GenerationConfig, got dict"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(folder, arguments, error, message):
    with pytest.raises(error, match=message):
        AutoModelForCausalLM.from_pretrained(folder, **arguments)


def test_the_older_name_of_dtype_warns_and_works(folder):
    with pytest.warns(FutureWarning, match="`torch_dtype` is deprecated") as caught:
        model = AutoModelForCausalLM.from_pretrained(folder, torch_dtype=torch.bfloat16, backend="torch")
    assert model.dtype == torch.bfloat16
    assert caught[0].filename == __file__
    with pytest.warns(FutureWarning), pytest.raises(ArgumentError, match="not both"):
        AutoModelForCausalLM.from_pretrained(folder, torch_dtype="float16", dtype="float32")


@pytest.mark.parametrize("door", [AutoConfig, AutoTokenizer])
def test_what_loads_no_weights_takes_no_arguments_for_them(folder, door):
    assert door.from_pretrained(pretrained_model_name_or_path=folder, local_files_only=True, trust_remote_code=False)
    with pytest.raises(UnknownArgumentError, match="`load_in_4bit`"):
        door.from_pretrained(folder, load_in_4bit=True)
    with pytest.raises(NotSupportedError, match="`trust_remote_code`"):
        door.from_pretrained(folder, trust_remote_code=True)


def test_a_misspelt_setting_of_the_tokenizer_is_refused_with_the_right_one(folder):
    with pytest.raises(UnknownArgumentError, match="Did you mean `padding_side`"):
        AutoTokenizer.from_pretrained(folder, paddin_side="left")


@pytest.mark.parametrize("source", [None, 5])
@pytest.mark.parametrize("door", [AutoConfig, AutoTokenizer, AutoModelForCausalLM])
def test_a_source_that_names_nothing_is_refused(door, source):
    with pytest.raises(ArgumentError, match="the source must be a directory"):
        door.from_pretrained(source)


def test_a_tokenizer_with_more_tokens_than_the_model_has_ids_is_refused(tmp_path):
    write_tiny_model(tmp_path, vocab_size=200)
    message = r"tokenizer.json of .* must have at most 200 tokens, `vocab_size` of config.json, got 256"
    with pytest.raises(ModelFileError, match=message):
        AutoTokenizer.from_pretrained(tmp_path)
    with pytest.raises(ModelFileError, match=message):
        AutoModelForCausalLM.from_pretrained(tmp_path).generate(IDS, max_new_tokens=1, stop_strings="x")


def test_tokens_added_beyond_the_models_ids_are_refused_when_they_are_used(tmp_path):
    write_tiny_model(tmp_path, vocab_size=257)
    tokenizer, model = AutoTokenizer.from_pretrained(tmp_path), AutoModelForCausalLM.from_pretrained(tmp_path)
    assert model.generate(**tokenizer("Hello", return_tensors="np"), max_new_tokens=1).shape == (1, 6)
    with pytest.raises(ArgumentError, match=r"\[0, 257\), got 258"):
        model.generate(**tokenizer("<|pad|>", return_tensors="np"), max_new_tokens=1)


def test_weights_in_the_codes_of_another_method_are_refused(tmp_path):
    write_tiny_model(tmp_path, quantization_config={"quant_method": "gptq", "bits": 4})
    with pytest.raises(NotSupportedError, match=r"config.json: `quantization_config` .*'gptq'"):
        AutoModelForCausalLM.from_pretrained(tmp_path)


@pytest.mark.parametrize("backend", ["native", "torch"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_what_is_saved_has_the_type_that_was_loaded_and_says_so(folder, tmp_path, backend, dtype):
    transformers = pytest.importorskip("transformers")
    model = AutoModelForCausalLM.from_pretrained(folder, backend=backend, dtype=dtype)
    model.save_pretrained(tmp_path, safe_serialization=True)
    assert AutoConfig.from_pretrained(tmp_path).dtype == dtype
    assert str(transformers.AutoModelForCausalLM.from_pretrained(tmp_path).dtype) == f"torch.{dtype}"
    again = AutoModelForCausalLM.from_pretrained(tmp_path, backend=backend)
    assert torch.equal(logits(again), logits(model))


@pytest.mark.parametrize("family", ["GPT2Config", "LlamaConfig"])
@pytest.mark.parametrize("options", [{}, {"load_in_4bit": True}, {"load_in_8bit": True, "backend": "torch"}])
def test_transformers_computes_what_was_saved(tmp_path, family, options):
    transformers = pytest.importorskip("transformers")
    sizes = {
        "GPT2Config": {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 64},
        "LlamaConfig": {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4},
    }[family]
    config = getattr(transformers, family)(vocab_size=128, tie_word_embeddings=family == "GPT2Config", **sizes)
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "given")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "given", **options)
    model.save_pretrained(tmp_path / "saved")
    exact = AutoModelForCausalLM.from_pretrained(tmp_path / "saved", backend="torch")
    reference = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "saved").eval()
    with torch.no_grad():
        expected = reference(torch.tensor(IDS)).logits
        assert torch.allclose(exact(torch.tensor(IDS)).logits, expected, atol=1e-4)
        error = (model(torch.tensor(IDS)).logits - expected).abs().max() / expected.abs().max()
    assert error < (0.05 if options else 1e-4)  # packed weights: the native kernels round activations


@pytest.mark.parametrize("backend", ["native", "torch"])
def test_a_model_may_be_saved_where_it_came_from(tmp_path, backend):
    model = AutoModelForCausalLM.from_pretrained(write_tiny_model(tmp_path), backend=backend)
    expected = logits(model)
    model.save_pretrained(tmp_path)
    assert torch.equal(logits(model), expected)
    assert torch.equal(logits(AutoModelForCausalLM.from_pretrained(tmp_path, backend=backend)), expected)


@pytest.mark.parametrize("backend", ["native", "torch"])
def test_saving_refuses_by_name_and_leaves_the_settings_that_it_cannot_save(folder, tmp_path, backend):
    model = AutoModelForCausalLM.from_pretrained(folder, backend=backend)
    for settings, error in (
        ({"safe_serialization": False}, NotSupportedError),
        ({"max_shard_size": "1GB"}, NotSupportedError),
        ({"push_to_hub": True}, NotSupportedError),
        ({"save_everything": True}, UnknownArgumentError),
    ):
        with pytest.raises(error, match=f"`{next(iter(settings))}"):
            model.save_pretrained(tmp_path / "never", **settings)
    assert not (tmp_path / "never").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(ArgumentError, match="`save_directory` must be a directory"):
        model.save_pretrained(tmp_path / "file")
    model.generation_config.update(do_sample=True, temperature=0.5, eos_token_id=[256, 257])
    model.save_pretrained(tmp_path / "saved")
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "saved").generation_config == model.generation_config


def test_bits_and_bytes_asks_for_one_number_of_bits():
    with pytest.raises(ArgumentError, match="exclude each other"):
        BitsAndBytesConfig(load_in_4bit=True, load_in_8bit=True)
    with pytest.raises(ArgumentError, match="`load_in_4bit` must be True or False, got 1"):
        BitsAndBytesConfig(load_in_4bit=1)


def test_matrices_that_are_not_to_be_packed_are_refused(folder):
    asked = BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=["lm_head"])
    with pytest.raises(NotSupportedError, match=r"`llm_int8_skip_modules` must be absent.*\['lm_head'\]"):
        AutoModelForCausalLM.from_pretrained(folder, quantization_config=asked)


def test_a_generation_config_comes_from_a_models_own(folder):
    config = AutoConfig.from_pretrained(folder)
    assert GenerationConfig.from_model_config(config).eos_token_id == config.eos_token_id == 256


def test_a_space_goes_before_the_text_when_asked_for(folder):
    tokenizer = AutoTokenizer.from_pretrained(folder, add_prefix_space=True)
    assert tokenizer.add_prefix_space and tokenizer("a")["input_ids"] == [32, 97]
    plain = AutoTokenizer.from_pretrained(folder)
    assert not plain.add_prefix_space and plain("a")["input_ids"] == [97]
