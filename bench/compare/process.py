"""A server of our own: started in a process group, waited for, ended by that group and nothing else."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from bench.compare import groups, usage
from bench.compare.model import Absent


def free_port() -> int:
    """A port of the loopback interface that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(port: int, hello: bytes) -> bool:
    """Whether a server says anything to `hello`. That it can be connected to says little: the system does that."""
    try:
        with socket.create_connection(("127.0.0.1", port), 0.2) as probe:
            probe.settimeout(0.5)
            probe.sendall(hello)
            return bool(probe.recv(1))
    except OSError:  # it is not up, or too busy to answer in time
        return False


class Server:
    """A started program. Its output goes to `log`; `stop` kills its group, as its data is ours to throw away."""

    def __init__(self, command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None) -> None:
        self.log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        with open(log, "ab") as out:
            self.process = groups.start(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(environment or {})},
                cwd=log.parent,
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

    def pause(self) -> None:
        """It gets no time until `resume`."""
        groups.send(self.process, signal.SIGSTOP)

    def resume(self) -> None:
        """It goes on."""
        groups.send(self.process, signal.SIGCONT)

    def stop(self) -> None:
        """End the group."""
        groups.end(self.process)
        deadline = time.monotonic() + 5
        while self.pids() and time.monotonic() < deadline:  # what it started dies a moment later
            time.sleep(0.002)
