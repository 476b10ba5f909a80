"""A server of our own: started in a process group, waited for, ended by that group and nothing else."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from bench.compare import usage
from bench.compare.model import Absent


def free_port() -> int:
    """A port of the loopback interface that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def listens(port: int) -> bool:
    """Whether somebody accepts connections there."""
    with socket.socket() as probe:
        probe.settimeout(0.2)
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Server:
    """A started program. Its output goes to `log`; `stop` kills its group, as its data is ours to throw away."""

    def __init__(self, command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None) -> None:
        self.log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        with open(log, "ab") as out:
            self.process = subprocess.Popen(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(environment or {})},
                cwd=log.parent,
                start_new_session=True,
            )

    def wait(self, ready: Callable[[], bool], timeout_s: float = 60.0) -> None:
        """Until `ready()`. Raises `Absent` with the end of the log when the program ends or takes too long."""
        deadline = time.monotonic() + timeout_s
        while not ready():
            if self.process.poll() is not None:
                raise Absent(f"ended with {self.process.returncode}: {self.tail()}")
            if time.monotonic() > deadline:
                raise Absent(f"not ready within {timeout_s:g} s: {self.tail()}")
            time.sleep(0.005)

    def tail(self) -> str:
        """The end of what the program wrote."""
        return self.log.read_text(errors="replace")[-400:].strip()

    def pids(self) -> list[int]:
        """The processes of the group."""
        return usage.group_pids(self.process.pid)

    def stop(self) -> None:
        """End the group."""
        with suppress(ProcessLookupError):  # it ended by itself
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        deadline = time.monotonic() + 5
        while self.pids() and time.monotonic() < deadline:  # what it started dies a moment later
            time.sleep(0.002)
