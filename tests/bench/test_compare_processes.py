"""Servers are stopped while others are measured, and none is left behind, stopped or running."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bench.compare import groups, usage
from bench.compare.process import answers, free_port
from bench.compare.systems.base import Running
from bench.compare.systems.redis import Redis

ROOT = Path(__file__).parents[2]
PATIENCE_S = 60.0

pytestmark = pytest.mark.skipif(not usage.PROC.exists(), reason="reads /proc")


def states(group: int) -> set[str]:
    """What the processes of a group do: T for stopped."""
    return {_state(usage.PROC / str(pid)) for pid in usage.group_pids(group)}


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[Running]:
    """A server that answers."""
    if shutil.which("redis-server") is None:
        pytest.skip("no redis-server")
    system = Redis()
    system.prepare(tmp_path)
    running = system.start(tmp_path / "data", "page cache")
    yield running
    running.stop()


def test_paused_server_does_not_answer_until_it_is_resumed(redis: Running) -> None:
    port, (server,) = int(redis.place["port"]), redis.servers
    assert answers(port, redis.hello)
    redis.pause()
    assert _until(lambda: states(server.process.pid) == {"T"})  # the kernel stops one that runs a little later
    assert not answers(port, redis.hello)
    redis.pause()
    redis.resume()
    assert answers(port, redis.hello)


def test_paused_server_is_ended(redis: Running) -> None:
    redis.pause()
    redis.stop()
    assert redis.pids() == []


def test_nobody_answers_on_a_free_port() -> None:
    assert not answers(free_port(), b"PING\r\n")


def test_ctrl_c_waits_until_the_block_is_over() -> None:
    reached = []
    with pytest.raises(KeyboardInterrupt), groups.held():
        signal.raise_signal(signal.SIGINT)
        reached.append("the end")
    assert reached == ["the end"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_group_that_nobody_ended_is_ended_with_all() -> None:
    process = groups.start([sys.executable, "-c", "import time; time.sleep(600)"])
    groups.send(process, signal.SIGSTOP)
    groups.end_all()
    assert usage.group_pids(process.pid) == []


def test_ctrl_c_leaves_nothing_behind(tmp_path: Path) -> None:
    pytest.importorskip("redis")  # the comparison's client, of another extra
    if shutil.which("redis-server") is None:
        pytest.skip("no redis-server")
    arguments = ("--quick", "--systems", "penstock,redis", "--workloads", "one-by-one,latency-1k", "--rounds", "9")
    command = [sys.executable, "-m", "bench.compare", *arguments, "--data", str(tmp_path)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        assert _until(lambda: "T" in _below(tmp_path).values()), "the server is never stopped"
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=PATIENCE_S)
    finally:
        process.kill()
    assert b"KeyboardInterrupt" in errors and process.returncode != 0
    assert _until(lambda: not _below(tmp_path)), f"left: {_below(tmp_path)}"
    assert not list(tmp_path.glob("run-*"))


def _state(entry: Path) -> str:
    return (entry / "stat").read_text().rpartition(")")[2].split()[0]


def _below(directory: Path) -> dict[int, str]:
    """Processes, and their states, that were started in or with a path below the directory."""
    found = {}
    for entry in usage.PROC.glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes().decode(errors="replace") + str((entry / "cwd").readlink())
            state = _state(entry)
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
        if str(directory / "run-") in words:
            found[int(entry.name)] = state
    return found


def _until(holds: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.002)
    return True
