"""Chronicle Queue: the nearest design, a mapped log in Java, driven by a small program of ours."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from bench.compare.fetch import maven
from bench.compare.model import CACHE, Absent, Side
from bench.compare.systems.base import Library, Running

VERSION = "2026.4"
ARTIFACTS = (f"net.openhft:chronicle-queue:{VERSION}", "org.slf4j:slf4j-nop:1.7.36")
SOURCE = Path(__file__).parents[1] / "java" / "ChronicleBench.java"
SETTINGS = (
    "LARGE_DAILY roll cycle, one writeBytes and readBytes a message with reused buffers, warmed up in its process; for "
    "latency sender and receiver spin"
)


class Chronicle(Library):
    """In Java; it has no Python client."""

    name = package = "chronicle"
    sides = (Side("chronicle", "Chronicle Queue", "chronicle:Chronicle", "Java", "in process", SETTINGS, CACHE),)

    def prepare(self, cache: Path) -> None:
        """Jars, and the program's class."""
        if shutil.which("javac") is None:
            raise Absent("javac (JDK 17) is needed, and not on the path")
        jars = maven.get(f"chronicle-{VERSION}", ARTIFACTS, cache)
        self._jars, self._classes = str(jars), str(cache / "classes")
        command = ["javac", "-nowarn", "-cp", f"{jars}/*", "-d", self._classes, str(SOURCE)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise Absent(f"the program does not compile: {done.stderr.strip()[-300:]}")

    def version(self) -> str:
        """Of the artifact."""
        return f"Chronicle Queue {VERSION}"

    def place(self, directory: Path) -> dict[str, str]:
        """With the way to the classes."""
        return {"directory": str(directory), "jars": self._jars, "classes": self._classes}

    def start(
        self, directory: Path, durability: str, *, wait: bool = True, place: dict[str, str] | None = None
    ) -> Running:
        """An empty directory."""
        return super().start(directory, durability, wait=wait, place=place)
