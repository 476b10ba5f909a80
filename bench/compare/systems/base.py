"""What a system has to offer to be compared."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Protocol

from bench.compare import usage
from bench.compare.model import Side
from bench.compare.process import Server, answers, free_port

SETTLE_S, CALM_S = 3.0, 0.1


class Running:
    """A system that is up. `place` tells its clients where it is: plain strings.

    `hello` is what its server answers to on the port `place["port"]`.
    """

    def __init__(self, place: dict[str, str], servers: list[Server] | None = None, hello: bytes = b"") -> None:
        self.place, self.servers, self.hello = place, servers or [], hello
        self._paused = False

    @property
    def directory(self) -> Path:
        """Where its data lies."""
        return Path(self.place["directory"])

    def pids(self) -> list[int]:
        """The server's processes; none for a library."""
        return [pid for server in self.servers for pid in server.pids()]

    def await_ready(self, timeout_s: float = 60.0) -> None:
        """Until the last server answers; ends all of them if it does not."""
        port = int(self.place["port"])
        try:
            self.servers[-1].wait(lambda: answers(port, self.hello), timeout_s)
        except BaseException:
            self.stop()
            raise

    def pause(self) -> None:
        """While others are measured: its processes get no time."""
        if not self._paused:
            self._paused = True
            for server in self.servers:
                server.pause()

    def resume(self) -> None:
        """Go on, until it answers again and has caught up with what it does by the clock."""
        if self._paused:
            self._paused = False
            for server in self.servers:
                server.resume()
            self.await_ready()
            self._settle()

    def _settle(self) -> None:
        deadline = time.monotonic() + SETTLE_S
        while time.monotonic() < deadline:
            before = usage.cpu_s(self.pids())
            time.sleep(CALM_S)
            if usage.cpu_s(self.pids()) - before <= CALM_S / 5:
                return

    def stop(self) -> None:
        """End its processes."""
        for server in self.servers:
            server.stop()


class System(Protocol):
    """One system. Instances are independent: `start` may be called several times with different directories."""

    name: str
    sides: tuple[Side, ...]

    def prepare(self, cache: Path) -> None:
        """Get what is needed, once; downloads stay in `cache`. Raises `Absent`."""

    def version(self) -> str:
        """Name and version, for the results."""

    def place(self, directory: Path) -> dict[str, str]:
        """Where clients will find it once it is started in `directory`."""

    def start(
        self, directory: Path, durability: str, *, wait: bool = True, place: dict[str, str] | None = None
    ) -> Running:
        """Start with empty data in `directory`; with `wait` until it takes clients. Raises `Absent`."""


class Library:
    """A system without a server: prepared when its package can be imported, started by making a directory."""

    name: str
    package: str
    sides: tuple[Side, ...]

    def prepare(self, cache: Path) -> None:
        """Nothing to get."""

    def version(self) -> str:
        """Of the package."""
        return f"{self.package} {package_version(self.package)}"

    def place(self, directory: Path) -> dict[str, str]:
        """The directory."""
        return {"directory": str(directory)}

    def start(
        self, directory: Path, durability: str, *, wait: bool = True, place: dict[str, str] | None = None
    ) -> Running:
        """An empty directory."""
        directory.mkdir(parents=True)
        return Running({**(place or self.place(directory)), "durability": durability})


class PortServer(ABC):
    """A system that is a server on one port, started with a directory of its own."""

    hello: bytes  # what its server answers to

    def place(self, directory: Path) -> dict[str, str]:
        """A port for a server that is not started yet."""
        return {"directory": str(directory), "port": str(free_port())}

    @abstractmethod
    def launch(self, directory: Path, port: str, durability: str) -> list[Server]:
        """Start its processes, the one that listens last."""

    def start(
        self, directory: Path, durability: str, *, wait: bool = True, place: dict[str, str] | None = None
    ) -> Running:
        """With empty data in `directory`."""
        place = {**(place or self.place(directory)), "durability": durability}
        directory.mkdir(parents=True)
        running = Running(place, self.launch(directory, place["port"], durability), self.hello)
        if wait:
            running.await_ready()
        return running


def package_version(package: str) -> str:
    """Of an installed distribution; "not installed" without."""
    import importlib.metadata

    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
