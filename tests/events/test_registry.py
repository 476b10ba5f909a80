"""Versions of event types: upcasters and compatibility."""

from __future__ import annotations

import enum
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Literal

import msgspec
import pytest

from penstock import events
from penstock.errors import InvalidArgumentError
from penstock.events import Registry


class Moved1(events.Event, type="Moved", version=1):
    person: str
    to: str


class Moved2(events.Event, type="Moved", version=2):
    person: str
    city: str
    zip_code: str | None = None


class Moved3(events.Event, type="Moved", version=3):
    person: str
    city: str
    country: str


@pytest.fixture
def registry() -> Registry:
    made = Registry()
    for cls in (Moved1, Moved2, Moved3):
        made.register(cls)

    @made.upcaster("Moved", from_version=1)
    def _(data: dict[str, object]) -> dict[str, object]:
        return {"person": data["person"], "city": data["to"]}

    @made.upcaster("Moved", from_version=2)
    def _(data: dict[str, object]) -> dict[str, object]:
        return {**data, "country": "unknown"}

    return made


def test_old_versions_are_migrated_one_after_another(registry: Registry) -> None:
    assert registry.decode("Moved", 1, b'{"person":"p","to":"Rome"}') == Moved3("p", "Rome", "unknown")
    assert registry.decode("Moved", 2, b'{"person":"p","city":"Rome"}') == Moved3("p", "Rome", "unknown")
    assert registry.decode("Moved", 1, b'{"person":"p","to":"Rome"}', Moved2) == Moved2("p", "Rome")


def test_an_old_version_that_no_upcaster_leads_from_is_refused() -> None:
    registry = Registry()
    registry.register(Moved3)
    with pytest.raises(events.InvalidEventError, match="Moved version 1 are no Moved version 3"):
        registry.decode("Moved", 1, b'{"person":"p","to":"Rome"}')


def test_a_newer_version_is_read_as_far_as_it_is_known(registry: Registry) -> None:
    raw = b'{"person":"p","city":"Rome","country":"it","planet":"earth"}'
    assert registry.decode("Moved", 4, raw) == Moved3("p", "Rome", "it")


def test_what_is_known(registry: Registry) -> None:
    assert registry.types() == {"Moved": [1, 2, 3]} and registry.get("Moved") is Moved3
    assert registry.get("Moved", 1) is Moved1
    with pytest.raises(events.UnknownEventTypeError, match="Moved version 9"):
        registry.get("Moved", 9)
    with pytest.raises(InvalidArgumentError):
        registry.upcaster("Moved", 0)
    assert "country" in str(registry.schema("Moved"))


def test_compatibility(registry: Registry) -> None:
    class Added(events.Event, type="Added", version=2):
        person: str
        to: str
        when: int | None = None

    class Wider(events.Event, type="Added", version=3):
        person: str
        to: str | int
        when: float | None = None

    registry.check_compatibility(Moved1, Added, "full")
    registry.check_compatibility(Added, Wider)
    with pytest.raises(events.IncompatibleSchemaError, match="to changes its type") as refused:
        registry.check_compatibility(Added, Wider, "forward")
    assert len(refused.value.problems) == 2
    with pytest.raises(events.IncompatibleSchemaError, match="country is required but missing"):
        registry.check_compatibility(Moved2, Moved3)
    with pytest.raises(InvalidArgumentError, match="sideways"):
        registry.check_compatibility(Moved2, Moved3, "sideways")


def test_a_version_far_below_the_first_is_read_at_once() -> None:
    class Far(events.Event, version=3):
        a: int

    @events.registry.upcaster("Far", 1)
    def up(data: dict[str, Any]) -> dict[str, Any]:
        return {"a": data["a"] + 1}

    assert events.registry.decode("Far", -(1 << 62), b'{"a": 1}') == Far(2)
    assert events.registry.upcasts("Far", -(1 << 62)) and not events.registry.upcasts("Far", 2)


class LineOld(msgspec.Struct):
    sku: str
    parts: list[LineOld] = []


class LineNew(msgspec.Struct):
    sku: str
    parts: list[LineNew] = []
    note: str = ""


class LineStrict(msgspec.Struct, forbid_unknown_fields=True):
    sku: str


class LineTagged(msgspec.Struct, tag="line"):
    sku: str
    parts: list[LineTagged] = []


class Few(enum.Enum):
    A = "a"


class More(enum.Enum):
    A = "a"
    B = "b"


Natural = Annotated[int, msgspec.Meta(ge=0)]
Positive = Annotated[int, msgspec.Meta(gt=0, title="more than nothing")]
Short = Annotated[str, msgspec.Meta(max_length=3)]


def _with_field(kind: Any) -> Any:
    return type(events.Event)("Odd", (events.Event,), {"__annotations__": {"field": kind}, "__module__": __name__})


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (int, float), (int, Decimal), (int, Any), (Natural, int), (Positive, Natural),
        (Natural, Annotated[float, msgspec.Meta(ge=-1)]),
        (Short, str), (Short, Annotated[str, msgspec.Meta(max_length=4)]), (str | int, str | int | None),
        (list[int], list[float]), (set[int], tuple[float, ...]),
        (Annotated[list[int], msgspec.Meta(max_length=2)], list[int]),
        (tuple[int, int], Annotated[list[float], msgspec.Meta(max_length=2)]), (tuple[int, str], tuple[float, str]),
        (dict[str, int], dict[str, float]), (list[LineOld], list[LineNew] | None), (LineStrict, LineNew),
        (Few, More), (Few, str), (More, Literal["a", "b", "c"]), (Literal[1, 2], int), (Literal[1, "a"], int | str),
        (datetime, str), (Decimal, str | None), (Annotated[datetime, msgspec.Meta(tz=True)], datetime),
    ],
)  # fmt: skip
def test_what_takes_in_more_is_compatible_one_way(old: Any, new: Any) -> None:
    made = [_with_field(kind) for kind in (old, new)]
    events.registry.check_compatibility(*made)
    events.registry.check_compatibility(made[0], made[0], "full")
    with pytest.raises(events.IncompatibleSchemaError, match="field changes its type"):
        events.registry.check_compatibility(*made, mode="forward")


@pytest.mark.parametrize(
    ("one", "other"), [(LineOld, LineNew), (set[int], list[int]), (dict[str, LineNew], dict[str, LineOld])]
)
def test_what_is_compatible_both_ways(one: Any, other: Any) -> None:
    events.registry.check_compatibility(_with_field(one), _with_field(other), "full")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (int, str), (bool, int), (bytes, datetime), (list[int], list[str]), (list[int], dict[str, int]),
        (Annotated[int, msgspec.Meta(multiple_of=2)], Annotated[int, msgspec.Meta(multiple_of=3)]),
        (Annotated[str, msgspec.Meta(pattern="a")], Annotated[str, msgspec.Meta(pattern="b")]),
        (Literal["a", "b"], Literal["b", "c"]), (tuple[int, int], tuple[int, int, int]), (LineOld, LineTagged),
        (LineOld, LineStrict), (Annotated[list[int], msgspec.Meta(max_length=2)], tuple[int, int, int]),
    ],
)  # fmt: skip
def test_what_is_something_else_is_not(one: Any, other: Any) -> None:
    made = [_with_field(kind) for kind in (one, other)]
    with pytest.raises(events.IncompatibleSchemaError, match="field changes its type"):
        events.registry.check_compatibility(*made)
    if other is not LineStrict:
        with pytest.raises(events.IncompatibleSchemaError, match="field changes its type"):
            events.registry.check_compatibility(*made, mode="forward")
