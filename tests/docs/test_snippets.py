"""The command line section of README does what it says, line by line."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path

import pytest
from children import run

pytest.importorskip("typer")

README = Path(__file__).parents[2] / "README.md"
PROGRAM = "from penstock.cli import main; main()"


def documented_commands() -> list[list[str]]:
    """The arguments after `penstock`, one list for each line of the section's block."""
    section = README.read_text(encoding="utf-8").split("## The command line", 1)[1]
    block = re.findall(r"```bash\n(.*?)```", section, re.DOTALL)[0]
    lines = [shlex.split(line, comments=True) for line in block.splitlines() if line.strip()]
    assert all(line[0] == "penstock" for line in lines)
    return [line[1:] for line in lines]


def test_command_line_section_runs(tmp_path: Path) -> None:
    (tmp_path / "orders.csv").write_text("CustomerID,Total\n7,4200\n8,150\n", encoding="utf-8")
    environment = {name: value for name, value in os.environ.items() if name != "PENSTOCK_DATA"}
    output = {}
    for arguments in documented_commands():
        done = run(PROGRAM, *arguments, cwd=tmp_path, env=environment, text=True)
        assert done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}"
        output[arguments[0]] = done.stdout
    assert output["consume"].count("\n") == 2, "two orders were produced"
    assert "orders" in output["topics"]
