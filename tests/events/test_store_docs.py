"""The page about the event store: its snippets run, one after another."""

from __future__ import annotations

import re
from pathlib import Path

from children import run

PAGE = Path(__file__).parents[2] / "docs" / "event-store.md"


def test_the_snippets_run(tmp_path: Path) -> None:
    snippets = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(snippets) >= 2
    program = "\n".join(snippets)
    done = run(program, cwd=tmp_path, text=True)
    assert done.returncode == 0, done.stderr
