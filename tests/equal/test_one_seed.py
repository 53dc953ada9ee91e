"""One seed, one text: alone, in any batch, streamed or not, in Python and on the command line."""

import json

import pytest

from fabula import AutoModelForCausalLM, AutoTokenizer, TextIteratorStreamer
from fabula.cli.main import main
from fabula.testing.tiny_model import write_tiny_model

PROMPT = "Once upon a time"
SETTINGS = {
    "do_sample": True,
    "seed": 11,
    "max_new_tokens": 24,
    "temperature": 0.9,
    "top_p": 0.95,
    "min_new_tokens": 24,
}


@pytest.fixture(params=["float", "packed"])
def source(request, tmp_path):
    if request.param == "float":
        return str(write_tiny_model(tmp_path / "tiny"))
    return str(request.getfixturevalue("smollm2_gguf"))


def test_a_seeded_text_is_the_same_everywhere(source, capsys):
    model, tokenizer = AutoModelForCausalLM.from_pretrained(source), AutoTokenizer.from_pretrained(source)
    ids = tokenizer.encode(PROMPT)
    alone = model.generate([ids], **SETTINGS)[0][len(ids) :]
    others = [tokenizer.encode(text) for text in ("A", "Something else, and longer than that", "3, 2, 1")]
    for batch, seeds in (([ids, *others], [11, 1, 2, 3]), ([*others, ids], [5, 6, 7, 11])):
        rows = model.generate(batch, **{**SETTINGS, "seed": seeds})
        row = rows[batch.index(ids)]
        assert row[len(ids) :] == alone
    streamer = TextIteratorStreamer(tokenizer, skip_prompt=True)
    model.generate([ids], streamer=streamer, **SETTINGS)
    assert "".join(streamer) == tokenizer.decode(alone)
    flags = ["--do-sample", "--seed", "11", "--max-new-tokens", "24", "--temperature", "0.9", "--top-p", "0.95"]
    assert main(["generate", PROMPT, "--model", source, "--json", "--min-new-tokens", "24", *flags]) == 0
    assert json.loads(capsys.readouterr().out)["ids"] == alone


def test_a_greedy_row_is_bit_identical_whatever_shares_its_batch(source):
    model, tokenizer = AutoModelForCausalLM.from_pretrained(source), AutoTokenizer.from_pretrained(source)
    settings = {"max_new_tokens": 12, "output_logits": True, "return_dict_in_generate": True, "eos_token_id": None}
    ids = tokenizer.encode(PROMPT)
    others = [tokenizer.encode(text) for text in ("A", "Something else, and longer than that" * 5)]
    alone = model.generate([ids], **settings)
    together = model.generate([others[0], ids, others[1]], **settings)
    assert all((a[0] == b[1]).all() for a, b in zip(alone.logits, together.logits, strict=True))
