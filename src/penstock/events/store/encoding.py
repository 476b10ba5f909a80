"""Events into the records of a batch: what can be prepared once is, the rest is native.

The JSON is exactly that of `Envelope.to_json`; ids and time are given once, so that a second attempt stores the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, cast

import msgspec

from penstock._native.builder import BatchBuilder, encode_headers
from penstock._native.envelopes import Kind, Template, append_envelope, append_events
from penstock.clock import Clock
from penstock.errors import InvalidArgumentError, InvalidTypeError
from penstock.events.checks import checked_text, metadata_json
from penstock.events.context import current_envelope
from penstock.events.envelope import UNKNOWN, Envelope
from penstock.events.erasure import Erasure
from penstock.events.event import Event
from penstock.events.message_id import new_seed, reserve_stamps
from penstock.events.personal import personal_fields
from penstock.events.store import record_format as rf
from penstock.events.store.query import check_tags
from penstock.events.validation import checked_lines

Events = Event | Envelope | Iterable[Event | Envelope]
_encoder = msgspec.json.Encoder()
_encode = _encoder.encode
_NO_TAGS = (b"", 0)
TagHeaders = tuple[bytes, int]


class PreparedEvents:
    """Events of one stream that still need their versions: `append_to(builder, key, version)`."""

    __slots__ = ("_all_tags", "_common_tags", "_data", "_events", "_kinds", "_seed", "_stamp", "_template", "_time_ms")
    given_ids: list[str] | None = None

    def __init__(
        self,
        events: list[Event],
        lines: bytes,
        kinds: dict[type, Kind],
        template: Template,
        time_ms: int,
        tags: TagHeaders,
        own: Any,
    ) -> None:
        self._events = events
        self._kinds = kinds
        self._template = template
        self._time_ms = time_ms
        self._common_tags = tags
        self._all_tags: list[TagHeaders] | None = own
        self._data: bytes | list[bytes] = lines
        self._stamp = reserve_stamps(len(events))
        self._seed = new_seed()

    def __len__(self) -> int:
        return len(self._events)

    def append_to(self, builder: BatchBuilder, key: bytes, version: int) -> None:
        """Add the records; the first event gets `version`."""
        if not self._append(builder, key, version):  # raw JSON among the data has lines of its own
            self._data = [_encode(event) for event in self._events]
            self._append(builder, key, version)

    def _append(self, builder: BatchBuilder, key: bytes, version: int) -> bool:
        return append_events(
            builder, key, self._events, self._data, self._kinds, self._template, self._stamp, self._seed, version,
            self._time_ms, self._all_tags, *self._common_tags,
        )  # fmt: skip


class PreparedEnvelopes:
    """Envelopes of one stream that still need their versions; as `PreparedEvents`."""

    __slots__ = ("_records", "_time_ms", "given_ids")

    def __init__(self, envelopes: list[Envelope], tags: list[TagHeaders], time_ms: int, given: bool) -> None:
        self._time_ms = time_ms
        self.given_ids = [envelope.message_id for envelope in envelopes] if given else None
        self._records = []
        for envelope, (tag_headers, tag_count) in zip(envelopes, tags, strict=True):
            headers, count = encode_headers(rf.type_headers(envelope.type, envelope.version))
            self._records.append((envelope.to_json(), headers + tag_headers, count + tag_count))

    def __len__(self) -> int:
        return len(self._records)

    def append_to(self, builder: BatchBuilder, key: bytes, version: int) -> None:
        """Add the records; the first event gets `version`."""
        for place, (value, headers, count) in enumerate(self._records):
            append_envelope(builder, key, value, version + place, headers, count, self._time_ms)


class PreparedTogether:
    """Several appends to one stream as one; as `PreparedEvents`. They are not known from before."""

    __slots__ = ("_parts",)
    given_ids: list[str] | None = None

    def __init__(self, first: Prepared) -> None:
        self._parts = [first]

    def add(self, following: Prepared) -> None:
        """Append these as well."""
        self._parts.append(following)

    def __len__(self) -> int:
        return sum(map(len, self._parts))

    def append_to(self, builder: BatchBuilder, key: bytes, version: int) -> None:
        """Add the records; the first event gets `version`."""
        for part in self._parts:
            part.append_to(builder, key, version)
            version += len(part)


Prepared = PreparedEvents | PreparedEnvelopes | PreparedTogether


class Encoder:
    """Prepares events for a store whose envelopes name `source`. Any thread."""

    def __init__(self, source: str, clock: Clock, erasure: Erasure) -> None:
        self.source = checked_text("source", source)
        self.clock = clock
        self._kinds: dict[type, Kind] = {}
        self._tagged: set[type] = set()  # classes whose events have tags of their own
        self._personal: set[type] = set()  # classes with fields that are sealed
        self._erasure = erasure
        self._source_json = _encode(self.source)
        self._time = (-1, b"")

    def prepare(self, events: Events, metadata: Mapping[str, Any] | None, tags: Iterable[str]) -> Prepared:
        """Check and prepare. Raises `InvalidTypeError`, `InvalidArgumentError`, `InvalidEventError`."""
        items = [events] if isinstance(events, (Event, Envelope)) else _listed(events)
        if not items:
            raise InvalidArgumentError("events is empty; 1 or more are needed")
        common = check_tags(tags) if tags else []
        kinds = set(map(type, items))
        for cls in kinds:
            if cls not in self._kinds and cls is not Envelope:
                self._learn(cls)
        if Envelope in kinds or kinds & self._personal:
            return self._prepare_envelopes(items, metadata, common, Envelope in kinds)
        found = cast("list[Event]", items)
        lines = checked_lines(found, kinds)
        own = [_tag_headers([*common, *_own_tags(item)]) for item in items] if kinds & self._tagged else None
        time_ms = self.clock.time_ms()
        template = self._template(metadata, time_ms)
        encoded = _tag_headers(common) if common else _NO_TAGS
        return PreparedEvents(found, lines, self._kinds, template, time_ms, encoded, own)

    def _prepare_envelopes(
        self, items: list[Any], metadata: Mapping[str, Any] | None, common: list[str], given: bool
    ) -> Prepared:
        envelopes = [
            item
            if isinstance(item, Envelope)
            else Envelope.wrap(item, self.source, metadata=dict(metadata or {}), clock=self.clock)
            for item in items
        ]
        now_ms = self.clock.time_ms()
        tags = [_tag_headers([*common, *_own_tags(item)]) for item in items]
        return PreparedEnvelopes(self._erasure.seal(envelopes, now_ms), tags, now_ms, given)

    def _learn(self, cls: type) -> None:
        if not issubclass(cls, Event):
            raise InvalidTypeError(f"events has a {cls.__name__}; objects of Event classes or Envelopes are needed")
        head = b'","type":%b,"version":%d,"timestamp":' % (_encode(cls.event_type), cls.event_version)
        headers, _ = encode_headers(rf.type_headers(cls.event_type, cls.event_version))
        if hasattr(cls, "tags"):
            self._tagged.add(cls)
        if personal_fields(cls) is not None:
            self._personal.add(cls)
        self._kinds[cls] = Kind(head, headers)

    def _template(self, metadata: Mapping[str, Any] | None, time_ms: int) -> Template:
        cause = current_envelope()
        cached_ms, time = self._time
        if cached_ms != time_ms:
            time = _encode(datetime.fromtimestamp(time_ms / 1000, UTC))
            self._time = (time_ms, time)
        middle = b'%b,"source":%b,"correlationId":"' % (time, self._source_json)
        if cause is None:
            tail = b',"metadata":%b}' % metadata_json(UNKNOWN, metadata)
            return Template(middle, b'","data":', tail, True)
        inherited = {name: cause.metadata.get(name) for name in UNKNOWN}
        tail = b',"metadata":%b}' % metadata_json(inherited, metadata)
        before = b'%b,"causationId":%b,"data":' % (_encode(cause.correlation_id)[1:], _encode(cause.message_id))
        return Template(middle, before, tail, False)


def _tag_headers(tags: list[str]) -> TagHeaders:
    return encode_headers([(rf.TAG, tag.encode()) for tag in dict.fromkeys(tags)]) if tags else _NO_TAGS


def _own_tags(item: Any) -> list[str]:
    if isinstance(item, Envelope):
        item = item.payload
    return check_tags(getattr(item, "tags", ())) if isinstance(item, Event) else []


def _listed(events: Any) -> list[Any]:
    if isinstance(events, list):
        return events
    if isinstance(events, (str, bytes, Mapping)) or not isinstance(events, Iterable):
        raise InvalidTypeError(f"events is {type(events).__name__}; a list of events is needed")
    return list(events)
