"""What the documents show works: Python is run, commands are parsed, links lead somewhere."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from fabula.cli.main import hyphenated, parser_for

from .sources import ROOT, name_of

DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)#:]+)\)")


def blocks(document: Path, language: str) -> list[str]:
    return [text for kind, text in BLOCK.findall(document.read_text(encoding="utf-8")) if kind == language]


def commands(document: Path) -> list[str]:
    return [line for block in blocks(document, "sh") for line in block.splitlines() if line.strip()]


@pytest.mark.parametrize("document", [one for one in DOCUMENTS if blocks(one, "python")], ids=name_of)
@pytest.mark.usefixtures("smollm2_gguf")
def test_the_python_of_a_document_runs_from_top_to_bottom(document: Path):
    names: dict[str, object] = {}
    for block in blocks(document, "python"):
        exec(compile(block, name_of(document), "exec"), names)


@pytest.mark.parametrize(
    "line", [line for document in DOCUMENTS for line in commands(document) if "fabula " in line and "pip" not in line]
)
def test_the_commands_of_a_document_are_ones_that_exist(line: str):
    words = shlex.split(line.split(" | ")[-1], comments=True)
    assert words.pop(0) == "fabula"
    words = [hyphenated(word) for word in words]
    assert parser_for(words).parse_args(words).command == words[0]


@pytest.mark.parametrize(
    "line", [line for document in DOCUMENTS for line in commands(document) if line.startswith("make ")]
)
def test_the_make_targets_of_a_document_exist(line: str):
    target = shlex.split(line, comments=True)[1]
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_the_links_of_a_document_lead_somewhere(document: Path):
    links = LINK.findall(document.read_text(encoding="utf-8"))
    assert [link for link in links if not (document.parent / link).exists()] == []
