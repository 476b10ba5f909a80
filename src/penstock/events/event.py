"""The base of typed events: a msgspec struct whose fields are the envelope's data."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

import msgspec

from penstock.errors import InvalidArgumentError, InvalidTypeError
from penstock.events.checks import check_unicode
from penstock.events.registry import registry

VERSION_MAX = (1 << 31) - 1


def _check(name: str, type_name: object, version: object) -> None:
    if type_name is not None and (not isinstance(type_name, str) or not type_name):
        raise InvalidArgumentError(f"type of {name} is {type_name!r}; allowed is a str that is not empty")
    if type_name is not None:
        check_unicode(f"type of {name}", type_name)
    if type(version) is not int or not 1 <= version <= VERSION_MAX:
        raise InvalidArgumentError(f"version of {name} is {version!r}; allowed is an int from 1 to {VERSION_MAX}")


def _personal_names(name: str, subject: object, personal: Iterable[str]) -> tuple[str, ...]:
    if subject is not None and (not isinstance(subject, str) or not subject):
        raise InvalidArgumentError(
            f"subject of {name} is {subject!r}; allowed is the name of a field, or a text with such"
        )
    if not isinstance(personal, Iterable):
        raise InvalidTypeError(f"personal of {name} is {personal!r}; names of its fields are needed")
    names = (personal,) if isinstance(personal, str) else tuple(personal)
    if not all(isinstance(item, str) and item for item in names):
        raise InvalidArgumentError(f"personal of {name} is {personal!r}; allowed are names of its fields")
    return names


class EventMeta(msgspec.StructMeta):
    """Takes `type`, `version`, `subject` and `personal` of an event class and registers it."""

    def __new__(
        mcls,
        name: str,
        bases: tuple[type, ...],
        namespace: dict[str, Any],
        *,
        type: str | None = None,
        version: int = 1,
        subject: str | None = None,
        personal: Iterable[str] = (),
        **struct_options: Any,
    ) -> Any:
        _check(name, type, version)
        names = _personal_names(name, subject, personal)
        struct_options.setdefault("frozen", True)
        cls: Any = super().__new__(mcls, name, bases, namespace, **struct_options)
        cls.event_type = name if type is None else str.__str__(type)
        cls.event_version = version
        if subject is not None or not hasattr(cls, "event_subject"):
            cls.event_subject = subject
        if names or not hasattr(cls, "event_personal"):
            cls.event_personal = names
        if any(isinstance(base, EventMeta) for base in bases):  # all but Event itself
            registry.register(cls)
        return cls


class Event(msgspec.Struct, metaclass=EventMeta):
    """What happened, in the past tense: subclass it with `type` (default: the class's name) and `version` (default 1).

        class OrderPlaced(Event, type="OrderPlaced", version=1):
            order_id: str
            total_cents: int

    Its fields are the envelope's data; they are validated when an event is read. Events are immutable (`frozen=False`
    as a class option lifts that). Other msgspec options (`rename`, `forbid_unknown_fields`, ...) may be given too.
    `personal`: fields that an event store can forget, and `subject`: whose they are; see docs/erasure.md.
    """

    event_type: ClassVar[str]
    event_version: ClassVar[int]
    event_subject: ClassVar[str | None]
    event_personal: ClassVar[tuple[str, ...]]
