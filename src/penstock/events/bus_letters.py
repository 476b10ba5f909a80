"""Dead letters of a bus: what a group gave up, why, and another try for it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from penstock import Message
from penstock.events.envelope import Envelope
from penstock.events.errors import InvalidEventError


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """An event that a group of handlers gave up; looked at, not taken."""

    group: str
    """The group that gave it up."""
    reason: str
    """"delivery_limit" (failed as often as its retry policy allows) or "rejected" (not to be tried again)."""
    error: str
    """The traceback of the last failure, or why it cannot be read."""
    attempts: int
    """How often it was delivered."""
    value: bytes
    """What was published, as it is stored."""
    key: bytes | None
    """Its key."""
    envelope: Envelope | None
    """What was published; None when that is no envelope."""
    timestamp_ms: int
    """When it was given up, in milliseconds since the epoch."""


def dead_letter(message: Message, group: str) -> DeadLetter:
    """The letter that a message of a queue of dead letters is."""
    try:
        envelope = Envelope.from_json(message.value)
    except InvalidEventError:
        envelope = None
    headers = message.headers
    return DeadLetter(
        group,
        _text(headers, "reason"),
        _text(headers, "error"),
        int(_text(headers, "delivery-count") or 0),
        message.value,
        message.key,
        envelope,
        message.timestamp_ms,
    )


def _text(headers: Iterable[tuple[str, bytes | None]], name: str) -> str:
    found = (value for key, value in headers if key == f"dead-letter-{name}" and value)
    return next(found, b"").decode("utf-8", "replace")
