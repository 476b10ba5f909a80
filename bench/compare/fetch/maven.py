"""Java archives with everything they need, by `mvn dependency:copy-dependencies` on a project made for it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from bench.compare.model import Absent

_POM = """<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
<groupId>penstock</groupId><artifactId>{name}</artifactId><version>1</version><packaging>pom</packaging>
<dependencies>{dependencies}</dependencies></project>
"""
_DEPENDENCY = "<dependency><groupId>{}</groupId><artifactId>{}</artifactId><version>{}</version></dependency>"


def get(name: str, artifacts: tuple[str, ...], cache: Path) -> Path:
    """The directory of the jars. `artifacts`: "group:artifact:version". Raises `Absent`."""
    directory = cache / "jars" / name
    if (directory / "complete").exists():
        return directory
    if shutil.which("mvn") is None or shutil.which("java") is None:
        raise Absent("mvn and java (JDK 17) are needed, and not on the path")
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    dependencies = "".join(_DEPENDENCY.format(*artifact.split(":")) for artifact in artifacts)
    (directory / "pom.xml").write_text(_POM.format(name=name, dependencies=dependencies))
    command = ["mvn", "-q", "-B", "dependency:copy-dependencies", f"-DoutputDirectory={directory}"]
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False, timeout=600)
    if done.returncode:
        raise Absent(f"mvn could not fetch {', '.join(artifacts)}: {done.stdout.strip()[-300:]}")
    (directory / "complete").touch()
    return directory
