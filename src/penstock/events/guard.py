"""What circuit breakers, bulkheads and rate limits have in common: context managers and decorators, sync and async."""

from __future__ import annotations

import asyncio
import functools
import inspect
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator
from contextlib import closing
from types import TracebackType
from typing import Any, Self, TypeVar, cast

from penstock.clock import Clock, SystemClock
from penstock.errors import InvalidArgumentError, InvalidTypeError
from penstock.events.checks import checked_clock

F = TypeVar("F", bound=Callable[..., Any])
SLICE_S = 0.01
"""How long a waiting thread or task sleeps before it looks at a virtual clock again."""


class Guard(ABC):
    """Stands before a call: lets it through, lets it wait, or refuses it with a `BackPressureError`.

    `with guard: ...`, `async with guard: ...`, or `@guard` over a function or a coroutine function.
    """

    def __init__(self, clock: Clock | None) -> None:
        self.clock: Clock = checked_clock(clock) or SystemClock()

    @abstractmethod
    def _entering(self) -> Generator[float, None, None]:
        """Ends when the call may be made; until then, yields how many seconds to wait before it is asked again; or
        raises. Closed when whoever waits gives up."""

    @abstractmethod
    def _leave(self, error: BaseException | None) -> None:
        """The call ended, with `error` or well."""

    def _slice(self, wait_s: float) -> float:
        return wait_s if type(self.clock) is SystemClock else min(wait_s, SLICE_S)

    def __enter__(self) -> Self:
        with closing(self._entering()) as entering:
            for wait_s in entering:
                time.sleep(self._slice(wait_s))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave(error)

    async def __aenter__(self) -> Self:
        with closing(self._entering()) as entering:
            for wait_s in entering:
                await asyncio.sleep(self._slice(wait_s))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave(error)

    def call(self, function: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """The result of `function(*args, **options)`, guarded; of a coroutine function: what to await. Raises what
        guards refuse with, and what the function raises."""
        return self(function)(*args, **options)

    def __call__(self, function: F) -> F:
        """The function, guarded."""
        if not callable(function):
            raise InvalidTypeError(f"function is {function!r}; a callable is needed")
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def guarded_async(*args: Any, **options: Any) -> Any:
                async with self:
                    return await function(*args, **options)

            return cast(F, guarded_async)

        @functools.wraps(function)
        def guarded(*args: Any, **options: Any) -> Any:
            with self:
                return function(*args, **options)

        return cast(F, guarded)


def checked_number(name: str, value: object, least: float, most: float, *, whole: bool = False) -> Any:
    """A number inside its limits, or an error that says what is allowed."""
    kind: Any = int if whole else (int, float)
    if isinstance(value, bool) or not isinstance(value, kind) or not least <= value <= most:
        what = "an int" if whole else "a number"
        raise InvalidArgumentError(f"{name} is {value!r}; allowed is {what} from {least:g} to {most:g}")
    return value


def checked_exceptions(name: str, value: object) -> tuple[type[BaseException], ...]:
    """A tuple of exception classes, or an error."""
    found = value if isinstance(value, tuple) else (value,)
    for one in found:
        if not (isinstance(one, type) and issubclass(one, BaseException)):
            raise InvalidTypeError(f"{name} is {value!r}; exception classes are needed")
    return found
