"""RabbitMQ: classic, quorum and stream queues through pika."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from bench.compare.fetch import debian
from bench.compare.model import CACHE, DISK, Absent, Side
from bench.compare.process import Server, free_port
from bench.compare.systems.base import PortServer, package_version

CLIENT = "pika:Pika"
COMMON = "durable queue, persistent messages, publisher confirms 5,000 in flight; prefetch 2,000, one acknowledgement "
COMMON += "for up to 500"
ERLANG = Path("usr/lib/erlang")


def _side(kind: str, durability: str) -> Side:
    name = f"RabbitMQ {kind}, pika"
    return Side(f"rabbitmq-{kind}", name, CLIENT, "Python", "socket", COMMON, durability, {"kind": kind})


class RabbitMQ(PortServer):
    """One node with its own epmd, from the path or unpacked from Debian's packages."""

    name = "rabbitmq"
    hello = b"AMQP\x00\x00\x09\x01"
    sides = (_side("classic", DISK), _side("quorum", DISK), _side("stream", CACHE))

    def prepare(self, cache: Path) -> None:
        """Find or get the server and Erlang."""
        found = shutil.which("rabbitmq-server")
        if found is not None and shutil.which("epmd") is not None:
            self._server, self._environment = found, {}
            return
        root = debian.get("rabbitmq-server", cache)
        servers = sorted(root.glob("usr/lib/rabbitmq/lib/*/sbin/rabbitmq-server"))
        if not servers:
            raise Absent("Debian's package has no rabbitmq-server where it used to be")
        script = root / ERLANG / "bin" / "erl"
        moved = f"ROOTDIR={root / ERLANG}"
        if moved not in script.read_text():  # its place is written into the script
            script.write_text(script.read_text().replace(f"ROOTDIR=/{ERLANG}", moved))
        self._server = str(servers[-1])
        self._environment = {"PATH": f"{root / 'usr/bin'}:{os.environ['PATH']}"}

    def version(self) -> str:
        """By the name of the directory; Debian's script has none."""
        found = Path(self._server).parent.parent.name.removeprefix("rabbitmq_server-")
        return f"RabbitMQ {found}, pika {package_version('pika')}"

    def launch(self, directory: Path, port: str, durability: str) -> list[Server]:
        """epmd, then the node; everything it writes is in `directory`."""
        environment = self._settings(directory, port)
        epmd = Server(
            ["epmd", "-port", environment["ERL_EPMD_PORT"]], directory / "epmd.log", environment | self._environment
        )
        return [epmd, Server([self._server], directory / "server.log", environment | self._environment)]

    def _settings(self, directory: Path, port: str) -> dict[str, str]:
        (directory / "plugins").write_text("[].")
        (directory / "rabbitmq.conf").write_text("log.console.level = error\nvm_memory_high_watermark.absolute = 4GB\n")
        return {
            "HOME": str(directory),
            "ERL_EPMD_PORT": str(free_port()),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": f"penstock{port}@localhost",
            "RABBITMQ_NODE_PORT": port,
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_MNESIA_BASE": str(directory / "data"),
            "RABBITMQ_LOG_BASE": str(directory / "log"),
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(directory / "plugins"),
            "RABBITMQ_PID_FILE": str(directory / "pid"),
            "RABBITMQ_CONFIG_FILE": str(directory / "rabbitmq"),
        }
