"""Which event is being handled: correlation and causation are carried on from it by themselves."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from penstock.events.envelope import Envelope

_current: ContextVar[Envelope | None] = ContextVar("penstock_envelope", default=None)


def current_envelope() -> Envelope | None:
    """The envelope of the event that this thread or task handles; None outside of handlers."""
    return _current.get()


class handling:
    """While the block runs, events that are published are caused by this one."""

    __slots__ = ("_envelope", "_token")

    def __init__(self, envelope: Envelope) -> None:
        self._envelope = envelope

    def __enter__(self) -> None:
        self._token = _current.set(self._envelope)

    def __exit__(self, *_: object) -> None:
        _current.reset(self._token)
