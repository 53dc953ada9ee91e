"""How a byte-level vocabulary cuts text before its merges: the names in `tokenizer.ggml.pre` and their patterns.

A vocabulary's merges were learned on pieces of one cut, so the same cut is part of its definition. The patterns are
applied one after another, each to the pieces that the one before left.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from tokenizers import Regex, normalizers, pre_tokenizers

from fabula.errors import ModelFileError

_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_CONTRACTION = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_LLAMA3_TAIL = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_LLAMA3 = _CONTRACTION + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}" + _LLAMA3_TAIL
_QWEN2 = _CONTRACTION + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}" + _LLAMA3_TAIL
_QWEN35 = (
    _CONTRACTION
    + r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*"
    + (r"|\s*[\r\n]+|\s+(?!\S)|\s+")
)
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_CASED_TAIL = r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_TEKKEN = rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*|\p{{N}}" + _CASED_TAIL
_GPT4O = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+{_CONTRACTION}?|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*{_CONTRACTION}?"
    r"|\p{N}{1,3}" + _CASED_TAIL
)
_DIGIT = r"\p{N}"
_IDEOGRAPHS = r"[一-龥ࠀ-一가-퟿]+"


@dataclass(frozen=True)
class Cut:
    """One way to cut text, and what else the vocabularies that name it have in common."""

    patterns: tuple[str, ...]  # Oniguruma patterns; every match and every gap is a piece
    composed: bool = False  # text is brought to NFC first
    whole_words: bool = False  # a piece that is a token is taken as it is, without merging
    starts_text: bool = False  # the beginning-of-text token is added where the file does not say


_GPT2_CUT = Cut((_GPT2,))
_DIGITS_CUT = Cut((_DIGIT, _GPT2))
_LLAMA3_CUT = Cut((_LLAMA3,), whole_words=True, starts_text=True)
_QWEN2_CUT = Cut((_QWEN2,), composed=True)
_GPT4O_CUT = Cut((_GPT4O,))

CUTS: Mapping[str, Cut] = MappingProxyType(
    {
        **dict.fromkeys(
            ("default", "gpt-2", "gpt2", "phi-2", "mpt", "olmo", "jais", "roberta-bpe", "trillion", "mellum",
             "modern-bert", "granite-docling", "jina-v1-en", "jina-v2-es", "jina-v2-de", "jina-v2-code", "gigachat",
             "a.x-4.0", "exaone4"),
            _GPT2_CUT,
        ),
        **dict.fromkeys(
            ("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"), _DIGITS_CUT
        ),
        **dict.fromkeys(
            ("llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2"), _LLAMA3_CUT
        ),
        **dict.fromkeys(("dbrx", "smaug-bpe", "glm4", "chatglm-bpe"), Cut((_LLAMA3,))),
        **dict.fromkeys(("qwen2",), _QWEN2_CUT),
        **dict.fromkeys(("deepseek-r1-qwen", "stablelm2", "kormo", "megrez", "hunyuan", "f2llmv2"), Cut((_QWEN2,))),
        "qwen35": Cut((_QWEN35,), composed=True),
        **dict.fromkeys(("gpt-4o", "llama4", "kanana2", "minimax-m2"), _GPT4O_CUT),
        "tekken": Cut((_TEKKEN,), whole_words=True, starts_text=True),
        "falcon": Cut((r"[\p{P}\$\+<=>\^~\|`]+", _GPT2, r"[0-9][0-9][0-9]")),
        "deepseek-coder": Cut((r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", _IDEOGRAPHS, _DIGIT)),
        **dict.fromkeys(
            ("deepseek-v3", "hunyuan-dense"),
            Cut(
                (
                    r"\p{N}{1,3}",
                    r"[一-龥\u3040-ゟ゠-ヿ]+",
                    r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"""
                    r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
                )
            ),
        ),
        **dict.fromkeys(("poro-chat", "bloom", "gpt3-finnish"), Cut((r" ?[^(\s|.,!?…。，、।۔،)]+",))),
        "viking": Cut((r" ?[^(\s|.,!?…。，、।۔،)]+", r"\p{N}")),
    }
)  # fmt: skip


def find_cut(name: str, source: str) -> Cut:
    """The cut called `name`; raises ModelFileError for one that is not known, as a guess would give wrong ids."""
    if name not in CUTS:
        raise ModelFileError(
            f"`tokenizer.ggml.pre` of {source} must be a known pre-tokenizer, got {name!r}. Known: "
            f"{', '.join(sorted(CUTS))}. Load the model from its Hugging Face directory, whose tokenizer.json says it."
        )
    return CUTS[name]


def cutter(cut: Cut) -> pre_tokenizers.PreTokenizer:
    """The pre-tokenizer that cuts like `cut`, then spells the pieces' bytes in the byte alphabet."""
    if cut is _GPT2_CUT:
        return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    if cut is _DIGITS_CUT:
        digits = pre_tokenizers.Digits(individual_digits=True)
        return pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)])
    splits = [pre_tokenizers.Split(Regex(pattern), behavior="isolated") for pattern in cut.patterns]
    return pre_tokenizers.Sequence([*splits, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def composer(cut: Cut) -> normalizers.Normalizer | None:
    """The normalizer that `cut` asks for."""
    return normalizers.NFC() if cut.composed else None
