"""The offset that a user means: a place in the log, a point in time, or so long ago."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import Any

from penstock._native.words import OFFSET_MAX
from penstock.clock import Clock
from penstock.errors import InvalidArgumentError, InvalidTypeError
from penstock.streams.offset_reset import OffsetLog, OffsetReset

TIMESTAMP_FROM = 10**11  # an int from here on is a time in milliseconds
_TIMESTAMP_MAX = 253_402_300_799_000  # the end of the year 9999


def target_offset(name: str, to: Any, log: OffsetLog, clock: Clock) -> int:
    """The offset of `to` in `log`: "earliest", "latest", "by_duration:PT1H", an offset (int), a point in time
    (`datetime`, or an int of milliseconds since the epoch, from 10**11 on) or so long ago (`timedelta`).

    A time means the first record with a timestamp at or after it. `name`: of the argument, for errors:
    `InvalidArgumentError`, `InvalidTypeError`, `InvalidConfigError`.
    """
    if isinstance(to, int) and to >= TIMESTAMP_FROM:
        to = datetime.fromtimestamp(min(to, _TIMESTAMP_MAX) / 1000, UTC)
    if isinstance(to, int) and not isinstance(to, bool):
        if not 0 <= to <= OFFSET_MAX:
            raise InvalidArgumentError(f"{name} is {to}; an offset from 0 to {OFFSET_MAX} is allowed")
        return to
    if isinstance(to, (datetime, timedelta)):
        if isinstance(to, timedelta):
            since_ms = clock.time_ms() - to // timedelta(milliseconds=1)
        else:
            since_ms = math.ceil(round(to.timestamp() * 1e6) / 1000)
        found = log.offset_for_timestamp(max(since_ms, 0))
        return log.log_end_offset if found is None else found[0]
    if isinstance(to, str) and to != "none":
        start = OffsetReset.parse(to).start_offset(log, clock)
        return log.log_start_offset if start is None else start
    raise InvalidTypeError(
        f"{name} is {to!r}; give 'earliest', 'latest', 'by_duration:PT1H', an offset, a datetime or a timedelta"
    )
