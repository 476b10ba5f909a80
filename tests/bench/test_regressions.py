"""Comparing two revisions, and instruction counts: what is reported and what fails."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bench import instructions, regression

ROOT = Path(__file__).parents[2]


def test_slower_operations_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    before = {"a": [1.0, 1.0, 9.0], "b": [1.0], "gone": [1.0]}
    after = {"a": [1.05, 1.0, 1.2], "b": [1.2], "new": [1.0]}
    assert regression.report(before, after, limit=10) == ["b"]
    out = capsys.readouterr().out
    assert "only in A" in out and "only in B" in out


def test_more_instructions_are_named() -> None:
    assert instructions.compare({"a": 103.1, "b": 102.9, "new": 5.0}, {"a": 100.0, "b": 100.0}, limit=3) == ["a"]


def test_baseline_names_the_five_paths(tmp_path: Path) -> None:
    import penstock

    with penstock.open(tmp_path / "data", fsync="never") as broker:
        found = {}
        for name, (warm, act) in instructions.paths(broker).items():
            warm()
            found[name] = act()
    assert set(json.loads(instructions.BASELINE.read_text())) == set(found)
    assert min(found.values()) >= instructions.APPENDS


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("valgrind") is None, reason="needs valgrind")
def test_counts_repeat_themselves() -> None:
    first, second = instructions.count(), instructions.count()
    assert all(second[name] == pytest.approx(first[name], rel=0.02) for name in first)


@pytest.mark.slow
def test_a_revision_beside_itself() -> None:
    if subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, check=False).returncode:
        pytest.skip("not a git checkout")
    command = [
        sys.executable,
        "-m",
        "bench.regression",
        "HEAD",
        "HEAD",
        "--quick",
        "--limit",
        "100000",
        "-k",
        "murmur2",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    assert "test_murmur2" in done.stdout
