"""The command as real processes: several workers, pipes, Ctrl-C, killed workers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from penstock.cli.demo_check import compare
from penstock.cli.workers import WorkerError, run_jobs

ORDERS = Path(__file__).parents[3] / "shared" / "data" / "online_retail_orders.csv"


def start(tmp_path: Path, *arguments: str, **options: Any) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PENSTOCK_DATA": str(tmp_path / "data")}
    command = [sys.executable, "-m", "penstock.cli", *arguments]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)


def test_several_processes_store_and_read_every_line_once(tmp_path: Path, penstock_command: Any) -> None:
    lines = [f"line {number} {'x' * (number % 50)}" for number in range(20_000)]
    (tmp_path / "lines").write_text("\n".join(lines) + "\n")
    stored = penstock_command("produce", "lines", "lines", "--processes", "3", "--json")
    assert stored.returncode == 0, stored.stderr
    assert json.loads(stored.stdout) | {"seconds": 0} == {
        "topic": "lines",
        "records": 20_000,
        "size_bytes": (tmp_path / "lines").stat().st_size,
        "seconds": 0,
        "processes": 3,
    }
    read = penstock_command("consume", "lines", "--processes", "2")
    assert read.returncode == 0, read.stderr
    assert Counter(read.stdout.decode().splitlines()) == Counter(lines)


def test_demo(tmp_path: Path, penstock_command: Any) -> None:
    shown = penstock_command("demo", "--records", "20000")
    assert shown.returncode == 0, shown.stderr
    assert b"every count and checksum agrees" in shown.stdout
    assert b"What to explore next" in shown.stdout
    again = penstock_command("demo", "--records", "3000", "--processes", "3", "--json")
    document = json.loads(again.stdout)
    assert document["ok"]
    assert sum(entry["records"] for entry in document["partitions"]) == 3000


def test_demo_with_real_orders(tmp_path: Path, penstock_command: Any) -> None:
    if not ORDERS.exists():
        pytest.skip(f"the real orders are not at {ORDERS}")
    result = penstock_command("demo", "--orders", ORDERS, "--json")
    assert result.returncode == 0, result.stderr
    document = json.loads(result.stdout)
    assert document["ok"]
    assert document["consumed"]["records"] == 18_532


def test_the_comparison_of_the_demo_notices_differences(tmp_path: Path) -> None:
    def write(name: str, *marks: int) -> None:
        (tmp_path / name).write_bytes(b"".join(mark.to_bytes(8, sys.byteorder) for mark in marks))

    write("expected-0-0", 1, 2)
    write("expected-0-1", 3)
    write("stored-0", 3, 1, 2)
    assert compare(tmp_path, 1).ok
    write("stored-0", 3, 1, 2, 2)
    assert compare(tmp_path, 1).problems == ["partition 0: 3 records expected, 4 stored; 0 missing, 0 not in the input"]
    write("stored-0", 3, 1, 4)
    assert compare(tmp_path, 1).problems == ["partition 0: 3 records expected, 3 stored; 1 missing, 1 not in the input"]
    (tmp_path / "expected-0-0").rename(tmp_path / "expected--1-0")
    assert compare(tmp_path, 1).problems == ["topic: 3 records expected, 3 stored; 1 missing, 1 not in the input"]


@pytest.mark.parametrize("processes", ["1", "2"])
def test_follow_until_interrupted(tmp_path: Path, penstock_command: Any, processes: str) -> None:
    assert penstock_command("produce", "lines", "-", input=b"first\n").returncode == 0
    reader = start(tmp_path, "consume", "lines", "--follow", "--processes", processes)
    assert reader.stdout is not None
    assert reader.stdout.readline() == b"first\n"
    assert penstock_command("produce", "lines", "-", input=b"second\n").returncode == 0
    assert reader.stdout.readline() == b"second\n"
    reader.send_signal(signal.SIGINT)
    _, errors = reader.communicate(timeout=30)
    assert reader.returncode == 130
    assert b"Traceback" not in errors


@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_reader_that_had_enough(tmp_path: Path, penstock_command: Any, processes: str) -> None:
    (tmp_path / "lines").write_text("a line\n" * 500_000)
    assert penstock_command("produce", "lines", "lines").returncode == 0
    reader = start(tmp_path, "consume", "lines", "--processes", processes)
    assert reader.stdout is not None
    assert reader.stdout.readline() == b"a line\n"
    reader.stdout.close()
    assert reader.stderr is not None
    assert reader.stderr.read() == b""
    assert reader.wait(timeout=30) == 0


def test_a_worker_fails(tmp_path: Path, penstock_command: Any) -> None:
    rows = "".join(f'{{"k":{number}}}\n' for number in range(30_000))
    (tmp_path / "rows.jsonl").write_text(rows + "not json\n")
    result = penstock_command("produce", "rows", "rows.jsonl", "--processes", "2")
    assert result.returncode == 1
    assert f"error: the line at byte {len(rows):,}".encode() in result.stderr
    assert b"Traceback" not in result.stderr


def test_a_worker_is_killed(tmp_path: Path, penstock_command: Any) -> None:
    assert penstock_command("produce", "lines", "-", "--partitions", "2", input=b"first\n").returncode == 0
    reader = start(tmp_path, "consume", "lines", "--follow", "--processes", "2")
    assert reader.stdout is not None
    assert reader.stdout.readline() == b"first\n"
    deadline = time.monotonic() + 10
    while not (children := children_of(reader.pid)) and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(children[0], signal.SIGKILL)
    _, errors = reader.communicate(timeout=30)
    assert reader.returncode == 1
    assert b"ended with code -9 before its work was done" in errors


def children_of(pid: int) -> list[int]:
    listed = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False)
    if listed.returncode == 0:
        return [int(word) for word in listed.stdout.split()]
    pytest.skip(f"ps does not list children here: {listed.stderr}")


def test_the_error_of_a_worker_is_raised(tmp_path: Path) -> None:
    job = {"data": str(tmp_path / "data"), "topic": "missing", "ranges": [[0, 0, 1]], "most": None, "format": "none"}
    with pytest.raises(WorkerError, match="'missing' does not exist"):
        run_jobs("consume", [{**job, "lock_fd": None}] * 2)
