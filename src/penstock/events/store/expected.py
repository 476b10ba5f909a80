"""What a caller expects of a stream before events are appended to it."""

from __future__ import annotations

import enum

from penstock.errors import InvalidArgumentError
from penstock.events.errors import StreamDeletedError, WrongVersionError
from penstock.events.store.stream_state import Stream


class ExpectedVersion(enum.Enum):
    """An expected version other than a number."""

    ANY = "any"
    """Whatever there is."""
    NO_STREAM = "no stream"
    """The stream does not exist (it may have been deleted)."""
    STREAM_EXISTS = "stream exists"
    """The stream has events."""


ANY = ExpectedVersion.ANY
NO_STREAM = ExpectedVersion.NO_STREAM
STREAM_EXISTS = ExpectedVersion.STREAM_EXISTS
Expected = ExpectedVersion | int


def check_expected(expected: Expected) -> None:
    """Refuse what is no expected version."""
    if isinstance(expected, ExpectedVersion) or (type(expected) is int and expected >= 0):
        return
    raise InvalidArgumentError(
        f"expected_version is {expected!r}; allowed are events.ANY, NO_STREAM, STREAM_EXISTS or an int from 0"
    )


def fits(stream: Stream, expected: Expected) -> bool:
    """Whether the stream is as expected. Raises `StreamDeletedError` when it was tombstoned."""
    if stream.tombstoned:
        raise StreamDeletedError(f"stream {stream.name!r} was deleted for ever (tombstone)")
    if expected is ANY:
        return True
    if expected is NO_STREAM:
        return not stream.exists
    if expected is STREAM_EXISTS:
        return stream.exists
    return stream.last_version == expected


def wrong_version(stream: Stream, expected: Expected) -> WrongVersionError:
    """The error that says what was expected and what is."""
    wanted = expected.value if isinstance(expected, ExpectedVersion) else f"version {expected}"
    actual = f"version {stream.version}" if stream.exists else "no stream"
    return WrongVersionError(
        f"stream {stream.name!r}: expected {wanted}, there is {actual}", stream.name, expected, stream.version
    )
