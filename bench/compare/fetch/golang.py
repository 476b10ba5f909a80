"""Programs of Go modules, built by `go install` into the cache."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from bench.compare.model import Absent


def get(module: str, version: str, cache: Path) -> Path:
    """The program. Raises `Absent`."""
    name = next(part for part in reversed(module.split("/")) if not part.startswith("v"))
    binary = cache / "go" / "bin" / name
    if binary.exists():
        return binary
    go = shutil.which("go")
    if go is None:
        raise Absent(f"{name} is not on the path, and there is no go to build it")
    environment = {
        **os.environ,
        "GOBIN": str(binary.parent),
        "GOPATH": str(cache / "go" / "path"),
        "GOFLAGS": "-modcacherw",
        "GOTOOLCHAIN": "local",
    }
    command = [go, "install", f"{module}@{version}"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=600)
    if done.returncode:
        raise Absent(f"go could not build {module}@{version}: {done.stderr.strip()[-300:]}")
    return binary
