"""Chronicle Queue through `java/ChronicleBench.java`, which times itself after warming up."""

from __future__ import annotations

import subprocess
from types import MappingProxyType
from typing import ClassVar

from bench.compare.clients.base import Client
from bench.compare.values import Load

# what Chronicle's documentation asks for on Java 17
OPENED = (
    "--add-exports=java.base/jdk.internal.ref=ALL-UNNAMED",
    "--add-exports=java.base/sun.nio.ch=ALL-UNNAMED",
    "--add-exports=jdk.unsupported/sun.misc=ALL-UNNAMED",
    "--add-exports=jdk.compiler/com.sun.tools.javac.file=ALL-UNNAMED",
    "--add-opens=jdk.compiler/com.sun.tools.javac=ALL-UNNAMED",
    "--add-opens=java.base/java.lang=ALL-UNNAMED",
    "--add-opens=java.base/java.lang.reflect=ALL-UNNAMED",
    "--add-opens=java.base/java.io=ALL-UNNAMED",
    "--add-opens=java.base/java.util=ALL-UNNAMED",
    "--add-opens=java.base/sun.nio.ch=ALL-UNNAMED",
    "--add-opens=java.base/java.nio=ALL-UNNAMED",
)
QUIET = ("-Dchronicle.analytics.disable=true", "-Dchronicle.announcer.disable=true", "-Ddisk.monitor.disable=true")


class Chronicle(Client):
    """A directory a topic."""

    fixed = MappingProxyType({"writing": 3_000_000, "reading": 3_000_000, "single": 1_000_000})
    missing: ClassVar[dict[str, str]] = {
        "fsync-each": "it leaves syncing to the operating system",
        "keyed": "no partitions",
        "json-lz4": "no compression",
        "consume-group": "named tailers, no groups that share",
        "queue": "nothing is acknowledged",
        "latency": "measured for throughput only",
        "parallel": "measured for throughput only",
    }

    def _run(self, action: str, topic: str, count: int, size: int) -> float:
        places = f"{self.place['classes']}:{self.place['jars']}/*"
        command = ["java", "-Xmx1g", *OPENED, *QUIET, "-cp", places, "ChronicleBench"]
        arguments = [action, f"{self.place['directory']}/{topic}", str(count), str(size)]
        done = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)
        lines = [line for line in done.stdout.splitlines() if line.startswith("seconds ")]
        if done.returncode or not lines:
            raise RuntimeError(f"ChronicleBench: {(done.stderr or done.stdout).strip()[-300:]}")
        return float(lines[-1].split()[1])

    def write(self, topic: str, load: Load) -> float:
        return self._run("write", topic, load.count, load.size)

    def write_each(self, topic: str, load: Load) -> float:
        return self._run("write", topic, load.count, load.size)

    def read(self, topic: str, count: int, group: str | None) -> float:
        return self._run("read", topic, count, 0)

    def replay(self, topic: str, count: int) -> float:
        return self._run("cold", topic, count, 0)

    def first(self, topic: str) -> None:
        self._run("first", topic, 1, 100)
