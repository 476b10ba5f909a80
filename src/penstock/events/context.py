"""Which event is being handled: correlation and causation are carried on from it by themselves."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from penstock.events.envelope import Envelope

_current: ContextVar[Envelope | None] = ContextVar("penstock_envelope", default=None)


def current_envelope() -> Envelope | None:
    """The envelope of the event that this thread or task handles; None outside of handlers."""
    return _current.get()


@contextmanager
def handling(envelope: Envelope) -> Iterator[None]:
    """While the block runs, events that are published are caused by this one."""
    token = _current.set(envelope)
    try:
        yield
    finally:
        _current.reset(token)
