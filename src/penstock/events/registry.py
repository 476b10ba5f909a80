"""The schema registry: event types with their versions, upcasters from old ones, and what may change between them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

import msgspec

from penstock._native.stored_events import Decoders
from penstock.errors import InvalidArgumentError, InvalidTypeError
from penstock.events.checks import check_unicode
from penstock.events.compatibility import MODES, problems_between
from penstock.events.errors import UNREADABLE, IncompatibleSchemaError, InvalidEventError, UnknownEventTypeError

if TYPE_CHECKING:
    from penstock.events.event import Event

Data = dict[str, Any]
Upcaster = Callable[[Data], Data]
SEALED = "$personal"
"""What the data of an event with sealed fields have instead of them."""
SEALED_MARK = b'"$personal":{"key":"'
"""Is in the stored bytes of every envelope that has sealed fields."""


class Registry:
    """Event classes by type and version. Classes register themselves when they are defined; defining a type and version
    again replaces it. Thread-safe.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._classes: dict[str, dict[int, type[Event]]] = {}
        self._latest: dict[str, type[Event]] = {}
        self._upcasters: dict[tuple[str, int], Upcaster] = {}
        self.generation = 0
        """Grows whenever a class or an upcaster is added: what was derived from them has to be derived again."""
        self.decoders = Decoders(self._plain_decoder, UNREADABLE, SEALED_MARK)
        """How the data of stored events are decoded; for native code."""

    def register(self, cls: type[Event]) -> None:
        """Make a class known under its type and version."""
        _checked_class("cls", cls)
        with self._lock:
            versions = self._classes.setdefault(cls.event_type, {})
            versions[cls.event_version] = cls
            self._latest[cls.event_type] = versions[max(versions)]
            self.generation += 1
            self.decoders.forget()

    def types(self) -> dict[str, list[int]]:
        """The versions known of every type."""
        with self._lock:
            return {name: sorted(versions) for name, versions in sorted(self._classes.items())}

    def get(self, event_type: str, version: int | None = None) -> type[Event]:
        """The class of a type and version (default: the latest), or `UnknownEventTypeError`;
        `InvalidTypeError`."""
        if not isinstance(event_type, str) or (version is not None and type(version) is not int):
            name, given = ("version", version) if isinstance(event_type, str) else ("event_type", event_type)
            raise InvalidTypeError(f"{name} is {given!r}; the name of a type, and an int or None, are needed")
        known = self._latest.get(event_type) if version is None else self._classes.get(event_type, {}).get(version)
        if known is None:
            which = event_type if version is None else f"{event_type} version {version}"
            raise UnknownEventTypeError(f"no class is known for event {which}; known types: {sorted(self._classes)}")
        return known

    def upcaster(self, event_type: str, from_version: int) -> Callable[[Upcaster], Upcaster]:
        """Decorator of a function that turns the data of `from_version` into that of the version after it.

        It gets and returns a dict of JSON values. Old events are migrated when they are read, one version after
        another; stored bytes never change. Raises `InvalidTypeError`, `InvalidArgumentError` (a version below 1).
        """
        if not isinstance(event_type, str) or not event_type:
            raise InvalidTypeError(f"event_type is {event_type!r}; a str that is not empty is needed")
        if type(from_version) is not int or from_version < 1:
            raise InvalidArgumentError(f"from_version is {from_version!r}; allowed is an int from 1")

        check_unicode("event_type", event_type)

        def register(function: Upcaster) -> Upcaster:
            if not callable(function):
                raise InvalidTypeError(f"upcaster of {event_type!r} is {function!r}; a function of a dict is needed")
            with self._lock:
                self._upcasters[event_type, from_version] = function
                self.generation += 1
                self.decoders.forget()
            return function

        return register

    def decode(self, event_type: str, version: int, data: bytes | msgspec.Raw, cls: type[Event] | None = None) -> Event:
        """The typed event: `data` (JSON) of a version, as an object of `cls` (default: the latest class of the type).

        A version newer than the class is read as far as the class knows its fields. Raises `UnknownEventTypeError`,
        `InvalidEventError`.
        """
        cls = self.get(event_type) if cls is None else _checked_class("cls", cls)
        if type(version) is not int or not isinstance(data, (bytes, bytearray, memoryview, str, msgspec.Raw)):
            raise InvalidTypeError(f"version is {version!r} and data is {data!r}; an int, and JSON are needed")
        try:
            if version >= cls.event_version or not self._has_upcaster(event_type, version, cls.event_version):
                event: Event = msgspec.json.decode(data, type=cls)
                return event
            upcast = self._upcast(event_type, version, cls.event_version, msgspec.json.decode(data))
            return msgspec.convert(upcast, cls)
        except UNREADABLE as error:
            target = f"{event_type} version {cls.event_version}"
            raise InvalidEventError(f"data of {event_type} version {version} are no {target}: {error}") from error

    def upcasts(self, event_type: str, version: int) -> bool:
        """Whether data of this version are changed by upcasters on their way to the latest class. Raises
        `InvalidTypeError`."""
        if type(version) is not int:
            raise InvalidTypeError(f"version is {version!r}; an int is needed")
        return self._has_upcaster(event_type, version, self.get(event_type).event_version)

    def _plain_decoder(self, event_type: str, version: int) -> Callable[[bytes], Any] | None:
        """Decodes data of a version to the latest class; None when that takes more: see `decode`."""
        cls = self._latest.get(event_type)
        if cls is None or (version < cls.event_version and self._has_upcaster(event_type, version, cls.event_version)):
            return None
        return msgspec.json.Decoder(cls).decode

    def _has_upcaster(self, event_type: str, start: int, end: int) -> bool:
        return any(name == event_type and start <= version < end for name, version in self._upcasters)

    def _upcast(self, event_type: str, start: int, end: int, data: Data) -> Data:
        steps = [version for name, version in self._upcasters if name == event_type and start <= version < end]
        for version in sorted(steps):  # those without differ by optional fields
            data = self._upcasters[event_type, version](data)
        return data

    def schema(self, event_type: str, version: int | None = None) -> dict[str, Any]:
        """The JSON Schema of an event's data."""
        return msgspec.json.schema(self.get(event_type, version))

    def check_compatibility(self, old: type[Event], new: type[Event], mode: str = "backward") -> None:
        """Refuse a change of schema with `IncompatibleSchemaError`, as a schema registry does.

        `mode`: "backward" (`new` reads what `old` wrote), "forward" (`old` reads what `new` writes) or "full" (both);
        `InvalidArgumentError` for another.
        """
        if mode not in MODES:
            raise InvalidArgumentError(f"mode is {mode!r}; allowed are {', '.join(map(repr, MODES))}")
        problems = problems_between(_checked_class("old", old), _checked_class("new", new), mode)
        if problems:
            which = f"{new.event_type} version {new.event_version} against version {old.event_version}"
            raise IncompatibleSchemaError(f"{which} is not {mode} compatible: {'; '.join(problems)}", tuple(problems))


def _checked_class(name: str, cls: Any) -> type[Event]:
    if not isinstance(cls, type) or not issubclass(cls, msgspec.Struct) or not hasattr(cls, "event_version"):
        raise InvalidTypeError(f"{name} is {cls!r}; an Event class is needed")
    return cast("type[Event]", cls)


registry = Registry()
