"""Every snippet of the pages on the bus, CQRS, resilience and testing runs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from children import run

DOCS = Path(__file__).parents[2] / "docs"


def snippets(page: str) -> list[str]:
    found: list[str] = re.findall(r"```python\n(.*?)```", (DOCS / f"{page}.md").read_text(encoding="utf-8"), re.DOTALL)
    assert found
    return found


@pytest.mark.parametrize("page", ["event-bus", "cqrs", "resilience"])
def test_snippets_run(page: str, tmp_path: Path) -> None:
    for number, snippet in enumerate(snippets(page)):
        place = tmp_path / str(number)
        place.mkdir()
        done = run(snippet, cwd=place, text=True)
        assert done.returncode == 0, done.stderr


def test_the_page_on_testing_is_a_test(tmp_path: Path) -> None:
    (tmp_path / "test_page.py").write_text("\n".join(snippets("testing")), encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "penstock.testing", "-p", "no:cacheprovider"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0 and "4 passed" in done.stdout, done.stdout + done.stderr
