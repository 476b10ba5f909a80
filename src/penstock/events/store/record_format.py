"""How an event, or the state of a stream, is a record of the log: see docs/event-store.md. The one place that knows.

An event: key = stream name, value = the envelope's JSON, headers `version` (in the stream, decimal), `type`, `schema`
(the type's version, decimal) and one `tag` for each tag. A state: key = stream name, value = JSON, header `state`.
"""

from __future__ import annotations

from collections.abc import Sequence

VERSION = "version"
TYPE = "type"
SCHEMA = "schema"
TAG = "tag"
STATE = "state"

Headers = list[tuple[str, bytes | None]]


def event_headers(version: int, event_type: str, schema: int, tags: Sequence[str] = ()) -> Headers:
    """The headers of an event's record."""
    own: Headers = [(VERSION, b"%d" % version)]
    return own + type_headers(event_type, schema) + [(TAG, tag.encode()) for tag in tags]


def is_state(headers: Headers) -> bool:
    """Whether a record with these headers is the state of a stream."""
    return any(name == STATE for name, _ in headers)


def type_headers(event_type: str, schema: int) -> Headers:
    """The headers of an event's record that follow `version`."""
    return [(TYPE, event_type.encode()), (SCHEMA, b"%d" % schema)]


def category_of(stream: str) -> str:
    """The part of a stream's name before the first "-"; all of it where there is none."""
    return stream.partition("-")[0]


def is_in_category(stream: str, category: str) -> bool:
    """Whether a stream's name is `category`, or goes on behind it with "-"."""
    return stream.startswith(category) and stream[len(category) : len(category) + 1] in ("-", "")


STREAM_TERM = b"s"
"""What the index calls a stream's events: this and the stream's name; so for the others."""
STATE_TERM = b"l"
TYPE_TERM = b"t"
TAG_TERM = b"g"
CATEGORY_TERM = b"c"
ALL_STATES = STATE_TERM
"""What the index calls the states of all streams: no stream has an empty name."""


def type_term(event_type: str) -> bytes:
    """What the index calls the events of a type."""
    return TYPE_TERM + event_type.encode()


def tag_term(tag: str) -> bytes:
    """What the index calls the events with a tag."""
    return TAG_TERM + tag.encode()


def category_term(category: str) -> bytes:
    """What the index calls the events of a category; of one with "-", those of what is before it."""
    return CATEGORY_TERM + category_of(category).encode()
