"""Aggregates: objects whose state is what their events made of it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, ClassVar, Self

import msgspec

from penstock.errors import InvalidArgumentError, InvalidTypeError
from penstock.events.applies import AppliesMeta, applier_of
from penstock.events.errors import UnknownEventTypeError
from penstock.events.event import Event
from penstock.events.message_id import new_message_id

UNKNOWN_EVENTS = ("error", "ignore")
_MUTABLE = (list, dict, set, bytearray)
_RESERVED = frozenset({"id", "version", "stored_version", "pending", "record"})


class Aggregate(metaclass=AppliesMeta):
    """The unit of consistency: its methods decide, and record what they decided as events; events alone change it.

        class Account(Aggregate):
            balance_cents: int = 0

            def deposit(self, cents: int) -> None:
                self.record(Deposited(cents))

            @applies(Deposited)
            def _(self, event: Deposited) -> None:
                self.balance_cents += event.cents

    `Account("account-1")` is a new one (default id: a UUIDv7); `EventStore.load` builds one from its stream, which
    bears its id, and `EventStore.save` stores what it recorded. Defaults that are lists, dicts or sets are copied for
    every object; `msgspec.field(default_factory=...)` works as well. Not safe for threads to share.

    Options of the class, as keywords or attributes: `snapshot_every` (events; default None: no snapshots),
    `snapshot_version` (default 1; raise it when the methods that apply events change, so that older snapshots are not
    used), `unknown_events` ("error": an event that no method applies is an `UnknownEventTypeError`; "ignore").
    `id`: a str that is not empty (`InvalidTypeError`).
    """

    __slots__ = ("__dict__", "__weakref__", "_behind", "_id", "_keys", "_pending", "_snapshot_at", "_stored_version")

    snapshot_every: ClassVar[int | None] = None
    snapshot_version: ClassVar[int] = 1
    unknown_events: ClassVar[str] = "error"
    _factories: ClassVar[dict[str, Callable[[], Any]]] = {}

    _behind: bool  # events that others stored are missing in the state
    _id: str
    _pending: list[Event]
    _stored_version: int
    _snapshot_at: int  # the version of the last snapshot known; -1: none
    _keys: frozenset[str]  # ids of the keys of the personal data that the state was made of

    def __init_subclass__(
        cls,
        *,
        snapshot_every: int | None = None,
        snapshot_version: int | None = None,
        unknown_events: str | None = None,
        **options: Any,
    ) -> None:
        super().__init_subclass__(**options)
        given = {
            "snapshot_every": snapshot_every,
            "snapshot_version": snapshot_version,
            "unknown_events": unknown_events,
        }
        for name, value in given.items():
            if value is not None:
                setattr(cls, name, value)
        _check_options(cls)
        cls._factories = {**cls._factories, **_own_factories(cls)}

    def __new__(cls, *_: Any, **__: Any) -> Self:
        self = super().__new__(cls)
        self._id = ""
        self._behind = False
        self._pending = []
        self._stored_version = self._snapshot_at = -1
        self._keys = frozenset()
        if cls._factories:
            for name, factory in cls._factories.items():
                self.__dict__[name] = factory()
        return self

    def __init__(self, id: str | None = None) -> None:
        if id is not None and (not isinstance(id, str) or not id):
            raise InvalidTypeError(f"id is {id!r}; a str that is not empty is needed")
        self._id = id or new_message_id()

    @property
    def id(self) -> str:
        """Its name, which is that of its stream."""
        if not self._id:
            raise InvalidArgumentError(
                f"{type(self).__name__} has no id: its __init__ has to call super().__init__(id)"
            )
        return self._id

    @property
    def version(self) -> int:
        """The version of the last event that made its state, recorded ones included; -1: no event yet."""
        return self._stored_version + len(self._pending)

    @property
    def stored_version(self) -> int:
        """The version of the last event of its state that is stored; -1: none."""
        return self._stored_version

    @property
    def pending(self) -> tuple[Event, ...]:
        """What was recorded and is not yet stored."""
        return tuple(self._pending)

    def record(self, event: Event) -> None:
        """Apply an event now, to be stored by the next `EventStore.save`.

        What the method that applies it raises comes through, and the event is not recorded. Raises `InvalidTypeError`,
        `UnknownEventTypeError`.
        """
        if not isinstance(event, Event):
            raise InvalidTypeError(f"event is {type(event).__name__}; an object of an Event class is needed")
        apply = applier(type(self), type(event))
        if apply is not None:
            apply(self, event)
        self._pending.append(event)

    def __repr__(self) -> str:
        pending = f" pending={len(self._pending)}" if self._pending else ""
        return f"<{type(self).__name__} {self._id!r} version={self.version}{pending}>"


def applier(cls: type[Aggregate], event_class: type[Event]) -> Callable[..., Any] | None:
    """The method of an aggregate class that applies events of a class; None: they are to be ignored."""
    found = applier_of(cls, event_class)
    if found is None and cls.unknown_events == "error":
        raise UnknownEventTypeError(
            f"{cls.__name__} has no method that applies {event_class.event_type} events: decorate one by "
            f"@applies({event_class.__name__}), or make the class with unknown_events='ignore'"
        )
    return found


def check_snapshot_every(value: object) -> None:
    """Refuse what is no number of events."""
    if value is not None and (type(value) is not int or value < 1):
        raise InvalidArgumentError(f"snapshot_every is {value!r}; allowed are None and an int from 1")


def _check_options(cls: type[Aggregate]) -> None:
    check_snapshot_every(cls.snapshot_every)
    if type(cls.snapshot_version) is not int or cls.snapshot_version < 1:
        raise InvalidArgumentError(f"snapshot_version is {cls.snapshot_version!r}; allowed is an int from 1")
    if cls.unknown_events not in UNKNOWN_EVENTS:
        raise InvalidArgumentError(f"unknown_events is {cls.unknown_events!r}; allowed are 'error' and 'ignore'")
    taken = sorted(_RESERVED & vars(cls).keys())
    if taken:
        raise InvalidArgumentError(f"{cls.__name__} defines {', '.join(taken)}, which Aggregate has for itself")


def _own_factories(cls: type[Aggregate]) -> dict[str, Callable[[], Any]]:
    """What makes the defaults that objects must not share."""
    factories: dict[str, Callable[[], Any]] = {}
    for name, value in list(vars(cls).items()):
        if isinstance(value, type(msgspec.field())):
            delattr(cls, name)
            if value.default_factory is not msgspec.NODEFAULT:
                factories[name] = value.default_factory
            elif value.default is not msgspec.NODEFAULT:
                setattr(cls, name, value.default)
        elif type(value) in _MUTABLE and not name.startswith("_"):
            factories[name] = _copier(value)
    return factories


def _copier(value: Any) -> Callable[[], Any]:
    return (lambda: copy.deepcopy(value)) if value else type(value)
