"""Debian packages without installing them: fetched with what they need and unpacked below the cache.

Nothing is installed, no service is started, no right of an administrator is needed.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from bench.compare.model import Absent


def get(package: str, cache: Path) -> Path:
    """The directory in which the package and its missing dependencies are unpacked. Raises `Absent`."""
    root = cache / "debian" / package
    if (root / "complete").exists():
        return root
    if shutil.which("apt-get") is None or shutil.which("dpkg") is None:
        raise Absent(f"{package} is not on the path, and there is no apt-get to get it")
    shutil.rmtree(root, ignore_errors=True)
    archives = cache / "debian" / "archives"
    (archives / "partial").mkdir(parents=True, exist_ok=True)
    fetch = ["apt-get", "install", "-y", "--reinstall", "--no-install-recommends", "--download-only"]
    options = ["-o", f"Dir::Cache::archives={archives.resolve()}", "-o", "Debug::NoLocking=1"]
    _run([*fetch, *options, package], package)
    for archive in sorted(archives.glob("*.deb")):
        _run(["dpkg", "-x", str(archive), str(root)], package)
    (root / "complete").touch()
    return root


def _run(command: list[str], package: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, timeout=300)
    if done.returncode:
        raise Absent(f"{package} could not be fetched: {done.stderr.strip()[-200:]}")
