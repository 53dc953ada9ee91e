"""A source is opened by what it is: a directory, a .gguf file, a name; what it is not is said clearly."""

from __future__ import annotations

import json
import os
import pickle
import sys

import numpy as np
import pytest
from safetensors.numpy import save_file

from fabula.errors import DownloadError, FabulaError, ModelFileError
from fabula.hub import snapshot
from fabula.hub.default_model import FILE, is_default_model
from fabula.hub.open import open_checkpoint, open_config, open_tokenizer

from .gguf_bytes import SMALL

CONFIG = {"model_type": "llama", "hidden_size": 8, "auto_map": {"AutoModelForCausalLM": "evil.Model"}}


@pytest.fixture
def directory(tmp_path):
    """A checkpoint that transformers might have written, with code beside it that must not run."""
    place = tmp_path / "model"
    place.mkdir()
    (place / "config.json").write_text(json.dumps(CONFIG))
    (place / "generation_config.json").write_text('{"eos_token_id": [2, 3]}')
    (place / "tokenizer.json").write_text('{"version": "1.0"}')
    (place / "tokenizer_config.json").write_text('{"eos_token": "</s>"}')
    (place / "chat_template.jinja").write_text("{{ messages }}")
    (place / "evil.py").write_text("raise SystemExit('code of a model was run')")
    save_file({"model.norm.weight": np.ones(8, np.float32)}, place / "model.safetensors")
    return place


def test_a_directory_is_opened_whole(directory):
    checkpoint = open_checkpoint(directory)
    assert checkpoint.config == CONFIG
    assert checkpoint.generation_config == {"eos_token_id": [2, 3]}
    assert checkpoint.tensors["model.norm.weight"].dequantize().tolist() == [1] * 8
    assert checkpoint.tokenizer.tokenizer_json == '{"version": "1.0"}'
    assert checkpoint.tokenizer.tokenizer_config == {"eos_token": "</s>"}
    assert checkpoint.tokenizer.chat_template == "{{ messages }}"
    assert checkpoint.source == str(directory)
    assert "evil" not in sys.modules


def test_what_a_directory_may_lack_is_none(directory):
    for name in ("generation_config.json", "tokenizer.json", "chat_template.jinja"):
        (directory / name).unlink()
    checkpoint = open_checkpoint(str(directory))
    assert (checkpoint.generation_config, checkpoint.tokenizer) == (None, None)


def test_a_tokenizer_and_a_configuration_are_read_alone(directory):
    (directory / "model.safetensors").unlink()
    assert open_config(directory) == CONFIG
    (directory / "config.json").unlink()
    assert open_tokenizer(directory).tokenizer_config == {"eos_token": "</s>"}


def test_an_older_chat_template_is_read(directory):
    (directory / "chat_template.jinja").unlink()
    (directory / "chat_template.json").write_text('{"chat_template": "old"}')
    assert open_tokenizer(directory).chat_template == "old"


def test_names_are_those_of_a_causal_language_model(directory):
    names = {
        "h.0.attn.c_attn.weight": "transformer.h.0.attn.c_attn.weight",
        "wte.weight": "transformer.wte.weight",
        "layers.0.mlp.up_proj.weight": "model.layers.0.mlp.up_proj.weight",
        "language_model.model.norm.weight": "model.norm.weight",
        "language_model.lm_head.weight": "lm_head.weight",
        "model.language_model.embed_tokens.weight": "model.embed_tokens.weight",
        "model.layers.1.mlp.up_proj.weight": "model.layers.1.mlp.up_proj.weight",
        "vision_tower.patch.weight": None,
        "h.0.attn.bias": None,
    }
    save_file({name: np.full(2, i, np.float32) for i, name in enumerate(names)}, directory / "model.safetensors")
    tensors = open_checkpoint(directory).tensors
    assert set(tensors) == {name for name in names.values() if name}
    assert tensors["transformer.wte.weight"].dequantize().tolist() == [1, 1]


