"""Versions of event types: upcasters and compatibility."""

from __future__ import annotations

from typing import Any

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
