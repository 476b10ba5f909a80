"""NATS with JetStream: streams in files, work queues."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from bench.compare.fetch import golang
from bench.compare.model import CACHE, DISK, Side
from bench.compare.process import Server
from bench.compare.systems.base import PortServer, package_version

MODULE, VERSION = "github.com/nats-io/nats-server/v2", "v2.11.8"
SETTINGS = (
    "file storage, sync_interval 2 minutes, its default (always where fsync is asked for); publish_async, 4,000 in "
    "flight; pull consumers, fetches of 1,000; work-queue retention, each acknowledged"
)


class Nats(PortServer):
    """nats-server from the path, or built from its Go module."""

    name = "nats"
    hello = b"PING\r\n"
    sides = (Side("nats", "NATS JetStream", "nats:Nats", "Python", "socket", SETTINGS, CACHE),)

    def prepare(self, cache: Path) -> None:
        """Find or build the server."""
        self._binary = shutil.which("nats-server") or str(golang.get(MODULE, VERSION, cache))

    def version(self) -> str:
        """As the server says."""
        done = subprocess.run([self._binary, "--version"], capture_output=True, text=True, check=False)
        return f"NATS {done.stdout.strip().rpartition(' ')[2]}, nats-py {package_version('nats-py')}"

    def launch(self, directory: Path, port: str, durability: str) -> list[Server]:
        sync = "sync_interval: always" if durability == DISK else ""
        config = directory / "nats.conf"
        config.write_text(
            f'listen: "127.0.0.1:{port}"\nmax_payload: 4MB\n'
            f'jetstream {{ store_dir: "{directory / "store"}"\n{sync} }}\n'
        )
        return [Server([self._binary, "-c", str(config)], directory / "server.log")]
