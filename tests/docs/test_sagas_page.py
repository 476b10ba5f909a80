"""The snippets of docs/sagas.md run, one after another in one program."""

from __future__ import annotations

import re
from pathlib import Path

from children import run

PAGE = Path(__file__).parents[2] / "docs" / "sagas.md"


def test_snippets_run(tmp_path: Path) -> None:
    snippets = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(snippets) >= 3
    done = run("\n".join(snippets), cwd=tmp_path, text=True)
    assert done.returncode == 0, done.stderr
    assert "'order-1' failed in step 'charge_card'" in done.stdout
