"""Where a consumer starts in a partition for which it has no position, or one that is not in the log any more."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Protocol

from penstock.clock import Clock
from penstock.errors import InvalidConfigError

_BY_DURATION = "by_duration:"
_DURATION = re.compile(
    r"P(?:(?P<days>\d+)D)?(?:T(?=\d)(?:(?P<hours>\d+)H)?(?:(?P<minutes>\d+)M)?(?:(?P<seconds>\d+(?:\.\d{1,9})?)S)?)?",
    re.ASCII | re.IGNORECASE,
)
_UNIT_MS = {"days": 86_400_000, "hours": 3_600_000, "minutes": 60_000, "seconds": 1000}
_ALLOWED = "'earliest', 'latest', 'none' or 'by_duration:' and an ISO-8601 duration such as PT1H"


class OffsetLog(Protocol):
    """What is asked of a partition log."""

    @property
    def log_start_offset(self) -> int:
        """The first offset that can be read."""

    @property
    def log_end_offset(self) -> int:
        """The offset the next record will get."""

    def offset_for_timestamp(self, timestamp_ms: int) -> tuple[int, int] | None:
        """Offset and timestamp of the first record at or after `timestamp_ms`, or None."""


@dataclass(frozen=True)
class OffsetReset:
    """Kafka's `auto.offset.reset`. `text` is what was configured; `duration_ms` only for `by_duration:`."""

    text: str
    duration_ms: int | None = None

    @classmethod
    def parse(cls, text: Any) -> OffsetReset:
        """The policy named `text`; `InvalidConfigError` when there is none."""
        if text in ("earliest", "latest", "none"):
            return cls(text)
        if isinstance(text, str) and text.startswith(_BY_DURATION):
            return cls(text, _duration_ms(text))
        raise InvalidConfigError(f"auto_offset_reset is {text!r}; give {_ALLOWED}")

    def start_offset(self, log: OffsetLog, clock: Clock) -> int | None:
        """Where to start in `log` now; None when the policy is "none"."""
        if self.text == "earliest":
            return log.log_start_offset
        if self.duration_ms is not None:
            found = log.offset_for_timestamp(max(clock.time_ms() - self.duration_ms, 0))
            return log.log_end_offset if found is None else found[0]
        return log.log_end_offset if self.text == "latest" else None


def _duration_ms(text: str) -> int:
    match = _DURATION.fullmatch(text, len(_BY_DURATION))
    parts = {unit: value for unit, value in match.groupdict().items() if value} if match else {}
    if not parts:
        raise InvalidConfigError(f"auto_offset_reset is {text!r}; give {_ALLOWED}")
    return round(sum(float(value) * _UNIT_MS[unit] for unit, value in parts.items()))
