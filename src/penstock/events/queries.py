"""Queries: questions to read models, answered by their handlers, if wanted not before the read model is up to date."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from typing import Any, TypeVar

from penstock.errors import InvalidConfigError, InvalidTypeError
from penstock.events.checks import check_keywords, check_plain, is_async
from penstock.events.commands import _handler_of, _validated
from penstock.events.projector import Projector

F = TypeVar("F", bound=Callable[..., Any])


class QueryBus:
    """Takes questions (msgspec structs or dataclasses) to their handlers.

    queries = QueryBus()

    @queries.handler(OrderTotal, projector=projector)
    def total(query):
        return db.execute("SELECT total FROM orders WHERE id = ?", (query.order_id,)).fetchone()

    queries.ask(OrderTotal("o-1"), after=position)
    """

    def __init__(self) -> None:
        self._handlers: dict[type, tuple[Callable[..., Any], Projector | None]] = {}

    def handler(self, query_class: type, projector: Projector | None = None) -> Callable[[F], F]:
        """Decorator of the one function, sync or async, that answers questions of a class. `projector`: of the read
        model that it reads. Raises `InvalidConfigError` (the class has a handler), `InvalidTypeError`.
        """
        if not isinstance(query_class, type):
            raise InvalidTypeError(f"query_class is {query_class!r}; a class is needed")
        if projector is not None and not isinstance(projector, Projector):
            raise InvalidTypeError(f"projector is {projector!r}; a Projector or None is needed")

        def register(function: F) -> F:
            if query_class in self._handlers:
                raise InvalidConfigError(f"{query_class.__name__} has a handler already")
            if not callable(function):
                raise InvalidTypeError(f"handler is {function!r}; a callable is needed")
            check_plain("handler", function)
            check_keywords("handler", function)
            self._handlers[query_class] = (function, projector)
            return function

        return register

    def ask(self, query: Any, after: Any = None, timeout: float = 1.0) -> Any:
        """The answer. `after`: a position that the read model must have reached, which is waited for, `timeout`
        seconds at most: so one reads one's own writes.

        Raises `InvalidCommandError` (fields of wrong types), `UnknownCommandError`, `WaitTimeoutError`,
        `InvalidConfigError` (an async handler: await `ask_async`).
        """
        function, projector = _handler_of(self._handlers, query)
        if is_async(function):
            raise InvalidConfigError(f"the handler of {type(query).__name__} is async; await ask_async instead")
        _validated(query)
        _wait(query, projector, after, timeout)
        return function(query)

    async def ask_async(self, query: Any, after: Any = None, timeout: float = 1.0) -> Any:
        """`ask` for asyncio; handlers may be of either kind. The wait for a position is in a thread."""
        function, projector = _handler_of(self._handlers, query)
        _validated(query)
        if after is not None:
            await asyncio.to_thread(_wait, query, projector, after, timeout)
        answer = function(query)
        return await answer if inspect.isawaitable(answer) else answer

    def __repr__(self) -> str:
        return f"<QueryBus handlers={sorted(one.__name__ for one in self._handlers)}>"


def _wait(query: Any, projector: Projector | None, after: Any, timeout: float) -> None:
    if after is None:
        return
    if projector is None:
        raise InvalidConfigError(f"after is {after!r}; the handler of {type(query).__name__} names no projector")
    projector.wait_for(after, timeout)
