"""Runs the Python of a document and writes what each example prints in the ```text block below it.

    python docs/show_outputs.py docs/generation.md

An example whose output is not shown in the document has no such block, and gets none.
"""

from __future__ import annotations

import re
import sys
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

EXAMPLE = re.compile(r"(?P<code>^```python\n(?P<source>.*?)^```\n)(?P<shown>\n?^```text\n.*?^```\n)?", re.M | re.S)


def with_outputs(text: str) -> str:
    """The document with every output as it is now. Its examples share their names, from top to bottom."""
    names: dict[str, object] = {}

    def again(example: re.Match[str]) -> str:
        printed = _printed(example["source"], names)
        return example["code"] + (f"\n```text\n{printed}```\n" if example["shown"] and printed else "")

    return EXAMPLE.sub(again, text)


def _printed(source: str, names: dict[str, object]) -> str:
    with redirect_stdout(StringIO()) as printed:
        exec(source, names)
    lines = [line.rstrip() for line in printed.getvalue().splitlines()]
    return "".join(f"{line}\n" for line in lines)


def main() -> None:
    """Writes the documents named on the command line again."""
    for name in sys.argv[1:]:
        document = Path(name)
        document.write_text(with_outputs(document.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
