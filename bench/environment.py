"""What a measurement ran on: printed with every table and kept with every result."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path

import penstock

PACKAGES = ("numpy", "lz4", "fastcrc", "rocksdict", "lmdb")


def environment(directory: Path) -> dict[str, str]:
    """Machine, system and versions."""
    found = {
        "cpu": _cpu(),
        "cores": str(os.cpu_count()),
        "system": platform.platform(),
        "python": platform.python_version(),
        "file system": _file_system(directory),
        "penstock": penstock.__version__,
    }
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _file_system(directory: Path) -> str:
    done = subprocess.run(["df", "-PT", str(directory)], capture_output=True, text=True, check=False)
    lines = done.stdout.splitlines()
    return lines[1].split()[1] if done.returncode == 0 and len(lines) > 1 else "unknown"
