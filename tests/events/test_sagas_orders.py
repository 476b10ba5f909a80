"""The order system by its one command, and its own tests."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(*arguments: str, cwd: Path = ROOT) -> str:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, timeout=110
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("how", [["-m", "examples.orders"], [str(ROOT / "examples" / "orders")]], ids=["-m", "path"])
def test_one_command(tmp_path: Path, how: list[str]) -> None:
    table = tmp_path / "orders.csv"
    rows = [f"{number},2010-12-01,17850,{number % 997}.25" for number in range(536_000, 536_080)]
    table.write_text("\n".join(["InvoiceNo,InvoiceDate,CustomerID,TotalPrice", *rows]), encoding="utf-8")
    printed = run(*how, "--data", str(table), "--plain", "--kills", "1", "--kill-every", "0.6", "--poison", "1")
    assert printed.count("  BALANCED") == 2, printed
    assert "choreography: 80 orders (orders.csv)" in printed
    assert "orchestration: 80 orders (orders.csv)" in printed


def test_its_own_tests() -> None:
    assert " passed" in run("-m", "pytest", "-q", str(ROOT / "examples" / "orders" / "tests"))
