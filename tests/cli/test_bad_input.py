"""Bad input ends with one line that says what is wrong, and the right exit code; never with a traceback."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import penstock

Invoke = Callable[..., Any]


@pytest.fixture
def files(tmp_path: Path, invoke: Invoke) -> Path:
    (tmp_path / "good.csv").write_text("a,b\n1,2\n")
    (tmp_path / "bad.csv").write_text("a,b\n1,2\n3\n")
    (tmp_path / "bad.jsonl").write_text('{"a":1}\n{"a":\n')
    (tmp_path / "folder").mkdir()
    assert invoke("produce", "good", tmp_path / "good.csv").exit_code == 0
    return tmp_path


USAGE = [
    (["produce", "t", "{dir}/missing"], "does not exist"),
    (["produce", "t", "{dir}/folder"], "is a directory"),
    (["produce", "t", "{dir}/good.csv", "--key", "c"], "no field 'c'; the header has a, b"),
    (["produce", "t", "{dir}/good.csv", "--format", "lines", "--key", "a"], "plain lines have no fields"),
    (["produce", "t", "{dir}/good.csv", "--partitions", "0"], "Invalid value for '--partitions'"),
    (["produce", "t", "{dir}/good.csv", "--compression", "rar"], "rar"),
    (["produce", "t", "-", "--processes", "2"], "stdin is read by one process"),
    (["consume", "good", "--from", "yesterday"], "yesterday"),
    (["consume", "good", "--max", "1", "--processes", "2"], "counts in one process"),
    (["topics", "create", "t", "--config", "retention_ms"], "is not NAME=VALUE"),
    (["topics", "alter", "good"], "--partitions or --config"),
    (["dump", "{dir}/good.csv"], "is not a segment"),
    (["dump", "{dir}/missing.log"], "does not exist"),
    (["nonsense"], "nonsense"),
    (["consume"], "TOPIC"),
]
FAILED = [
    (["produce", "t", "{dir}/bad.csv"], "a CSV row has 1 fields and the header 2"),
    (["produce", "t", "{dir}/bad.jsonl"], "the line at byte 8"),
    (["produce", "t", "{dir}/bad.jsonl", "--key", "b"], "missing required field `b`"),
    (["produce", "../t", "{dir}/good.csv"], "topic name '../t' is not allowed"),
    (["consume", "missing"], "topic 'missing' does not exist"),
    (["consume", "good", "--partition", "9"], "partition is 9"),
    (["consume", "good", "--data", "{dir}/nowhere"], "there is no data directory"),
    (["consume", "good", "--data", "{dir}/good.csv"], "is not a directory"),
    (["produce", "t", "{dir}/good.csv", "--data", "{dir}/good.csv"], "is not a directory"),
    (["topics", "create", "good"], "topic 'good' exists"),
    (["topics", "create", "t", "--config", "colour=red"], "unknown configuration 'colour'"),
    (["topics", "create", "t", "--config", "retention_ms=soon"], "retention_ms is 'soon'"),
    (["topics", "create", "t", "--partitions", "0"], "partitions is 0"),
    (["topics", "alter", "good", "--partitions", "1"], "none can be removed"),
    (["topics", "describe", "missing"], "topic 'missing' does not exist"),
    (["topics", "delete", "missing"], "topic 'missing' does not exist"),
    (["verify", "missing"], "topic 'missing' does not exist"),
    (["repair", "--data", "{dir}/nowhere"], "there is no data directory"),
]


@pytest.mark.parametrize(("arguments", "message"), USAGE)
def test_wrong_usage(files: Path, invoke: Invoke, arguments: list[str], message: str) -> None:
    result = invoke(*(argument.format(dir=files) for argument in arguments))
    assert result.exit_code == 2, result.output
    assert message in " ".join(result.stderr.replace("│", " ").split())


@pytest.mark.parametrize(("arguments", "message"), FAILED)
def test_failed(files: Path, invoke: Invoke, arguments: list[str], message: str) -> None:
    result = invoke(*(argument.format(dir=files) for argument in arguments))
    assert result.exit_code == 1, result.output
    assert message in result.stderr
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert not (files / "nowhere").exists()


def test_commands_that_read_make_no_topic(files: Path, invoke: Invoke) -> None:
    invoke("produce", "never", files / "good.csv", "--key", "missing")
    with penstock.open(files / "data") as broker:
        assert "never" not in broker.topics()


def test_without_the_extra_the_command_says_what_to_install() -> None:
    code = "import sys; sys.modules['typer'] = None; from penstock.cli import main; main()"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == "the command line needs: pip install 'penstock[cli]'\n"


def test_help_and_version(invoke: Invoke) -> None:
    shown = invoke("--help")
    assert shown.exit_code == 0
    for name in ("demo", "produce", "consume", "topics", "dump", "verify", "repair", "bench"):
        assert name in shown.stdout
        assert invoke(name, "--help").exit_code == 0
    assert invoke("--version").stdout.strip() == penstock.__version__
