"""Each command does what it says with a model on the disk: what it prints, where, and its exit code."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

import fabula


def test_generate_prints_the_text_that_python_gets(run, tiny):
    model = fabula.AutoModelForCausalLM.from_pretrained(tiny)
    row = model.generate([list(b"hello")], max_new_tokens=12)[0]
    expected = model.tokenizer.decode(row[5:], skip_special_tokens=True)
    done = run("generate", "hello", "--model", tiny, "--max-new-tokens", "12")
    assert (done.code, done.out, done.err) == (0, expected + "\n", "")


def test_generate_reads_a_pipe(run, tiny):
    asked = run("generate", "hello", "-m", tiny, "--max_new_tokens", "5")
    assert run("generate", "-m", tiny, "--max_new_tokens", "5", typed="hello").out == asked.out
    assert run("generate", "-", "-m", tiny, "--max_new_tokens", "5", typed="hello").out == asked.out


def test_generate_writes_json_that_adds_up(run, tiny):
    done = run("generate", "hello", "-m", tiny, "--json", "--max-new-tokens", "6", "--min-new-tokens", "6")
    answer = json.loads(done.out)
    assert answer["prompt_ids"] == list(b"hello")
    assert len(answer["ids"]) == len(answer["log_probabilities"]) == 6
    assert all(value <= 0 for value in answer["log_probabilities"])
    assert answer["finish_reason"] == "length"
    assert (answer["timings"]["prompt_n"], answer["timings"]["predicted_n"]) == (5, 6)
    assert (
        answer["text"]
        == run("generate", "hello", "-m", tiny, "--max-new-tokens", "6", "--min-new-tokens", "6").out[:-1]
    )


def test_a_seed_fixes_the_text_alone_among_others_and_as_json(run, tiny):
    words = ("generate", "hello", "-m", tiny, "--do-sample", "--seed", "3", "--max-new-tokens", "8")
    alone = run(*words).out
    assert alone == run(*words).out
    assert json.loads(run(*words, "--json").out)["text"] + "\n" == alone
    lines = run(*words, "--json", "--num-return-sequences", "3").out.splitlines()
    texts = [json.loads(line)["text"] for line in lines]
    assert texts[0] + "\n" == alone
    assert len(set(texts)) > 1
    shown = run(*words, "--num-return-sequences", "3").out
    assert shown == "".join(f"--- {number}\n{text}\n" for number, text in enumerate(texts, 1))


def test_chat_format_is_the_models_own(run, tiny):
    answer = json.loads(run("generate", "hi", "-m", tiny, "--system", "be kind", "--json", "--max-new-tokens", "1").out)
    tokenizer = fabula.AutoTokenizer.from_pretrained(tiny)
    assert tokenizer.decode(answer["prompt_ids"]) == (
        "<|begin|>system\nbe kind<|end|>\n<|begin|>user\nhi<|end|>\n<|begin|>assistant\n"
    )


@pytest.mark.filterwarnings("default:the native kernels")
def test_without_kernels_the_text_is_the_same_and_one_line_says_why_it_is_slow(run, tiny, monkeypatch):
    words = ("generate", "hello", "-m", tiny, "--max-new-tokens", "4")
    expected = run(*words).out
    monkeypatch.setattr("fabula.ops.native.load_library", lambda: None)
    done = run(*words)
    assert (done.code, done.out) == (0, expected)
    assert done.err.count("\n") == 1
    assert "compiler" in done.err


def test_a_stop_string_is_not_shown(run, tiny):
    full = run("generate", "hello", "-m", tiny, "--max-new-tokens", "12").out[:-1]
    stop = next(letter for letter in full[3:] if letter.isascii())
    cut = run("generate", "hello", "-m", tiny, "--max-new-tokens", "12", "--stop-strings", stop).out[:-1]
    assert cut == full[: full.index(stop)]


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (("generate", ""), 2, "prompt"),
        (("generate", "x", "--temperature", "-1", "--do-sample"), 2, "temperature"),
        (("generate", "x", "--num-beams", "4", "--num-return-sequences", "5"), 2, "num_return_sequences"),
        (("generate", "x" * 600), 2, "512"),
        (("generate", "x", "--threads", "0"), 2, "threads"),
        (("generate", "x", "--model", "/no/such/model"), 3, "/no/such/model"),
        (("score", "/no/such/file"), 2, "/no/such/file"),
        (("tokenize", "--decode", "9999"), 2, "9999"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, tuple) else "",
)
def test_what_is_wrong_is_told_in_one_line(run, tiny, words, code, told):
    model = () if "--model" in words else ("--model", tiny)
    done = run(*words, *model)
    assert done.code == code
    assert done.out.strip() == ""
    assert done.err.startswith("fabula: ")
    assert told in done.err
    assert done.err.count("\n") == 1


def test_a_damaged_file_is_a_model_file_error(run, tiny, tmp_path: Path):
    file = tmp_path / "damaged.gguf"
    file.write_bytes(b"GGUF" + bytes(20))
    done = run("info", str(file))
    assert (done.code, done.out) == (3, "")
    assert "damaged.gguf" in done.err


def test_chat_keeps_what_was_said(run, tiny, tmp_path: Path):
    file = tmp_path / "talk.json"
    typed = f"hello\n/system be brief\nagain\n/save {file}\n/bye\nnever read\n"
    done = run("chat", "-m", tiny, "--max-new-tokens", "8", "--do-sample", "--seed", "1", typed=typed)
    assert done.code == 0
    messages = json.loads(file.read_text())["messages"]
    assert [message["role"] for message in messages] == ["system", "user", "assistant", "user", "assistant"]
    assert messages[3]["content"] == "again"
    assert messages[2]["content"] in done.out


def test_chat_in_a_pipe_ends_with_the_code_of_its_error(run, tiny):
    done = run("chat", "-m", tiny, typed="/set warmth 1\nhello\n")
    assert done.code == 2
    assert "warmth" in done.err


def test_tokenize_and_back(run, tiny):
    assert run("tokenize", "-m", tiny, "hi", "--ids").out == "104 105\n"
    assert run("tokenize", "-m", tiny, "hi", "--count").out == "2\n"
    assert json.loads(run("tokenize", "-m", tiny, "hi", "--json").out) == {"ids": [104, 105], "tokens": ["h", "i"]}
    assert run("tokenize", "-m", tiny, "--decode", "104, 105").out == "hi\n"
    assert [line.split()[0] for line in run("tokenize", "-m", tiny, "hi").out.splitlines()] == ["104", "105"]


def test_info_counts_what_is_in_the_files(run, tiny):
    facts = json.loads(run("info", tiny, "--json").out)
    model = fabula.AutoModelForCausalLM.from_pretrained(tiny)
    assert facts["architecture"] == "llama"
    assert facts["parameters"] == model.num_parameters()
    assert facts["weight_bytes"] == 4 * facts["parameters"]
    assert facts["chat_template"] is True
    assert "llama" in run("info", tiny).out


def test_info_of_a_model_whose_positions_have_no_end(run, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "t5", "d_model": 16, "d_kv": 4, "num_heads": 2}))
    save_file({"shared.weight": np.zeros((5, 16), np.float32)}, tmp_path / "model.safetensors")
    facts = json.loads(run("info", str(tmp_path), "--json").out)
    assert (facts["architecture"], facts["context"], facts["cache_bytes_full_context"]) == ("t5", None, None)
    assert facts["memory_bytes_at_4096_tokens"] == 5 * 16 * 4 + 4096 * facts["cache_bytes_a_token"]


def test_info_without_a_source_is_about_this_machine(run):
    facts = json.loads(run("info", "--json").out)
    assert facts["fabula"] == fabula.__version__
    assert "numpy" in facts["packages"]


def test_score_is_the_mean_of_the_models_own_log_probabilities(run, tiny, tmp_path: Path):
    file = tmp_path / "text.txt"
    file.write_text("The quick brown fox jumps over the lazy dog.")
    facts = json.loads(run("score", str(file), "-m", tiny, "--json").out)
    assert facts["tokens"] == 43
    assert 1 < facts["perplexity"] < 10_000
    piped = run("score", "-m", tiny, "--json", typed=file.read_text())
    assert json.loads(piped.out) == facts


def test_pull_prints_the_path_and_nothing_else(run, tiny):
    done = run("pull", tiny)
    assert (done.code, done.out) == (0, tiny + "\n")
