"""Finished turns, one line each, so that an interrupted run goes on where it stopped (`--resume`)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

Key = tuple[str, str, int]  # workload, side, round


class State:
    """A file of lines under the data directory. The first says what was asked for: other sizes are another run."""

    def __init__(self, path: Path, asked: dict[str, Any], *, resume: bool) -> None:
        self._path = path
        self._done: dict[Key, dict[str, Any]] = {}
        lines = path.read_text().splitlines() if resume and path.exists() else []
        # a line that the interruption cut short is not valid, and so is not there
        entries = [entry for line in lines if (entry := _parsed(line)) is not None]
        if entries and entries[0] == {"asked": asked}:
            for entry in entries[1:]:
                self._done[(entry["workload"], entry["side"], entry["round"])] = entry["outcome"]
        self._write([{"asked": asked}, *(_line(key, outcome) for key, outcome in self._done.items())])

    def get(self, key: Key) -> dict[str, Any] | None:
        """The outcome of a finished turn."""
        return self._done.get(key)

    def put(self, key: Key, outcome: dict[str, Any]) -> None:
        """Keep an outcome: the figures of a turn, or {"failed": reason}."""
        self._done[key] = outcome
        with open(self._path, "a") as out:
            out.write(json.dumps(_line(key, outcome)) + "\n")

    def __len__(self) -> int:
        return len(self._done)

    def _write(self, entries: list[dict[str, Any]]) -> None:
        self._path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))


def _line(key: Key, outcome: dict[str, Any]) -> dict[str, Any]:
    return {"workload": key[0], "side": key[1], "round": key[2], "outcome": outcome}


def _parsed(line: str) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads(line)
    except json.JSONDecodeError:
        return None
    return found
