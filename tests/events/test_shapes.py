"""Events that are taken without decoding them are those that can be decoded."""

from __future__ import annotations

import datetime
import enum
import uuid
from typing import Annotated, Any, Literal

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock import events
from penstock._native.shapes import INT, STR, Shape, all_fit
from penstock.errors import InvalidTypeError
from penstock.events.shapes import shape_of


class Point(msgspec.Struct, frozen=True):
    x: float
    label: str | None = None


class Text(str):
    pass


class Color(enum.Enum):
    RED = "red"


class Wide(events.Event, type="ShapesWide"):
    number: int
    name: str | None
    ratio: float
    yes: bool
    raw: bytes
    at: datetime.datetime
    day: datetime.date
    id: uuid.UUID
    points: list[Point]
    pair: tuple[int, ...]
    table: dict[str, list[int | None]]


class Node(events.Event, type="ShapesNode"):
    children: list[Node]


class Checked(events.Event, type="ShapesChecked"):
    name: str

    def __post_init__(self) -> None:
        assert self.name


class Small(events.Event, type="ShapesSmall"):
    size: Annotated[int, msgspec.Meta(lt=10)]


class Colored(events.Event, type="ShapesColored"):
    color: Color | None


class Named(events.Event, type="ShapesNamed"):
    name: Literal["a", "b"]


class Free(events.Event, type="ShapesFree"):
    anything: Any


class Strict(events.Event, type="ShapesStrict"):
    names: Annotated[list[str], msgspec.Meta(min_length=1)]


class Keyed(events.Event, type="ShapesKeyed"):
    names: dict[int, str]


PLAIN: dict[str, Any] = {
    "number": -5,
    "name": "n",
    "ratio": 1.5,
    "yes": True,
    "raw": b"\xff",
    "at": datetime.datetime(2026, 1, 2, 3, 4, 5, 6, datetime.UTC),
    "day": datetime.date(2026, 1, 2),
    "id": uuid.UUID(int=7),
    "points": [Point(1, "a"), Point(2.5)],
    "pair": (1, 2),
    "table": {"k": [1, None]},
}
ZONE = datetime.timezone(datetime.timedelta(hours=1))
values = st.recursive(
    st.one_of(
        st.sampled_from([None, True, Color.RED, Text("t"), PLAIN["at"], PLAIN["day"], PLAIN["id"], Point(1.0)]),
        st.sampled_from([Point("x"), Point(float("nan")), PLAIN["at"].astimezone(ZONE), 2**64, -(2**63), "\ud800"]),
        st.integers(-(2**53), 2**53),
        st.floats(),
        st.text(max_size=3),
        st.binary(max_size=3),
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2) | st.integers(), inner, max_size=2),
    max_leaves=4,
)


@settings(max_examples=200, deadline=None)
@given(changes=st.dictionaries(st.sampled_from(sorted(PLAIN)), values, max_size=2))
def test_what_fits_can_be_read_again(changes: dict[str, Any]) -> None:
    event = Wide(**{**PLAIN, **changes})
    if all_fit([event], {Wide: shape_of(Wide)}):
        try:
            raw = msgspec.json.encode(event)
        except UnicodeEncodeError:
            return  # text is looked at when it is encoded
        again = msgspec.json.encode(msgspec.json.decode(raw, type=Wide))
        assert msgspec.json.decode(again) == msgspec.json.decode(raw)  # a whole number is equal to its float


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *list(PLAIN.items()),
        ("name", None),
        ("ratio", 3),
        ("at", datetime.datetime(2026, 1, 2)),
        ("points", (Point(1),)),
        ("pair", [1]),
        ("number", 2**63 - 1),
        ("number", -(2**63)),
        ("table", {}),
        ("points", []),
    ],
)
def test_plain_values_fit(name: str, value: Any) -> None:
    assert all_fit([Wide(**{**PLAIN, name: value})], {Wide: shape_of(Wide)})


@pytest.mark.parametrize(
    ("name", "value"),
    [(name, value) for name in PLAIN for value in (object(), {1}, {1: 2}, Text("x"), [Text("x")], 2**63, float("inf"))]
    + [("number", True), ("yes", 1), ("name", b"n"), ("raw", "n"), ("day", PLAIN["at"]), ("at", PLAIN["day"])]
    + [("at", PLAIN["at"].astimezone(ZONE)), ("points", [Point("x")]), ("points", [Point(1, 5)]), ("table", {"k": 1})]
    + [("id", "7"), ("pair", (1, "2")), ("table", {"k": [1.5]}), ("ratio", "1"), ("points", [None])],
)
def test_others_do_not_fit(name: str, value: Any) -> None:
    assert not all_fit([Wide(**{**PLAIN, name: value})], {Wide: shape_of(Wide)})


@pytest.mark.parametrize("cls", [Node, Checked, Small, Colored, Named, Free, Strict, Keyed])
def test_classes_that_need_decoding(cls: type) -> None:
    assert shape_of(cls) is None


def test_a_field_that_is_not_set_does_not_fit() -> None:
    class Loose(msgspec.Struct):
        x: float

    event = Loose(1.0)
    assert all_fit([event], {Loose: shape_of(Loose)})
    del event.x
    assert not all_fit([event], {Loose: shape_of(Loose)})


def test_one_bad_event_and_unknown_classes() -> None:
    good, bad = Point(1), Point(None)
    shapes = {Point: shape_of(Point)}
    assert all_fit([], shapes) and all_fit([good] * 3, shapes)
    assert not all_fit([good, good, bad], shapes)
    assert not all_fit([good, Small(1)], shapes)
    assert not all_fit([good, Small(1)], {**shapes, Small: None})


def test_only_slots_are_looked_into() -> None:
    class Open:
        size = property(lambda self: 1)

    with pytest.raises(InvalidTypeError, match="a slot is needed"):
        Shape(0, struct=Open, fields=[("size", Shape(INT))])
    with pytest.raises(InvalidTypeError, match="a Shape is needed"):
        Shape(0, struct=Point, fields=[("x", STR)])  # type: ignore[list-item]
