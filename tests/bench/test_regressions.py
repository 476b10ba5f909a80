"""Comparing two revisions, and instruction counts: what is reported and what fails."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bench import callgrind, instructions, regression

ROOT = Path(__file__).parents[2]


def test_slower_operations_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    before = {"a": [1.0, 1.0, 9.0], "b": [1.0], "gone": [1.0]}
    after = {"a": [1.05, 1.0, 1.2], "b": [1.2], "new": [1.0]}
    assert regression.report(before, after, limit=10) == ["b"]
    out = capsys.readouterr().out
    assert "only in A" in out and "only in B" in out


def test_more_instructions_are_named() -> None:
    assert instructions.compare({"a": 103.1, "b": 102.9, "new": 5.0}, {"a": 100.0, "b": 100.0}, limit=3) == ["a"]


DUMP = """\
desc: Trigger: Client Request: a path
summary: 60
ob=(1) /usr/lib/libffi.so.8
fn=(1) 0x0000000000006f7a
0 5
fn=(2) __pyx_pw_8penstock_7_native_7builder_7Builder_11send_many
10 20
cob=(2) /usr/lib/libc.so
cfn=(3) crc::small
calls=2 0
11 30
+1 5

ob=(2)
fn=(3)
0 30
"""


def test_own_costs_are_told_from_those_of_callees(tmp_path: Path) -> None:
    (tmp_path / "out.1").write_text(DUMP)
    (tmp_path / "out.2").write_text("desc: Trigger: Program termination\nsummary: 1\n")
    (dump,) = callgrind.dumps(tmp_path)
    assert (dump.name, dump.total) == ("a path", 60)
    assert dump.functions == {"libffi.so.8": 5, "Builder.send_many": 25, "small": 30}
    kept = instructions.profile([dump], {"a path": 10})
    assert kept["a path"]["instructions"] == 6.0
    assert next(iter(kept["a path"]["functions"].items())) == ("small", 0.5)


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("__pyx_f_8penstock_7_native_7records_12RecordCursor__advance", "RecordCursor._advance"),
        ("__pyx_f_8penstock_7_native_7builder_12BatchBuilder_4seal", "BatchBuilder.seal"),
        ("__pyx_tp_dealloc_8penstock_7_native_7records_Record", "Record"),
        ("_PyEval_EvalFrameDefault'2", "_PyEval_EvalFrameDefault"),
    ],
)
def test_names_of_cython_are_readable(name: str, read: str) -> None:
    assert callgrind.readable(name) == read


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
    (first, records), (second, _) = instructions.count(), instructions.count()
    assert [dump.total for dump in second] == pytest.approx([dump.total for dump in first], rel=0.02)
    found = instructions.profile(first, records)
    assert len(found) == 5
    assert all(0.3 < sum(path["functions"].values()) <= 1 for path in found.values())


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
