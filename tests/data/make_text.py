"""Writes text.json.gz: 12,000 texts on which tokenizers are compared. Seeded: the same file from every run.

Prose of the public domain (text_prose.txt) and generated texts in equal shares: scripts, code, emoji, white space,
special tokens, numbers, marks and controls. Run `python tests/data/make_text.py` after a change.
"""

from __future__ import annotations

import gzip
import json
import unicodedata
from collections.abc import Callable
from pathlib import Path
from random import Random

HERE = Path(__file__).parent
COUNT = 12_000
SCRIPTS = (
    (0x41, 0x5A), (0x61, 0x7A), (0xC0, 0x24F), (0x250, 0x2AF), (0x370, 0x3FF), (0x400, 0x52F), (0x531, 0x58F),
    (0x5D0, 0x5EA), (0x620, 0x6FF), (0x700, 0x74F), (0x780, 0x7B1), (0x900, 0x97F), (0x980, 0x9FE), (0xA01, 0xA76),
    (0xB80, 0xBFA), (0xC00, 0xC7F), (0xD00, 0xD7F), (0xE01, 0xE5B), (0xE81, 0xEDF), (0xF00, 0xFDA), (0x1000, 0x109F),
    (0x10A0, 0x10FF), (0x1100, 0x11FF), (0x1200, 0x137F), (0x13A0, 0x13FD), (0x1400, 0x167F), (0x1780, 0x17F9),
    (0x1800, 0x18AA), (0x1E00, 0x1FFF), (0x2C00, 0x2C5F), (0x3041, 0x30FF), (0x3105, 0x312F), (0x4E00, 0x9FFF),
    (0xA000, 0xA48C), (0xAC00, 0xD7A3), (0x10330, 0x1034A), (0x12000, 0x120FF), (0x13000, 0x1342E), (0x1D400, 0x1D7FF),
    (0x20000, 0x2A6D6),
)  # fmt: skip
SYMBOLS = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~¡¢£¤¥¦§¨©«¬®¯°±´¶·»¿×÷–—‘’“”„†‡•…‰′″‹›€™←↑→↓∀∂∃∅∇∈∑−√∞∫≈≠≤≥①②③■□▲△★☆♠♣♥♦♪"
SPACES = (
    " ", "  ", "   ", "    ", "\t", "\t\t", "\n", "\n\n", "\n\n\n", "\r\n", "\r", "\u00a0", "\u2003", "\u2009",
    "\u3000", "\u200b", "\u2028", "\x0b", "\x0c", " \n", "\n ", "\t ", " \t", "\ufeff", "\u202f", "\u180e", "\x85",
)  # fmt: skip
_EMOJI_PARTS = (
    "😀 😂 🥹 👍 👍🏽 👩+💻 👨+👩+👧+👦 🏳\ufe0f+🌈 🇩🇪 🇯🇵 ❤\ufe0f ❤ ☺\ufe0f 🧑🏿+🚀 🫠 🪿 1\ufe0f\u20e3 "
    "#\ufe0f\u20e3 🏴+☠\ufe0f ⌚ 🀄 🈶 🅰\ufe0f ♾\ufe0f 🕶 🐈+⬛ 🧙+♂\ufe0f 🤌🏻"
)
EMOJI = tuple(_EMOJI_PARTS.replace("+", "\u200d").split())
SPECIAL = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<repo_name>", "<file_sep>", "<jupyter_output>", "<empty_output>",
    "<bos>", "<eos>", "<pad>", "<unk>", "<mask>", "<start_of_turn>", "<end_of_turn>", "<unused0>", "<unused99>",
    "[multimodal]", "<start_of_image>", "<table>", "</table>", "<h1>", "</h1>", "<code>", "<b>", "</b>", "<s>", "</s>",
    "[INST]", "[/INST]", "<|eot_id|>", "▁", "▁▁", "Ġ", "Ċ", "<0x0A>", "<0xE2>", "<|im_start", "|im_end|>", "<bos", "Ã©",
)  # fmt: skip
_WORDS = """
the of and to in is it's I'm we'll they've don't DON'T can't John's O'Neill x y z self return HTTP JSON utf8 naïve
café cafe\u0301 Zürich straße ΑΒΓ мир 東京 emoji co-operate e.g. i.e. U.S.A. www.example.org a@b.c #tag @name
C++ C# F# .NET Node.js node_modules __init__ snake_case camelCase PascalCase SCREAMING_SNAKE kebab-case 42nd 1st
"""
WORDS = tuple(_WORDS.split())
CODE = (
    "def {a}({b}, {c}=None):\n    \"\"\"{d}\"\"\"\n    return {b} + {c}[{n}:{m}]\n",
    "for (int {a} = {n}; {a} < {m}; {a}++) {{\n\tprintf(\"%d\\n\", {b}[{a}]);\n}}\n",
    "const {a} = async ({b}) => {{ await {c}.{d}(`${{{b}}}:{n}`); }};",
    "SELECT {a}, COUNT(*) FROM {b} WHERE {c} >= {n}.{m} GROUP BY {a} ORDER BY 2 DESC;",
    "<div class=\"{a}\" id='{b}'>\n  <a href=\"https://{c}.org/{d}?q={n}&p={m}\">{a}</a>\n</div>",
    "{{\"{a}\": [{n}, {m}, null, true], \"{b}\": {{\"{c}\": \"{d}\"}}}}",
    "#include <{a}.h>\n#define {b} (({n}) << {m})\nstruct {c} {{ uint8_t {d}[{n}]; }};",
    "if [ -z \"${a}\" ]; then\n\techo \"{b}: {c}\" >&2; exit {n}\nfi | grep -E '^{d}+$'",
    "fn {a}<'{b}>({c}: &'{b} str) -> Option<u{n}> {{ {c}.parse().ok() }}",
    "## {a}\n\n- **{b}** _{c}_ `{d}`\n- [ ] {n}. {m}\n\n| {a} | {b} |\n|---|---:|\n| {n} | {m} |\n",
    "\\frac{{{a}}}{{{b}}} = \\sum_{{{c}={n}}}^{{{m}}} \\alpha_{{{c}}} \\cdot {d}^2 % {a}",
    "{a}:\n  - {b}: {n}\n    {c}: \"{d}\"\n  -   {a}: |\n        {b}\n",
)  # fmt: skip


