"""The base of typed events: a msgspec struct whose fields are the envelope's data."""

from __future__ import annotations

from typing import Any, ClassVar

import msgspec

from penstock.errors import InvalidArgumentError
from penstock.events.registry import registry


def _check(name: str, type_name: object, version: object) -> None:
    if type_name is not None and (not isinstance(type_name, str) or not type_name):
        raise InvalidArgumentError(f"type of {name} is {type_name!r}; allowed is a str that is not empty")
    if type(version) is not int or version < 1:
        raise InvalidArgumentError(f"version of {name} is {version!r}; allowed is an int from 1")


class EventMeta(msgspec.StructMeta):
    """Takes `type` and `version` of an event class and registers it."""

    def __new__(
        mcls,
        name: str,
        bases: tuple[type, ...],
        namespace: dict[str, Any],
        *,
        type: str | None = None,
        version: int = 1,
        **struct_options: Any,
    ) -> Any:
        _check(name, type, version)
        struct_options.setdefault("frozen", True)
        cls: Any = super().__new__(mcls, name, bases, namespace, **struct_options)
        cls.event_type = name if type is None else type
        cls.event_version = version
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
    """

    event_type: ClassVar[str]
    event_version: ClassVar[int]
