"""What has to be done however a block ends, so that what went wrong first is what is raised."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from penstock.error_text import line_of

Action = Callable[[], object]


@contextmanager
def at_the_end(**actions: Action) -> Iterator[None]:
    """Take these actions, in their order and each whatever the others raise, when the block ends.

    The first error is raised, the block's before any other; later ones are notes on it, with the name of the action.
    """
    first: BaseException | None = None
    try:
        try:
            yield
        except BaseException as error:
            first = error
        for name, action in actions.items():
            try:
                action()
            except Exception as error:
                first = _noted(first, name, error)
        if first is not None:
            raise first
    finally:
        first = None  # it refers to this frame


def after(first: BaseException, name: str, action: Action) -> None:
    """Take an action because of an error that is about to be raised: what the action raises is a note on that."""
    try:
        action()
    except Exception as error:
        _noted(first, name, error)


def _noted(first: BaseException | None, name: str, error: Exception) -> BaseException:
    if first is None:
        return error
    first.add_note(f"and then {name} failed: {line_of(error)}")
    return first
