"""Chronicle Queue through `java/ChronicleBench.java`, which times itself after warming up."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from types import MappingProxyType
from typing import Any, ClassVar

from bench.compare.clients.base import Client
from bench.compare.values import Load
from bench.compare.workloads.latency import SIZE

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
    """A directory a topic. For latency the program spins, as Penstock's sender does, and its receiver too."""

    paced_by_sleep = False

    fixed = MappingProxyType({"writing": 3_000_000, "reading": 3_000_000, "single": 1_000_000})
    missing: ClassVar[dict[str, str]] = {
        "fsync-each": "it leaves syncing to the operating system",
        "keyed": "no partitions",
        "json-lz4": "no compression",
        "consume-group": "named tailers, no groups that share",
        "queue": "nothing is acknowledged",
        "parallel": "measured for throughput only",
    }

    def _command(self, action: str, topic: str, count: int, *numbers: int) -> list[str]:
        places = f"{self.place['classes']}:{self.place['jars']}/*"
        command = ["java", "-Xmx1g", *OPENED, *QUIET, "-cp", places, "ChronicleBench"]
        return [*command, action, f"{self.place['directory']}/{topic}", *(str(number) for number in (count, *numbers))]

    def _run(self, action: str, topic: str, count: int, size: int) -> float:
        done = subprocess.run(self._command(action, topic, count, size), capture_output=True, text=True, check=False)
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

    def ready_to_send(self, topic: str, rate: int, count: int) -> None:
        self._sender = self._start("send", topic, count, SIZE, rate)

    def send_paced(self, topic: str, schedule: Any) -> None:
        assert self._sender.stdin is not None
        print(schedule.start_ns, file=self._sender.stdin, flush=True)
        self._ended(self._sender)

    def latencies(self, topic: str, count: int) -> Iterator[list[int]]:
        receiver = self._start("receive", topic, count, SIZE)
        yield []
        assert receiver.stdout is not None
        yield [int(number) for number in receiver.stdout.readline().split()]
        self._ended(receiver)

    def _start(self, action: str, topic: str, count: int, *numbers: int) -> subprocess.Popen[str]:
        """The program, warmed up. It is in this process's group, and ends with it."""
        command = self._command(action, topic, count, *numbers)
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        if process.stdout.readline() != "ready\n":
            raise RuntimeError(f"ChronicleBench {action} ended with {process.wait()}")
        return process

    def _ended(self, process: subprocess.Popen[str]) -> None:
        process.communicate()
        if process.returncode:
            raise RuntimeError(f"ChronicleBench ended with {process.returncode}")

    def first(self, topic: str) -> None:
        self._run("first", topic, 1, 100)
