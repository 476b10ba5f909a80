"""What a reader may rely on in every source file: short functions, a docstring a module, nothing left to do."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
FOLDERS = ("src", "ext", "tests", "bench", "examples", "docs")
SUFFIXES = (".py", ".pyx", ".pxd", ".pyi", ".h", ".md")
FILES = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*")) if path.suffix in SUFFIXES]
PYTHON = [path for path in FILES if path.suffix == ".py"]
LONGEST_FUNCTION = 50  # lines, for 95 of 100 functions
LARGEST_FILE = 200_000  # bytes
HOSTS = {"pytest", "eventsourcing"}  # what Penstock is a plugin of: who wants that has it
# In pieces, so that this file does not contain what it looks for.
UNFINISHED = re.compile(r"\b(TO" r"DO|FIX" r"ME)\b")
WORKPLACE = re.compile(r"(?<![\w.])/(wo" r"rk|ro" r"ot|ho" r"me)/")


def matches(pattern: re.Pattern[str]) -> list[str]:
    """The files in which `pattern` occurs, relative to the repository."""
    return [str(path.relative_to(ROOT)) for path in FILES if pattern.search(path.read_text(encoding="utf-8"))]


def test_there_are_files_to_look_at() -> None:
    assert {path.suffix for path in FILES} >= {".py", ".pyx", ".pyi", ".md"}


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def test_functions_stay_short() -> None:
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    nodes = [node for path in PYTHON for node in ast.walk(tree(path))]
    lengths = [(node.end_lineno or node.lineno) - node.lineno + 1 for node in nodes if isinstance(node, kinds)]
    short = sum(length <= LONGEST_FUNCTION for length in lengths)
    assert short >= 0.95 * len(lengths)


def test_every_module_has_a_docstring() -> None:
    modules = [path for path in PYTHON if path.is_relative_to(ROOT / "src")]
    bare = [path.name for path in modules if not ast.get_docstring(tree(path))]
    assert modules and not bare


def imported(node: ast.AST) -> set[str]:
    """The packages that a statement imports."""
    if isinstance(node, ast.Import):
        return {alias.name.partition(".")[0] for alias in node.names}
    if isinstance(node, ast.ImportFrom) and node.level == 0:
        return {(node.module or "").partition(".")[0]}
    return set()


def test_what_is_imported_is_installed() -> None:
    """By an extra for users: of what only `test` installs, every test finds it there, and every user does not."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    (every,) = extras["all"]
    asked = [line for name in every[len("penstock[") : -1].split(",") for line in extras[name]]
    installed = {re.split(r"[][>=]", line)[0].replace("-", "_") for line in [*project["dependencies"], *asked]}
    installed |= {"opentelemetry"} if "opentelemetry_api" in installed else set()
    known = installed | {"penstock"} | sys.stdlib_module_names | HOSTS
    for path in PYTHON:
        if path.is_relative_to(ROOT / "src"):
            assert set().union(*map(imported, ast.walk(tree(path)))) <= known, path
    native = [path for path in FILES if path.suffix == ".pyx"]
    assert native
    for path in native:
        names = re.findall(r"^ *(?:from (?=\S+ import)|import )(\w+)", path.read_text(encoding="utf-8"), re.MULTILINE)
        assert set(names) <= known, path


def test_nothing_is_left_to_do() -> None:
    assert matches(UNFINISHED) == []


def test_files_stay_small() -> None:
    """Results and pictures too: what a script can make again is not kept whole."""
    ignored = {".so", ".pyc", ".c"}
    every = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.is_file()]
    assert [str(path) for path in every if path.suffix not in ignored and path.stat().st_size > LARGEST_FILE] == []


def test_no_paths_of_one_machine() -> None:
    assert matches(WORKPLACE) == []
