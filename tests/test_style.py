"""What a reader may rely on in every source file: short functions, a docstring a module, nothing left to do."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
FOLDERS = ("src", "ext", "tests", "bench", "examples", "docs")
SUFFIXES = (".py", ".pyx", ".pxd", ".pyi", ".h", ".md")
FILES = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*")) if path.suffix in SUFFIXES]
PYTHON = [path for path in FILES if path.suffix == ".py"]
LONGEST_FUNCTION = 50  # lines, for 95 of 100 functions
LARGEST_FILE = 200_000  # bytes
# In pieces, so that this file does not contain what it looks for.
UNFINISHED = re.compile(r"\b(TO" r"DO|FIX" r"ME)\b")
WORKPLACE = re.compile(r"(?<![\w.])/(wo" r"rk|ro" r"ot|ho" r"me)/")


def matches(pattern: re.Pattern[str]) -> list[str]:
    """The files in which `pattern` occurs, relative to the repository."""
    return [str(path.relative_to(ROOT)) for path in FILES if pattern.search(path.read_text(encoding="utf-8"))]


def test_there_are_files_to_look_at() -> None:
    assert {path.suffix for path in FILES} >= {".py", ".pyx", ".pyi", ".md"}


def test_functions_stay_short() -> None:
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    nodes = [node for path in PYTHON for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))]
    lengths = [(node.end_lineno or node.lineno) - node.lineno + 1 for node in nodes if isinstance(node, kinds)]
    short = sum(length <= LONGEST_FUNCTION for length in lengths)
    assert short >= 0.95 * len(lengths)


def test_every_module_has_a_docstring() -> None:
    modules = [path for path in PYTHON if path.is_relative_to(ROOT / "src")]
    bare = [path.name for path in modules if not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))]
    assert modules and not bare


def test_nothing_is_left_to_do() -> None:
    assert matches(UNFINISHED) == []


def test_files_stay_small() -> None:
    """Results and pictures too: what a script can make again is not kept whole."""
    ignored = {".so", ".pyc", ".c"}
    every = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.is_file()]
    assert [str(path) for path in every if path.suffix not in ignored and path.stat().st_size > LARGEST_FILE] == []


def test_no_paths_of_one_machine() -> None:
    assert matches(WORKPLACE) == []
