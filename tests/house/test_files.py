"""A file is one idea, says it on its first line, bears a name that means something, and is short."""

from __future__ import annotations

import ast
import getpass

from .sources import ROOT, name_of, package_files, python_files, text_files, tree_of

LONGEST_FILE = 400
LONGEST_FUNCTION = 60
EMPTY_NAMES = {"utils", "util", "helpers", "helper", "common", "misc", "base", "manager", "handler"}


def test_files_are_short():
    lengths = {name_of(file): len(file.read_text(encoding="utf-8").splitlines()) for file in python_files()}
    assert {name: length for name, length in lengths.items() if length > LONGEST_FILE} == {}


def test_functions_are_short():
    lengths = {
        f"{name_of(file)}:{node.name}": (node.end_lineno or 0) - node.lineno + 1
        for file in package_files()
        for node in ast.walk(tree_of(file))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert {name: length for name, length in lengths.items() if length > LONGEST_FUNCTION} == {}


def test_names_of_files_and_folders_say_what_is_inside():
    empty = [
        name_of(file)
        for file in python_files()
        if EMPTY_NAMES & {word for part in file.relative_to(ROOT).with_suffix("").parts for word in part.split("_")}
    ]
    assert not empty


def test_every_folder_of_the_package_is_a_package_that_says_what_it_is():
    assert [name_of(file) for file in package_files() if not (file.parent / "__init__.py").exists()] == []


def test_the_first_line_of_a_file_says_what_it_is():
    silent = []
    for file in package_files():
        text = file.read_text(encoding="utf-8")
        docstring = ast.get_docstring(tree_of(file))
        first = (docstring or "").partition("\n")[0]
        if not text.startswith('"""') or not first.endswith((".", ":")):
            silent.append(name_of(file))
    assert not silent


def test_no_file_names_a_place_on_somebodys_machine():
    places = {str(ROOT), "/".join(["", "home", getpass.getuser(), ""]), "/".join(["", "Users", ""])}
    told = {name_of(file): file.read_text(encoding="utf-8") for file in text_files()}
    assert {name for name, text in told.items() if any(place in text for place in places)} == set()
