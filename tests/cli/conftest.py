"""What the tests of the command line share."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import children
import pytest
import typer.testing
from typer.main import get_command

from penstock.cli.app import app

COMMAND = get_command(app)  # Typer would make all of it anew for each run
PROGRAM = "from penstock.cli import main; main()"
Penstock = Callable[..., subprocess.CompletedProcess[bytes]]


@pytest.fixture
def invoke(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Run a command in this process; its data directory is `tmp_path / "data"`."""
    monkeypatch.setenv("PENSTOCK_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(typer.testing, "_get_command", lambda _: COMMAND)

    def run(*arguments: object, **options: Any) -> Any:
        return typer.testing.CliRunner().invoke(app, [str(argument) for argument in arguments], **options)

    return run


@pytest.fixture
def penstock_command(tmp_path: Path) -> Penstock:
    """Run the command as a process of its own; its data directory is `tmp_path / "data"`."""
    environment = {**os.environ, "PENSTOCK_DATA": str(tmp_path / "data"), "COLUMNS": "200"}

    def run(*arguments: object, **options: Any) -> subprocess.CompletedProcess[bytes]:
        return children.run(PROGRAM, *arguments, env=environment, cwd=tmp_path, **options)

    return run