def word(random: Random) -> str:
    """A word of one script, of assigned characters."""
    low, high = random.choice(SCRIPTS)
    letters = [chr(random.randint(low, high)) for _ in range(random.randint(1, 9))]
    return "".join(letter for letter in letters if unicodedata.category(letter) != "Cn")


def prose(random: Random, lines: list[str]) -> str:
    """A line, or a part of one that may start inside a word."""
    line = random.choice(lines)
    start = random.choice((0, random.randrange(len(line))))
    return line[start : start + random.randint(1, 300)]


def scripts(random: Random, lines: list[str]) -> str:
    """Words of several scripts."""
    return random.choice((" ", " ", "", ", ")).join(word(random) for _ in range(random.randint(1, 12)))


def code(random: Random, lines: list[str]) -> str:
    """A snippet, sometimes deeply indented."""
    names = {key: random.choice((*WORDS[:30], f"v{random.randint(0, 99)}", word(random))) for key in "abcd"}
    text = random.choice(CODE).format(**names, n=random.randint(0, 9999), m=random.randint(0, 10**9))
    return text.replace("\n", "\n" + random.choice((" " * random.randint(0, 40), "\t" * random.randint(0, 12))))


def mixed(pool: tuple[str, ...]) -> Callable[[Random, list[str]], str]:
    """Words with items of `pool` between them, with and without spaces."""

    def make(random: Random, lines: list[str]) -> str:
        parts = []
        for _ in range(random.randint(1, 10)):
            parts.append(random.choice((random.choice(WORDS), random.choice(pool), random.choice(pool), word(random))))
            parts.append(random.choice(("", "", " ")))
        return "".join(parts)

    return make


def numbers(random: Random, lines: list[str]) -> str:
    """Digits of several kinds, with white space, signs and units around them."""
    parts = []
    for _ in range(random.randint(1, 8)):
        digits = str(random.randrange(10 ** random.randint(1, 18)))
        parts.append(
            random.choice((digits, f"{int(digits):,}", f"{int(digits) / 1000}", "٣٤٥", "１２３", "Ⅻ", "½", "²", "१२३"))
        )
        parts.append(random.choice(("", " ", "  ", "\n", "%", "€", "km", " +", "-", ":", "/", "\t")))
    return "".join(parts)


def marks(random: Random, lines: list[str]) -> str:
    """Combining marks, controls, private and unassigned characters, and symbols."""
    ranges = (
        (0x300, 0x36F),
        (0x1, 0x1F),
        (0x7F, 0x9F),
        (0xE000, 0xE0FF),
        (0xFE00, 0xFE0F),
        (0xFFF0, 0xFFFF),
        (0x378, 0x379),
    )
    parts = []
    for _ in range(random.randint(1, 15)):
        low, high = random.choice(ranges)
        parts.append(
            random.choice((chr(random.randint(low, high)), random.choice(SYMBOLS), random.choice(WORDS), "e", " "))
        )
    return "".join(parts)


def runs(random: Random, lines: list[str]) -> str:
    """The same few characters again and again."""
    piece = random.choice((*SPACES, *SYMBOLS, *EMOJI, "a", "ab", "ha", "0", "のの", "=-"))
    return random.choice(("", "x", " ")) + piece * random.randint(2, 70) + random.choice(("", "x", " x", "\n"))


def decomposed(random: Random, lines: list[str]) -> str:
    """Prose in another normal form."""
    return unicodedata.normalize(random.choice(("NFD", "NFKD", "NFC")), prose(random, lines))


KINDS = (
    prose, prose, decomposed, scripts, code, numbers, marks, runs, mixed(EMOJI), mixed(SPACES), mixed(SPECIAL),
    mixed(tuple(SYMBOLS)),
)  # fmt: skip


def texts() -> list[str]:
    """All texts; each kind in turn."""
    random = Random(20_240_607)
    lines = (HERE / "text_prose.txt").read_text(encoding="utf-8").splitlines()
    made = [KINDS[place % len(KINDS)](random, lines) for place in range(COUNT)]
    return [text.encode("utf-8", "ignore").decode() for text in made]


if __name__ == "__main__":
    data = json.dumps(texts(), ensure_ascii=False, indent=0).encode()
    (HERE / "text.json.gz").write_bytes(gzip.compress(data, 9, mtime=0))
