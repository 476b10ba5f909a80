"""A clock whose wall time tests set forward and back."""

from __future__ import annotations

from penstock import VirtualClock


class JumpingClock(VirtualClock):
    """`advance` moves both times; `jump` the wall's only, as an administrator or a time server does."""

    def jump(self, seconds: float) -> None:
        """Set the wall clock by so many seconds, below 0: back."""
        self._start_ms += round(seconds * 1000)