def test_two_weights_of_one_name_are_refused(directory):
    save_file(
        {n: np.ones(2, np.float32) for n in ("norm.weight", "model.norm.weight")}, directory / "model.safetensors"
    )
    with pytest.raises(ModelFileError, match=r"must not both stand for 'model\.norm\.weight'"):
        open_checkpoint(directory)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "consolidated.pth"])
def test_a_pickle_is_never_read(directory, name, tmp_path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "run"),)

    (directory / "model.safetensors").unlink()
    (directory / name).write_bytes(pickle.dumps(Evil()))
    for source in (directory, directory / name):
        with pytest.raises(ModelFileError, match=f"{name} must not be a pickle.*save_pretrained"):
            open_checkpoint(source)
    assert not (tmp_path / "run").exists()


def test_a_directory_without_weights_or_configuration_says_so(directory):
    (directory / "model.safetensors").unlink()
    with pytest.raises(ModelFileError, match=r"must hold model\.safetensors"):
        open_checkpoint(directory)
    (directory / "config.json").unlink()
    with pytest.raises(ModelFileError, match=r"must hold config\.json"):
        open_checkpoint(directory)
    (directory / "tokenizer.json").unlink()
    with pytest.raises(ModelFileError, match=r"must hold tokenizer\.json"):
        open_tokenizer(directory)


def test_a_safetensors_file_is_named_by_its_directory(directory):
    with pytest.raises(ModelFileError, match="Name the directory"):
        open_checkpoint(directory / "model.safetensors")


@pytest.mark.parametrize("name", ["config.json", "generation_config.json", "tokenizer_config.json"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "must be JSON"),
        (b"[1]", "must be a JSON object, got a list"),
        (b'{"a": {"b": NaN}}', r"key 'a\.b' must be a finite number, got nan"),
        (b'{"a": [1, -Infinity]}', r"key 'a\.1' must be a finite number, got -inf"),
        (b'{"a": ' + b"[" * 70 + b"]" * 70 + b"}", "within at most 64 objects and lists"),
        (b"[" * 200_000, "within at most 64 objects and lists"),
        (b'{"a": ' + b"1" * 5000 + b"}", "must be JSON"),
        (b'{"a": 1, "a": 2}', "key 'a' must occur once"),
        (b'{"a": "\xff"}', "must be UTF-8, got another byte at 7"),
    ],
)
def test_a_bad_json_file_is_named_with_its_key(name, content, message, directory):
    (directory / name).write_bytes(content)
    with pytest.raises(ModelFileError, match=message) as raised:
        open_checkpoint(directory)
    assert str(directory / name) in str(raised.value)


