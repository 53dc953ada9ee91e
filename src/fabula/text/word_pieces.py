"""The spaces that WordPiece decoding leaves before punctuation, and their removal."""

from __future__ import annotations

# Replaced one after another, as transformers does.
_ARTIFACTS = (
    (" .", "."), (" ?", "?"), (" !", "!"), (" ,", ","), (" ' ", "'"), (" n't", "n't"), (" 'm", "'m"), (" 's", "'s"),
    (" 've", "'ve"), (" 're", "'re"),
)  # fmt: skip
LONGEST_ARTIFACT = 8  # characters at the end of a text that later text may still change: "do n ' t"


def clean_up(text: str) -> str:
    """`text` without the spaces before punctuation and English contractions."""
    for artifact, meant in _ARTIFACTS:
        text = text.replace(artifact, meant)
    return text
