"""Errors of the event patterns."""

from __future__ import annotations

from typing import Any

import msgspec

from penstock.errors import ConcurrencyError, PenstockError

UNREADABLE = (msgspec.MsgspecError, UnicodeError, RecursionError)
"""What the JSON decoder raises of bytes from elsewhere: no JSON of that kind, no UTF-8, nested too deep."""


class InvalidEventError(PenstockError, ValueError):
    """Bytes, or data, that are not the event they claim to be; the message names the type and what is wrong."""


class UnknownEventTypeError(PenstockError, KeyError):
    """No class is known for an event's type."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class IncompatibleSchemaError(PenstockError, ValueError):
    """A new version of an event type cannot read what was written (or the other way round).

    Attribute: `problems`, one line each.
    """

    def __init__(self, message: str, problems: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.problems = problems


class WrongVersionError(ConcurrencyError):
    """A stream is not as expected, or an event came that must not have; nothing was stored.

    Attributes: `stream` (None where a query decided), `expected_version`, `actual_version` (-1: no stream), `position`
    (of the event that matched the query, else None).
    """

    def __init__(
        self,
        message: str,
        stream: str | None = None,
        expected_version: Any = None,
        actual_version: int = -1,
        position: int | None = None,
    ) -> None:
        super().__init__(message)
        self.stream = stream
        self.expected_version = expected_version
        self.actual_version = actual_version
        self.position = position

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self), self.stream, self.expected_version, self.actual_version, self.position)


class StreamDeletedError(PenstockError, KeyError):
    """The stream was tombstoned: it can neither be read nor appended to, for ever."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class AggregateNotFoundError(PenstockError, KeyError):
    """The aggregate has no events."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class UnknownSubscriptionError(PenstockError, KeyError):
    """The store has no persistent subscription of this name."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class LostKeyError(PenstockError, KeyError):
    """The key of personal data is not there, and was not destroyed by forgetting: restore the file of the keys."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""
