"""`import fabula` is light, and its public names are where the table says."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import fabula

# What importing the package may bring in besides the standard library: nothing.
HEAVY = {
    "torch",
    "jax",
    "flax",
    "tensorflow",
    "transformers",
    "numpy",
    "tokenizers",
    "safetensors",
    "huggingface_hub",
    "jinja2",
}


def modules_after(statement: str) -> set[str]:
    """The top-level modules that a fresh interpreter holds after the statement."""
    program = f"{statement}\nimport sys\nprint(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(run.stdout.split())


def test_importing_fabula_imports_no_framework_and_no_dependency():
    assert modules_after("import fabula") & HEAVY == set()


def test_the_commands_parser_imports_no_framework():
    assert modules_after("import fabula.cli.main") & (HEAVY - {"numpy"}) == set()


@pytest.mark.parametrize("name", fabula.__all__)
def test_every_public_name_is_bound_on_first_use(name: str):
    assert getattr(fabula, name) is not None
    assert name in dir(fabula)


def test_type_checkers_see_the_same_names_in_the_same_modules():
    tree = ast.parse(Path(fabula.__file__).read_text(encoding="utf-8"))
    seen = {
        alias.asname: node.module
        for block in tree.body
        if isinstance(block, ast.If)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert seen == fabula._HOMES


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Nonsense'"):
        _ = fabula.Nonsense


def test_the_package_of_generation_has_the_names_that_it_has_in_transformers():
    from fabula.generation import GenerationMode, LogitsProcessor, TextStreamer

    assert (GenerationMode, LogitsProcessor, TextStreamer) == (
        fabula.GenerationMode,
        fabula.LogitsProcessor,
        fabula.TextStreamer,
    )
    with pytest.raises(ImportError, match="cannot import name 'Nothing'"):
        from fabula.generation import Nothing  # noqa: F401
