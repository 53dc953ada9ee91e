"""The page of models says what was tried, and what became of it."""

from __future__ import annotations

import re

from tests.interop.page import page
from tests.interop.table import PAGE, attempt
from tests.interop.tiny_models import CAUSAL, SEQ2SEQ, model_types

ROW = re.compile(r"^\| ([^|]+) \| ([^|]+) \| ([^|]+) \| .* \|$", re.MULTILINE)


def test_at_least_nine_of_ten_classes_that_can_be_built_pass():
    rows = [row for row in ROW.findall(PAGE.read_text(encoding="utf-8")) if row[0] != "model type"]
    assert len(rows) > 200
    built = [row for row in rows if row[2] != "not built"]
    assert sum(row[2] == "passes" for row in built) >= 0.9 * len(built)


def test_a_page_counts_what_passes_and_says_why_others_do_not():
    rows = [
        {"mapping": CAUSAL, "kind": "a", "class": "A", "status": "passes", "cache": "own", "padding": "none"},
        {"mapping": CAUSAL, "kind": "b", "class": "B", "status": "differs", "reason": "[1|2]"},
        {"mapping": SEQ2SEQ, "kind": "c", "class": "C", "status": "not built", "reason": "too large"},
    ]
    text = page(rows)
    assert "**1 of the 2 classes that can be built from a small configuration pass (50%)**" in text
    assert "| a | A | passes | the model's own cache, rows of one length together |" in text
    assert r"| b | B | differs | [1\|2] |" in text
    assert "| c | C | not built | too large |" in text
    assert f"{len(model_types(CAUSAL)) + len(model_types(SEQ2SEQ)) - 3} of them not tried yet" in text


def test_an_attempt_says_what_went_wrong():
    assert attempt("no such type", CAUSAL)["status"] == "not built"
