"""The typed event of a record, whoever wrote the envelope and however."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock import events
from penstock._native.records import Record
from penstock.events.registry import registry
from penstock.events.store.recorded import RecordedEvent


class Noted(events.Event, type="RecordedNoted"):
    note: str
    more: Any = None


DATA = {"note": 'a "},{" b\\', "more": [{"data": {"note": "inner"}}, "]", {"metadata": {}}]}
MEMBERS: dict[str, Any] = {
    "messageId": "01a22429-dac7-7064-8260-60f6e496162d",
    "type": "RecordedNoted",
    "version": 1,
    "timestamp": "2026-11-28T21:57:32.487000Z",
    "source": "shop",
    "correlationId": "c",
    "data": DATA,
    "metadata": {"traceId": None, "userId": None},
}


def recorded(value: bytes, event_type: str = "RecordedNoted", version: int = 1) -> RecordedEvent:
    headers = [("version", b"0"), ("type", event_type.encode()), ("schema", b"%d" % version)]
    return RecordedEvent(Record("shop", 0, 0, 0, b"s", value, headers))


def compact(members: dict[str, Any]) -> bytes:
    return json.dumps(members, separators=(",", ":"), ensure_ascii=False).encode()


ODD: list[dict[str, Any]] = [
    {},
    {"source": '","data":{"note":"source"},"x":"'},
    {"source": "ends in \\"},
    {"source": ""},
    {"correlationId": 'data":'},
    {"metadata": {"data": {"note": "metadata"}}},
    {"metadata": {"data": {"note": "metadata"}, "metadata": {"traceId": None, "userId": None}}},
    {"metadata": {"t": '"}}'}},
    {"data": {"note": ""}},
    {"data": {"note": "x", "metadata": {"traceId": None, "userId": None}}},
]


@pytest.mark.parametrize("changes", ODD)
@pytest.mark.parametrize("order", ["as stored", "reversed", "data last", "metadata first", "with spaces", "more"])
def test_any_way_of_writing_it(changes: dict[str, Any], order: str) -> None:
    members = {**MEMBERS, **changes}
    if order == "reversed":
        members = dict(reversed(members.items()))
    if order == "data last":
        members["data"] = members.pop("data")
    if order == "metadata first":
        members = {"metadata": members.pop("metadata"), **members}
    if order == "more":
        members = {**members, "other": {"data": {"note": "other"}}, "metadata": members["metadata"]}
    value = json.dumps(members, indent=1).encode() if order == "with spaces" else compact(members)
    recorded(compact(MEMBERS)).event  # its tail is remembered  # noqa: B018
    for _ in range(2):
        assert recorded(value).event == Noted(members["data"]["note"], members["data"].get("more"))


text = st.text(alphabet='ab"\\{}[],:\n', max_size=6)
values = st.recursive(st.none() | text | st.integers(), lambda v: st.lists(v) | st.dictionaries(text, v), max_leaves=6)


@settings(max_examples=200, deadline=None)
@given(
    note=text,
    more=values,
    strings=st.tuples(text, text),
    metadata=st.dictionaries(text | st.just("data"), values, max_size=3),
)
def test_the_data_and_nothing_else(note: str, more: Any, strings: tuple[str, str], metadata: dict[str, Any]) -> None:
    changes = {"source": strings[0], "correlationId": strings[1], "metadata": metadata}
    members = {**MEMBERS, **changes, "data": {"note": note, "more": more}}
    assert recorded(compact(members)).event == Noted(note, more)


def test_what_is_cut_is_refused() -> None:
    value = compact(MEMBERS)
    for cut in range(len(value)):
        recorded(value).event  # noqa: B018
        with pytest.raises(events.InvalidEventError):
            recorded(value[:cut]).event  # noqa: B018


def test_data_that_are_no_event_of_the_type() -> None:
    event = recorded(compact({**MEMBERS, "data": {"note": 5}}))
    for _ in range(2):
        with pytest.raises(events.InvalidEventError, match="RecordedNoted"):
            event.event  # noqa: B018


def test_a_class_that_is_defined_again_decodes_what_is_read_next() -> None:
    value = compact({**MEMBERS, "type": "RecordedAgain", "data": {"note": "n"}})
    with pytest.raises(events.UnknownEventTypeError):
        recorded(value, "RecordedAgain").event  # noqa: B018

    class First(events.Event, type="RecordedAgain"):
        note: str

    assert type(recorded(value, "RecordedAgain").event) is First

    class Second(events.Event, type="RecordedAgain"):
        note: str

    assert type(recorded(value, "RecordedAgain").event) is Second

    class Third(events.Event, type="RecordedAgain", version=2):
        text: str

    registry.upcaster("RecordedAgain", 1)(lambda data: {"text": data["note"]})
    assert recorded(value, "RecordedAgain").event == Third("n")
    assert msgspec.json.decode(value)["data"] == {"note": "n"}
