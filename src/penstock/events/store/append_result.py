"""Where events were stored."""

from __future__ import annotations

from typing import NamedTuple


class AppendResult(NamedTuple):
    """Where events were stored."""

    version: int
    """Version of the last one in its stream, from 0."""
    position: int
    """Global position of the last one, from 1."""
