"""Arguments of the store's calls, checked in one place."""

from __future__ import annotations

import sys
from datetime import datetime, timedelta

from penstock.errors import InvalidArgumentError, InvalidTypeError

INT64_MAX = (1 << 63) - 1
_AGE_MAX_S = INT64_MAX // 1024


def check_stream(stream: object, name: str = "stream") -> bytes:
    """The UTF-8 of a stream's (or a category's) name. Raises `InvalidTypeError`, `InvalidArgumentError`."""
    if not isinstance(stream, str) or not stream:
        raise InvalidTypeError(f"{name} is {stream!r}; a str that is not empty is needed")
    try:
        return stream.encode()
    except UnicodeEncodeError as error:
        raise InvalidArgumentError(f"{name} is {stream!r}; valid Unicode is needed") from error


def checked_int(name: str, value: object, least: int = 0) -> int:
    """An int of at least so much, and of 64 bits."""
    if type(value) is not int:
        raise InvalidTypeError(f"{name} is {value!r}; an int is needed")
    if not least <= value <= INT64_MAX:
        raise InvalidArgumentError(f"{name} is {value}; allowed is {least} to {INT64_MAX}")
    return value


def checked_limit(limit: object) -> int | None:
    """How many events; None: all."""
    if limit is None:
        return None
    return checked_int("limit", min(limit, sys.maxsize) if type(limit) is int else limit)


def split_until(until: object) -> tuple[int | None, datetime | None]:
    """The number and the time of `until`: one of both, or neither."""
    if until is None:
        return None, None
    if not isinstance(until, datetime):
        return checked_int("until", until), None
    if until.tzinfo is None:
        raise InvalidArgumentError(f"until is {until!r}; a datetime with a time zone is needed")
    return None, until


def checked_age_ms(max_age: object) -> int:
    """Milliseconds of a `max_age`."""
    seconds = max_age.total_seconds() if isinstance(max_age, timedelta) else max_age
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 < seconds <= _AGE_MAX_S:
        raise InvalidArgumentError(
            f"max_age is {max_age!r}; seconds (> 0, up to {_AGE_MAX_S}) or a timedelta is needed"
        )
    return round(seconds * 1000)
