"""Events, their envelope and its forms on the wire."""

from __future__ import annotations

import json
import os

import pytest

from penstock import VirtualClock, events
from penstock.errors import InvalidArgumentError, InvalidTypeError
from penstock.events.message_id import new_message_id


class Placed(events.Event, type="OrderPlaced", version=2):
    order_id: str
    total_cents: int


def test_the_wire_form_is_exactly_the_documented_one() -> None:
    envelope = events.Envelope.wrap(Placed("o-1", 4200), source="shop", metadata={"userId": "u"}, clock=VirtualClock())
    assert json.loads(envelope.to_json()) == {
        "messageId": envelope.message_id,
        "type": "OrderPlaced",
        "version": 2,
        "timestamp": "2020-01-01T00:00:00Z",
        "source": "shop",
        "correlationId": envelope.message_id,
        "data": {"order_id": "o-1", "total_cents": 4200},
        "metadata": {"traceId": None, "userId": "u"},
    }


def test_a_round_trip_keeps_everything() -> None:
    envelope = events.Envelope.wrap(Placed("o-1", 4200), source="shop", causation_id="c", correlation_id="k")
    again = events.Envelope.from_json(envelope.to_json())
    assert again == envelope and again.event() == Placed("o-1", 4200) and again.data == envelope.data
    assert events.Envelope.from_cloudevent(envelope.to_cloudevent()) == envelope


def test_a_cloudevent_of_somebody_else() -> None:
    raw = b'{"specversion":"1.0","id":"7","source":"/x","type":"OrderPlaced","time":"2020-01-01T00:00:00Z","data":null}'
    envelope = events.Envelope.from_cloudevent(raw)
    assert (envelope.message_id, envelope.version, envelope.correlation_id, envelope.data) == ("7", 1, "7", {})


def test_attributes_of_a_cloudevent_without_a_place_in_the_envelope_come_back() -> None:
    raw = {
        "specversion": "1.0", "id": "7", "source": "/x", "type": "OrderPlaced", "time": "2020-01-01T00:00:00Z",
        "subject": "o-1", "traceparent": "00-1-2-03", "data": {"a": 1},
    }  # fmt: skip
    envelope = events.Envelope.from_cloudevent(raw)
    assert envelope.metadata == {"cloudEvent": {"subject": "o-1", "traceparent": "00-1-2-03"}}
    assert raw.items() <= envelope.to_cloudevent().items()
    assert events.Envelope.from_cloudevent(envelope.to_cloudevent()) == envelope


def test_data_of_a_cloudevent_in_base64() -> None:
    raw = {"specversion": "1.0", "id": "7", "source": "/x", "type": "OrderPlaced", "data_base64": "eyJhIjoxfQ=="}
    assert events.Envelope.from_cloudevent(raw).data == {"a": 1}
    for bad in ("/w==", "e", 3, "{}"):
        with pytest.raises(events.InvalidEventError, match="CloudEvent"):
            events.Envelope.from_cloudevent({**raw, "data_base64": bad})


@pytest.mark.parametrize(
    "content",
    [
        {"datacontenttype": "text/xml", "data": "<much wow='xml'/>"},
        {"datacontenttype": "image/png", "data_base64": "/w=="},
        {"datacontenttype": "application/json", "data_base64": "Nw=="},
        {"datacontenttype": "application/vnd.x+json; charset=utf-8", "data": 7},
        {"data": "text"},
    ],
)
def test_data_of_a_cloudevent_that_are_no_object_come_back(content: dict[str, object]) -> None:
    raw = {"specversion": "1.0", "id": "7", "source": "/x", "type": "OrderPlaced", "time": "2020-01-01T00:00:00Z"}
    envelope = events.Envelope.from_cloudevent({**raw, **content})
    assert envelope.data == {} and envelope.metadata == {"cloudEvent": content}
    found = events.Envelope.from_json(envelope.to_json()).to_cloudevent()
    assert found == {**raw, **content, "schemaversion": 1, "correlationid": "7"}


def test_an_event_of_an_old_class_is_migrated_as_one_that_was_read() -> None:
    class Old(events.Event, type="Ripened", version=1):
        name: str

    class New(events.Event, type="Ripened", version=2):
        name: str
        colour: str

    old = events.Envelope.wrap(Old("fig"), source="shop")
    with pytest.raises(events.InvalidEventError, match="colour"):
        old.event()
    events.registry.upcaster("Ripened", 1)(lambda data: {**data, "colour": "green"})
    assert old.event() == events.Envelope.from_json(old.to_json()).event() == New("fig", "green")
    assert old.event(Old) == Old("fig")


