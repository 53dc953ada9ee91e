"""The repository's own files, as the house tests see them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "fabula"
FOLDERS = ("src", "tests", "bench", "docs", "examples", ".github", ".ci")
TEXT = {".py", ".md", ".toml", ".txt", ".yml", ".yaml", ".cpp", ".h", ".hpp", ".cfg", ""}


def python_files() -> list[Path]:
    """Every Python file of the package, the tests and the benchmarks."""
    return sorted(file for folder in FOLDERS for file in (ROOT / folder).rglob("*.py"))


def package_files() -> list[Path]:
    """Every Python file of the package."""
    return sorted(PACKAGE.rglob("*.py"))


def text_files() -> list[Path]:
    """Every text file that a reader of the repository may open, data files of tests aside."""
    below = (file for folder in FOLDERS for file in (ROOT / folder).rglob("*"))
    files = [file for file in (*below, *ROOT.iterdir()) if file.is_file() and file.suffix in TEXT]
    return sorted(file for file in files if "__pycache__" not in file.parts and "data" not in file.parts)


def name_of(file: Path) -> str:
    """The path as a reader says it: from the repository's root."""
    return file.relative_to(ROOT).as_posix()


def tree_of(file: Path) -> ast.Module:
    """The file's syntax tree."""
    return ast.parse(file.read_text(encoding="utf-8"), filename=str(file))


def imports_of(tree: ast.AST) -> Iterator[tuple[ast.AST, str]]:
    """Every import statement below a node, with the module it names."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node, alias.name
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            yield node, node.module
