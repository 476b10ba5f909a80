"""Fetch Kafka's own tools, by which our files are judged: `python tests/oracle/fetch_kafka.py` (needs mvn).

The jars go to `PENSTOCK_KAFKA_JARS` or `~/.cache/penstock-oracle`, never into the repository.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

KAFKA_VERSION = "4.0.0"  # its classes run on Java 17
_POM = """<project xmlns="http://maven.apache.org/POM/4.0.0">
<modelVersion>4.0.0</modelVersion><groupId>penstock</groupId><artifactId>oracle</artifactId><version>1</version>
<packaging>pom</packaging><dependencies>
<dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>{0}</version></dependency>
<dependency><groupId>org.apache.kafka</groupId><artifactId>kafka-tools</artifactId><version>{0}</version></dependency>
</dependencies></project>
"""


def jar_directory() -> Path:
    """Where the jars are or will be."""
    return Path(os.environ.get("PENSTOCK_KAFKA_JARS") or Path.home() / ".cache" / "penstock-oracle")


def have_jars() -> bool:
    """Whether they were fetched."""
    return (jar_directory() / f"kafka_2.13-{KAFKA_VERSION}.jar").exists()


def fetch() -> None:
    """Fetch them. Raises `RuntimeError` with Maven's output when that fails."""
    maven = shutil.which("mvn")
    if maven is None:
        raise RuntimeError("mvn is not installed")
    with tempfile.TemporaryDirectory() as work:
        Path(work, "pom.xml").write_text(_POM.format(KAFKA_VERSION))
        command = [maven, "-q", "-B", "dependency:copy-dependencies", f"-DoutputDirectory={jar_directory()}"]
        done = subprocess.run(command, cwd=work, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"mvn failed: {done.stdout[-2000:]}{done.stderr[-2000:]}")


if __name__ == "__main__":
    if not have_jars():
        fetch()
    sys.stdout.write(f"{jar_directory()}\n")
