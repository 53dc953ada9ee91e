"""Small tokenizers trained on the spot, one of each kind that Hugging Face directories hold."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from .conftest import DATA


def prose() -> list[str]:
    return (DATA / "text_prose.txt").read_text(encoding="utf-8").splitlines()


def byte_level() -> Tokenizer:
    """As GPT-2, Llama 3 and Qwen."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(prose(), trainers.BpeTrainer(vocab_size=900, initial_alphabet=alphabet))
    tokenizer.add_special_tokens(["<|start|>", "<|end|>"])
    return tokenizer


def sentencepiece() -> Tokenizer:
    """As Llama 2 and Mistral: "▁" for spaces, a prefix space, byte fallback, bos."""
    trainer = trainers.BpeTrainer(
        vocab_size=1200, special_tokens=["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))],
        limit_alphabet=80,
    )  # fmt: skip
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.train_from_iterator(prose(), trainer)
    state = json.loads(tokenizer.to_str())
    state["added_tokens"] = [token for token in state["added_tokens"] if token["id"] < 3]
    tokenizer = Tokenizer.from_str(json.dumps(state))
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    tokenizer.decoder = decoders.Sequence(steps)
    tokenizer.post_processor = processors.TemplateProcessing("<s> $A", "<s> $A <s> $B", [("<s>", 1)])
    return tokenizer


def unigram() -> Tokenizer:
    """As T5: pieces with probabilities, Metaspace."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    special = ["<pad>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(vocab_size=900, special_tokens=special, unk_token="<unk>", show_progress=False)
    tokenizer.train_from_iterator(prose(), trainer)
    tokenizer.post_processor = processors.TemplateProcessing("$A </s>", "$A </s> $B </s>", [("</s>", 1)])
    return tokenizer


def word_piece() -> Tokenizer:
    """As BERT."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(cleanup=False)
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer.train_from_iterator(prose(), trainers.WordPieceTrainer(vocab_size=900, special_tokens=special))
    tokenizer.post_processor = processors.TemplateProcessing(
        "[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1", [("[CLS]", 2), ("[SEP]", 3)]
    )
    return tokenizer


# Kind -> (how it is trained, tokenizer_config.json, special_tokens_map.json)
KINDS: dict[str, tuple[Callable[[], Tokenizer], dict, dict | None]] = {
    "byte-level": (
        byte_level,
        {
            "bos_token": "<|start|>", "eos_token": {"__type": "AddedToken", "content": "<|end|>", "special": True},
            "model_max_length": 512, "padding_side": "left", "chat_template": "{{ messages[0].content }}",
            "extra_special_tokens": ["<|start|>"], "clean_up_tokenization_spaces": False, "add_bos_token": True,
            "added_tokens_decoder": {
                "902": {"content": "<tool>", "special": False, "normalized": False, "lstrip": False, "rstrip": True,
                        "single_word": False},
            },
        },
        None,
    ),
    "sentencepiece": (sentencepiece, {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}, None),
    "unigram": (unigram, {}, {"eos_token": "</s>", "unk_token": {"content": "<unk>"}, "pad_token": "<pad>"}),
    "word-piece": (
        word_piece,
        {
            "cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]", "unk_token": "[UNK]",
            "mask_token": "[MASK]", "clean_up_tokenization_spaces": True,
            "model_input_names": ["input_ids", "token_type_ids", "attention_mask"],
        },
        None,
    ),
}  # fmt: skip


def write(kind: str, directory: Path) -> Path:
    """A Hugging Face directory with a tokenizer of that kind, whose class in transformers is the general one."""
    train, config, special = KINDS[kind]
    tokenizer = train()
    tokenizer.add_tokens([AddedToken("<think>", special=False, normalized=False)])
    directory.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(directory / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", **config}
    (directory / "tokenizer_config.json").write_text(json.dumps(config))
    if special is not None:
        (directory / "special_tokens_map.json").write_text(json.dumps(special))
    return directory
