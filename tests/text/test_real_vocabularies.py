"""The two real models' tokenizers, read from GGUF metadata, against transformers and llama.cpp on 12,000 texts."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import pytest
import tokenizers

from fabula.text.byte_level import byte_alphabet
from fabula.text.tokenizer import Tokenizer

from .conftest import DATA


def converted(path: Path) -> tokenizers.Tokenizer:
    """What transformers makes of the file, by the function behind AutoTokenizer, which takes five times as long.

    AutoTokenizer then adds what encoding puts around a text.
    """
    mapping = pytest.importorskip("transformers.integrations.gguf", reason="transformers reads GGUF in another place")
    architecture, tokenizer, _ = mapping.get_gguf_tokenizer(str(path))
    return mapping.convert_gguf_tokenizer(architecture, tokenizer)[0]


def ids_of(backend: tokenizers.Tokenizer, texts: list[str]) -> list[list[int]]:
    return [encoding.ids for encoding in backend.encode_batch(texts)]


def test_gemma_ids_and_text_equal_those_of_transformers(gemma: Tokenizer, gemma_gguf: Path, texts: list[str]):
    backend = converted(gemma_gguf)
    ids = gemma(texts, add_special_tokens=False)["input_ids"]
    assert ids == ids_of(backend, texts)
    assert gemma(texts[:100])["input_ids"] == [[gemma.bos_token_id, *row] for row in ids[:100]]
    for skip in (False, True):
        assert gemma.batch_decode(ids, skip_special_tokens=skip) == backend.decode_batch(ids, skip_special_tokens=skip)


def test_smollm2_ids_and_text_equal_those_of_transformers(smollm2: Tokenizer, smollm2_gguf: Path, texts: list[str]):
    """With the cut that the file names.

    transformers 5.23 knows no `smollm` and cuts as GPT-2 does. The model's own tokenizer.json, which transformers
    reads where it has it, and llama.cpp cut each numeral off first. So the reference gets that pre-tokenizer here;
    without it, it differs only in texts where white space stands before a numeral.
    """
    backend = converted(smollm2_gguf)
    ids = smollm2(texts)["input_ids"]
    as_read = ids_of(backend, texts)
    different = [text for text, ours, theirs in zip(texts, ids, as_read, strict=True) if ours != theirs]
    assert len(different) < len(texts) // 20
    assert all(re.search(r"\s\s*", text) and any(letter.isnumeric() for letter in text) for text in different)
    digits = tokenizers.pre_tokenizers.Digits(individual_digits=True)
    byte_level = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=True, use_regex=True)
    backend.pre_tokenizer = tokenizers.pre_tokenizers.Sequence([digits, byte_level])
    assert ids == ids_of(backend, texts)
    for skip in (False, True):
        assert smollm2.batch_decode(ids, skip_special_tokens=skip) == backend.decode_batch(
            ids, skip_special_tokens=skip
        )


def test_smollm2_ids_equal_those_of_llama_cpp(smollm2: Tokenizer, texts: list[str]):
    """But for texts with a byte that has no token: both leave it out, llama.cpp after merging, transformers before."""
    vocabulary = smollm2.get_vocab()
    absent = {byte for byte, letter in byte_alphabet().items() if letter not in vocabulary}
    compared = [not absent.intersection(text.encode()) for text in texts]
    assert sum(compared) > 11_500
    assert digests(smollm2, texts, compared) == expected("smollm2")


def test_gemma_ids_equal_those_of_llama_cpp(gemma: Tokenizer, texts: list[str]):
    """But for runs of more than 31 spaces, which have no token and are put together from others in another way, and
    for a literal "▁", which the tokenizers library does not tell from a space."""
    compared = [" " * 32 not in text and "\u2581" not in text for text in texts]
    assert sum(compared) > 11_500
    assert digests(gemma, texts, compared) == expected("gemma")


def digests(tokenizer: Tokenizer, texts: list[str], compared: list[bool]) -> list[str]:
    """A digest of the ids of each hundred texts; see tests/data/make_text_reference.py."""
    rows = tokenizer(texts)["input_ids"]
    kept = [row if keep else [] for row, keep in zip(rows, compared, strict=True)]
    return [digest(kept[start : start + 100]) for start in range(0, len(kept), 100)]


def digest(rows: list[list[int]]) -> str:
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:16]


def expected(name: str) -> list[str]:
    return json.loads((DATA / "text_llama_cpp.json").read_text())[name]
