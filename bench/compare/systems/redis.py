"""Redis: streams with an append-only file."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from bench.compare.fetch import debian
from bench.compare.model import CACHE, DISK, Side
from bench.compare.process import Server
from bench.compare.systems.base import PortServer

SETTINGS = (
    "append-only file, appendfsync no (always where fsync is asked for), no snapshots; pipelines and reads of 1,000"
)


class Redis(PortServer):
    """redis-server from the path or from Debian."""

    name = "redis"
    hello = b"PING\r\n"
    sides = (Side("redis", "Redis streams", "redis:Redis", "Python", "socket", SETTINGS, CACHE),)

    def prepare(self, cache: Path) -> None:
        """Find or get the server."""
        self._binary = shutil.which("redis-server") or str(debian.get("redis-server", cache) / "usr/bin/redis-server")

    def version(self) -> str:
        """As the server says."""
        done = subprocess.run([self._binary, "--version"], capture_output=True, text=True, check=False)
        found = [word for word in done.stdout.split() if word.startswith("v=")]
        return f"Redis {found[0][2:]}" if found else "Redis"

    def launch(self, directory: Path, port: str, durability: str) -> list[Server]:
        options = {
            "port": port,
            "bind": "127.0.0.1",
            "dir": str(directory),
            "save": "",
            "appendonly": "yes",
            "appendfsync": "always" if durability == DISK else "no",
            "auto-aof-rewrite-percentage": "0",
        }
        command = [self._binary, *(word for name, value in options.items() for word in (f"--{name}", value))]
        return [Server(command, directory / "server.log")]
