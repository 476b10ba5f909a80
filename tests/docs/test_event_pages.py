"""The snippets of the pages about events run, each page from its top to its end."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from children import run

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("page", ["events", "aggregates", "subscriptions", "erasure"])
def test_snippets_run(page: str, tmp_path: Path) -> None:
    snippets = re.findall(r"```python\n(.*?)```", (DOCS / f"{page}.md").read_text(encoding="utf-8"), re.DOTALL)
    assert snippets
    done = run("\n".join(snippets), cwd=tmp_path, text=True)
    assert done.returncode == 0, done.stderr