def test_a_huge_json_file_is_not_read(directory):
    with open(directory / "config.json", "wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(ModelFileError, match=r"config\.json must have at most"):
        open_checkpoint(directory)


def test_a_gguf_file_is_opened_whatever_it_is_called(tmp_path):
    (tmp_path / "weights").write_bytes(SMALL.bytes())
    checkpoint = open_checkpoint(tmp_path / "weights")
    assert checkpoint.config["model_type"] == "llama"
    assert checkpoint.tokenizer.gguf["tokenizer.ggml.model"] == "gpt2"
    assert open_tokenizer(tmp_path / "weights").gguf == checkpoint.tokenizer.gguf
    assert open_config(tmp_path / "weights") == checkpoint.config


def test_a_directory_of_one_gguf_file_is_that_file(tmp_path):
    (tmp_path / "model.gguf").write_bytes(SMALL.bytes())
    assert open_checkpoint(tmp_path).path == tmp_path / "model.gguf"
    (tmp_path / "other.gguf").write_bytes(SMALL.bytes())
    with pytest.raises(ModelFileError, match=r"Name one of its files: model\.gguf, other\.gguf"):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize("source", ["/no/such/place", "./absent", "absent.gguf", "a/b/c", "what is this?", "", ".."])
def test_a_name_of_nothing_is_refused(source, monkeypatch, tmp_path):
    (tmp_path / "in").mkdir()
    monkeypatch.chdir(tmp_path / "in")
    with pytest.raises(ModelFileError):
        open_checkpoint(source)


def test_the_default_model_goes_by_its_own_names_only():
    assert all(map(is_default_model, ("SmolLM2-135M-Instruct", "smollm2-135m-instruct", "default", "smollm2")))
    assert not is_default_model("HuggingFaceTB/SmolLM2-135M-Instruct")


def test_the_default_model_offline_must_be_there(tmp_path, monkeypatch):
    monkeypatch.setenv("FABULA_CACHE", str(tmp_path / "cache"))
    with pytest.raises(DownloadError, match="fabula pull"):
        open_checkpoint("default", local_files_only=True)
    assert not (tmp_path / "cache").exists()


def test_a_directory_named_as_the_default_model_wins(directory, monkeypatch):
    monkeypatch.chdir(directory.parent)
    directory.rename(directory.parent / "default")
    assert open_checkpoint("default").config == CONFIG


@pytest.fixture
def hub(directory, monkeypatch):
    """A hub whose repositories all are the directory; gives the calls it saw."""
    calls = []

    def snapshot_download(repository, **options):
        calls.append((repository, options))
        return str(directory)

    monkeypatch.setattr(snapshot, "snapshot_download", snapshot_download)
    return calls


def test_a_hub_id_is_fetched_without_code_and_pickles(hub):
    options = {"revision": "v1", "token": "t", "cache_dir": "c", "local_files_only": True}
    assert open_checkpoint("organization/name", **options).config == CONFIG
    repository, given = hub[0]
    patterns = given.pop("allow_patterns")
    assert (repository, given) == ("organization/name", options)
    assert "model.safetensors" in patterns
    assert not any(pattern.endswith((".py", ".bin", ".pt", "*")) for pattern in patterns)


def test_a_tokenizer_or_a_configuration_fetches_no_weights(hub):
    open_config("gpt2")
    open_tokenizer("gpt2")
    assert not any("safetensors" in pattern for _, options in hub for pattern in options["allow_patterns"])


def test_a_gguf_file_of_a_repository_is_fetched_alone(tmp_path, monkeypatch):
    (tmp_path / "model.gguf").write_bytes(SMALL.bytes())
    monkeypatch.setattr(snapshot, "hf_hub_download", lambda repository, name, **_: str(tmp_path / name))
    assert open_checkpoint("organization/name/model.gguf").config["model_type"] == "llama"


def test_a_repository_that_is_not_cached_is_clear_offline(tmp_path):
    with pytest.raises(DownloadError, match="'organization/name' at 'main' is not in the cache"):
        open_checkpoint("organization/name", revision="main", cache_dir=tmp_path, local_files_only=True)


@pytest.mark.parametrize(
    ("failure", "message"),
    [
        ("GatedRepoError", "is gated. Accept its terms"),
        ("RevisionNotFoundError", "has no such revision"),
        ("RepositoryNotFoundError", "is not there, or is private"),
        ("LocalEntryNotFoundError", "the hub cannot be reached"),
    ],
)
def test_failures_of_the_hub_are_explained(failure, message, monkeypatch):
    error_class = getattr(snapshot.errors, failure)

    def fail(*_, **__):
        raise error_class.__new__(error_class)

    monkeypatch.setattr(snapshot, "snapshot_download", fail)
    with pytest.raises(DownloadError, match=message):
        open_checkpoint("organization/name")


def test_any_other_failure_of_the_network_is_a_download_error(monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("proxy said no\nand more")

    monkeypatch.setattr(snapshot, "snapshot_download", fail)
    with pytest.raises(DownloadError, match=r"could not be fetched: proxy said no\. Check"):
        open_checkpoint("organization/name")


def test_errors_are_of_one_root(tmp_path):
    with pytest.raises(FabulaError):
        open_checkpoint(tmp_path)


def test_the_default_file_is_the_one_that_was_proven():
    assert (FILE.size, FILE.sha256[:8]) == (98362432, "b179c952")
