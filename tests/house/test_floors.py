"""Imports go straight down: frameworks only in files that bear their name, nothing imported late to dodge a cycle.

The order of the floors themselves is import-linter's contract in pyproject.toml, which `make lint` checks.
"""

from __future__ import annotations

import ast
from pathlib import Path

from .sources import PACKAGE, imports_of, name_of, package_files, tree_of

# What may be imported only in files that bear the name.
FRAMEWORKS = {
    "torch": {"torch", "transformers"},  # a model of transformers is a torch module
    "triton": {"torch"},
    "jax": {"jax"},
    "jaxlib": {"jax"},
    "flax": {"jax"},
    "optax": {"jax"},
    "tensorflow": {"tensorflow"},
    "keras": {"tensorflow"},
    "transformers": {"transformers"},
    "ray": {"ray"},
}


def bears(file: Path, names: set[str]) -> bool:
    """Whether the file, or a folder of the package it lies in, is named after one of the frameworks."""
    parts = file.relative_to(PACKAGE).with_suffix("").parts
    return any(part == name or part.startswith(name + "_") for part in parts for name in names)


def test_frameworks_are_imported_only_in_files_that_bear_their_name():
    strangers = [
        f"{name_of(file)}: {module}"
        for file in package_files()
        for _, module in imports_of(tree_of(file))
        if (names := FRAMEWORKS.get(module.split(".")[0])) and not bears(file, names)
    ]
    assert not strangers


def test_no_function_imports_fabula_to_dodge_a_cycle():
    late = [
        f"{name_of(file)}:{statement.lineno}: {module}"
        for file in package_files()
        for function in ast.walk(tree_of(file))
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for statement, module in imports_of(function)
        if module.split(".")[0] == "fabula"
    ]
    assert not late


def test_imports_name_their_module_in_full():
    relative = [
        f"{name_of(file)}:{node.lineno}"
        for file in package_files()
        for node in ast.walk(tree_of(file))
        if isinstance(node, ast.ImportFrom) and node.level > 0
    ]
    assert not relative
