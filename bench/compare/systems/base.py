"""What a system has to offer to be compared."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from bench.compare.model import Side
from bench.compare.process import Server, free_port, listens


class Running:
    """A system that is up. `place` tells its clients where it is: plain strings."""

    def __init__(self, place: dict[str, str], servers: list[Server] | None = None) -> None:
        self.place, self.servers = place, servers or []

    @property
    def directory(self) -> Path:
        """Where its data lies."""
        return Path(self.place["directory"])

    def pids(self) -> list[int]:
        """The server's processes; none for a library."""
        return [pid for server in self.servers for pid in server.pids()]

    def await_ready(self, ready: Callable[[], bool], timeout_s: float = 60.0) -> None:
        """Until the last server is ready; ends all of them if it does not get so."""
        try:
            self.servers[-1].wait(ready, timeout_s)
        except BaseException:
            self.stop()
            raise

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

    ready_s = 60.0

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
        running = Running(place, self.launch(directory, place["port"], durability))
        if wait:
            running.await_ready(lambda: listens(int(place["port"])), self.ready_s)
        return running


def package_version(package: str) -> str:
    """Of an installed distribution; "not installed" without."""
    import importlib.metadata

    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
