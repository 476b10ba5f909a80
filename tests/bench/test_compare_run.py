"""A tiny slice of the comparison, run as a user would; what cannot be had is reported, nothing is left running."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench.compare import usage
from bench.compare.model import Absent
from bench.compare.process import Server
from bench.compare.state import State

ROOT = Path(__file__).parents[2]
WORKLOADS = "produce-100,consume,queue,start"


def compare(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The command, from the repository's root."""
    command = [sys.executable, "-m", "bench.compare", "--quick", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100)


def test_quick_slice(tmp_path: Path) -> None:
    pytest.importorskip("lmdb")
    out = tmp_path / "out"
    arguments = ("--systems", "penstock,lmdb", "--workloads", WORKLOADS, "--data", str(tmp_path / "d"), "--out")
    done = compare(*arguments, str(out))
    assert done.returncode == 0, done.stderr
    results: dict[str, Any] = json.loads((out / "compare.json").read_text())
    cells = results["cells"]
    for workload in WORKLOADS.split(","):
        assert cells[workload]["penstock"]["figure"] > 0
    assert cells["consume"]["lmdb"]["figure"] > 0
    assert cells["queue"]["lmdb"] == {"n/a": "a key-value store"}
    assert not list((tmp_path / "d").glob("run-*")), "the files of the run are gone"


def test_resumed_run_repeats_nothing(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    arguments = ("--systems", "penstock", "--workloads", "start", "--data", str(tmp_path))
    assert compare(*arguments).returncode == 0
    first = (tmp_path / "state.jsonl").read_text()
    done = compare(*arguments, "--resume")
    assert "1 turns, 1 of them done before" in done.stdout
    assert (tmp_path / "state.jsonl").read_text() == first


def test_unknown_names_are_refused(tmp_path: Path) -> None:
    for arguments in (("--systems", "oracle"), ("--workloads", "dance")):
        done = compare(*arguments, "--data", str(tmp_path))
        assert done.returncode == 1 and "there are" in done.stderr


def test_system_that_cannot_be_had_is_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("redis")
    from bench.compare.runner import Plan, Runner
    from bench.compare.systems.redis import Redis
    from bench.compare.turn import Sizes

    monkeypatch.setenv("PATH", str(tmp_path))
    plan = Plan([Redis()], [], 1, Sizes.quick(), tmp_path / "run", tmp_path / "cache")
    runner = Runner(plan, State(tmp_path / "state", {}, resume=False), lambda words: None)
    runner.prepare()
    assert "no apt-get" in runner.absent["redis"]


def test_state_of_another_run_is_not_resumed(tmp_path: Path) -> None:
    path = tmp_path / "state"
    State(path, {"rounds": 1}, resume=False).put(("w", "s", 0), {"figure": 1.0})
    assert State(path, {"rounds": 1}, resume=True).get(("w", "s", 0)) == {"figure": 1.0}
    assert len(State(path, {"rounds": 2}, resume=True)) == 0


def test_cut_off_line_of_the_state_is_ignored(tmp_path: Path) -> None:
    path = tmp_path / "state"
    State(path, {}, resume=False).put(("w", "s", 0), {"figure": 1.0})
    path.write_text(path.read_text() + '{"workload": "w", "si')
    assert len(State(path, {}, resume=True)) == 1


@pytest.mark.skipif(not usage.PROC.exists(), reason="reads /proc")
def test_server_that_does_not_start_is_absent_with_its_last_words(tmp_path: Path) -> None:
    server = Server([sys.executable, "-c", "print('no licence'); raise SystemExit(3)"], tmp_path / "log")
    with pytest.raises(Absent, match="ended with 3: no licence"):
        server.wait(lambda: False)
    server.stop()


@pytest.mark.skipif(not usage.PROC.exists(), reason="reads /proc")
def test_stopping_a_server_ends_its_children(tmp_path: Path) -> None:
    code = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'input()'], stdin=-1); print(1); input()"
    server = Server(["sh", "-c", f'sleep 60 | "{sys.executable}" -uc "{code}"'], tmp_path / "log")
    server.wait(lambda: "1" in server.tail(), 20)
    assert len(server.pids()) >= 3
    server.stop()
    assert server.pids() == []
