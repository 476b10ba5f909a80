"""How an event, or the state of a stream, is a record of the log: see docs/event-store.md. The one place that knows.

An event: key = stream name, value = the envelope's JSON, headers `version` (in the stream, decimal), `type`, `schema`
(the type's version, decimal) and one `tag` for each tag. A state: key = stream name, value = JSON, header `state`.
"""

from __future__ import annotations

from collections.abc import Sequence

from penstock._native.records import Record
from penstock.errors import CorruptionError

VERSION = "version"
TYPE = "type"
SCHEMA = "schema"
TAG = "tag"
STATE = "state"

Headers = list[tuple[str, bytes | None]]


def event_headers(version: int, event_type: str, schema: int, tags: Sequence[str]) -> Headers:
    """The headers of an event's record."""
    headers: Headers = [(VERSION, b"%d" % version), (TYPE, event_type.encode()), (SCHEMA, b"%d" % schema)]
    headers += [(TAG, tag.encode()) for tag in tags]
    return headers


def is_event(record: Record) -> bool:
    """Whether the record is an event's; what others put into the topic is passed over."""
    return record.key is not None and [name for name, _ in record.headers[:3]] == [VERSION, TYPE, SCHEMA]


def version_of(record: Record) -> int:
    """An event's version in its stream. Raises `CorruptionError`."""
    for name, value in record.headers:
        if name == VERSION and value is not None:
            return int(value)
    raise CorruptionError(f"the record at offset {record.offset} is no event", "", record.offset, "a version", None)


def category_of(stream: str) -> str:
    """The part of a stream's name before the first "-"; all of it where there is none."""
    return stream.partition("-")[0]


def stream_term(stream: str) -> bytes:
    """What the index calls a stream's events."""
    return b"s" + stream.encode()


def state_term(stream: str) -> bytes:
    """What the index calls a stream's states."""
    return b"l" + stream.encode()


def type_term(event_type: str) -> bytes:
    """What the index calls the events of a type."""
    return b"t" + event_type.encode()


def tag_term(tag: str) -> bytes:
    """What the index calls the events with a tag."""
    return b"g" + tag.encode()


def category_term(category: str) -> bytes:
    """What the index calls the events of a category."""
    return b"c" + category.encode()


ALL_STATES = b"l"
"""What the index calls the states of all streams."""
