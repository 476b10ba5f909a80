"""Errors of the event patterns."""

from __future__ import annotations

from penstock.errors import PenstockError


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