def test_data_that_are_no_json() -> None:
    raw = events.Envelope.wrap(Placed("o-1", 1), source="shop").to_json()
    deep = b"[" * 900 + b"]" * 900
    good = events.Envelope.from_json(raw)
    for wrong in (b'"o-\xff"', b"[" * 100_000 + b"]" * 100_000):
        with pytest.raises(events.InvalidEventError):
            bad = events.Envelope.from_json(raw.replace(b'"o-1"', wrong))
            assert bad != good and bad == events.Envelope.from_json(bad.to_json())
            with pytest.raises(events.InvalidEventError, match="JSON"):
                bad.data  # noqa: B018
            with pytest.raises(events.InvalidEventError, match="JSON"):
                bad.to_cloudevent()
            bad.event()
    assert events.Envelope.from_json(raw.replace(b'"o-1"', deep)) != good


def test_correlation_and_causation_are_carried_on() -> None:
    cause = events.Envelope.wrap(Placed("o-1", 1), source="shop", metadata={"traceId": "t"})
    with events.handling(cause):
        effect = events.Envelope.wrap(Placed("o-2", 1), source="shop")
    assert (effect.correlation_id, effect.causation_id) == (cause.correlation_id, cause.message_id)
    assert effect.metadata["traceId"] == "t"
    assert events.current_envelope() is None


@pytest.mark.parametrize(
    "raw",
    [
        b"", b"{", b"[]", b'{"type":"x"}', b"\xff", '{"messageId":1}', b"null", '{"messageId":"\ud800"}',
        b'{"a":' * 100_000,
    ],
)  # fmt: skip
def test_bytes_that_are_no_envelope(raw: bytes) -> None:
    with pytest.raises(events.InvalidEventError):
        events.Envelope.from_json(raw)


@pytest.mark.parametrize("raw", [b"", b"[]", {}, {"specversion": "0.3", "id": "1", "source": "s", "type": "t"}, b"1"])
def test_what_is_no_cloudevent(raw: bytes) -> None:
    with pytest.raises(events.InvalidEventError):
        events.Envelope.from_cloudevent(raw)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"version":2', b'"version":-9000000000000000000'),
        (b'"version":2', b'"version":0'),
        (b'Z","source"', b'","source"'),
        (b'"type":"OrderPlaced"', b'"type":""'),
        (b'"messageId":"', b'"messageId":"","m":"'),
        (b'"data":{', b'"data":1,"d":{'),
    ],
)
def test_members_that_nothing_can_be_done_with(old: bytes, new: bytes) -> None:
    raw = events.Envelope.wrap(Placed("o-1", 1), source="shop").to_json()
    assert old in raw
    with pytest.raises(events.InvalidEventError):
        events.Envelope.from_json(raw.replace(old, new))


def test_data_that_do_not_fit_the_class() -> None:
    envelope = events.Envelope.wrap(Placed("o-1", 1), source="shop")
    raw = envelope.to_json().replace(b'"total_cents":1', b'"total_cents":"one"')
    with pytest.raises(events.InvalidEventError, match="OrderPlaced version 2"):
        events.Envelope.from_json(raw).event()


def test_a_type_that_nobody_defined() -> None:
    raw = events.Envelope.wrap(Placed("o-1", 1), source="shop").to_json().replace(b"OrderPlaced", b"Unheard")
    with pytest.raises(events.UnknownEventTypeError, match="Unheard"):
        events.Envelope.from_json(raw).event()


def test_what_cannot_be_wrapped() -> None:
    with pytest.raises(InvalidTypeError, match="dict"):
        events.Envelope.wrap({"order_id": 1}, source="shop")  # type: ignore[arg-type]
    with pytest.raises(InvalidTypeError, match="source"):
        events.Envelope.wrap(Placed("o", 1), source="")


@pytest.mark.parametrize("options", [{"version": 0}, {"version": True}, {"type": ""}, {"type": 3}])
def test_impossible_types_and_versions(options: dict[str, object]) -> None:
    with pytest.raises(InvalidArgumentError):
        type(events.Event)("Wrong", (events.Event,), {}, **options)


def test_message_ids_rise_and_differ_after_a_fork() -> None:
    ids = [new_message_id() for _ in range(20_000)]
    assert ids == sorted(set(ids)) and ids[0][14] == "7" and ids[0][19] in "89ab"
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, new_message_id().encode())
        os._exit(0)
    mine = new_message_id()
    os.waitpid(child, 0)
    assert os.read(reader, 36).decode() != mine
    os.close(reader), os.close(writer)
