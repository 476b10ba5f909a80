"""Given events, when something happens, then events (or a state, or an error): tests in the words of the model.

Each `then_*` raises `AssertionError` with both sides; every method returns the scenario, so that they chain.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, Self, TypeVar

from penstock import Broker, VirtualClock
from penstock.errors import InvalidTypeError
from penstock.events import (
    Aggregate,
    Event,
    EventStore,
    Projection,
    Projector,
    SagaFailedError,
    SagaHandle,
    Sagas,
    SagaTimeoutError,
)

A = TypeVar("A", bound=Aggregate)


class _Outcome:
    """What a `when` led to."""

    def __init__(self) -> None:
        self.result: Any = None
        self.error: Exception | None = None

    def _do(self, action: Callable[[], Any]) -> None:
        self._raise_unexpected()
        try:
            self.result = action()
        except Exception as error:
            self.error = error

    def _raise_unexpected(self) -> None:
        """An error that no `then_raises` took is the test's."""
        error, self.error = self.error, None
        if error is not None:
            raise error

    def then_raises(self, error: type[BaseException], match: str = "") -> Self:
        """The `when` raised this error, with `match` in its text."""
        found, self.error = self.error, None
        assert isinstance(found, error), f"expected {error.__name__}, got {found!r}"
        assert match in str(found), f"expected {match!r} in the error, got {str(found)!r}"
        return self

    def then_returns(self, expected: Any) -> Self:
        """The `when` returned this."""
        self._raise_unexpected()
        assert self.result == expected, f"expected the result {expected!r}, got {self.result!r}"
        return self


class AggregateScenario(_Outcome, Generic[A]):
    """One aggregate, without a store."""

    def __init__(self, aggregate_class: type[A], id: str = "test-1") -> None:
        super().__init__()
        self.aggregate: A = aggregate_class(id)
        self._known = 0

    def given(self, *events: Event) -> Self:
        """These events happened before."""
        for event in events:
            self.aggregate.record(event)
        self._known = len(self.aggregate.pending)
        return self

    def when(self, action: Callable[[A], Any] | str, *arguments: Any, **options: Any) -> Self:
        """Call a method by its name, or a function with the aggregate first."""
        function = getattr(type(self.aggregate), action) if isinstance(action, str) else action
        self._do(lambda: function(self.aggregate, *arguments, **options))
        return self

    def then(self, *events: Event) -> Self:
        """Exactly these events were recorded since `given`."""
        self._raise_unexpected()
        found = list(self.aggregate.pending[self._known :])
        assert found == list(events), f"expected the events {list(events)!r}, got {found!r}"
        return self

    def then_state(self, **expected: Any) -> Self:
        """The aggregate's attributes have these values."""
        self._raise_unexpected()
        found = {name: getattr(self.aggregate, name) for name in expected}
        assert found == expected, f"expected the state {expected!r}, got {found!r}"
        return self


class Scenario(_Outcome):
    """An event store, and whatever acts on it: commands, handlers, functions."""

    def __init__(self, store: EventStore) -> None:
        super().__init__()
        self.store = store
        self._position = store.position

    def given(self, stream: str, *events: Event) -> Self:
        """These events were appended to a stream before."""
        self.store.append(stream, list(events))
        self._position = self.store.position
        return self

    def when(self, action: Callable[..., Any], *arguments: Any, **options: Any) -> Self:
        """Call something: `when(commands.dispatch, PlaceOrder("o-1"))`."""
        self._do(lambda: action(*arguments, **options))
        return self

    def then(self, *events: Event) -> Self:
        """Exactly these events were appended since, in any streams; what command buses note is left out."""
        self._raise_unexpected()
        new = [one for one in self.store.read_all(after=self._position) if not one.stream.startswith("$command-")]
        found = [one.event for one in new]
        assert found == list(events), f"expected the events {list(events)!r}, got {found!r}"
        return self


class ProjectionScenario:
    """One projection, in a database of its own."""

    def __init__(self, broker: Broker, projection: Projection, database: Any = ":memory:", store: str = "scenario"):
        self.store = EventStore(broker, store)
        self.projector = Projector(self.store, projection, database)
        self._count = 0

    @property
    def db(self) -> Any:
        """The database."""
        return self.projector.database

    def given(self, *events: Event, stream: str = "test-1") -> Self:
        """These events happened, and were projected."""
        if events:
            self.store.append(stream, list(events))
        self.projector.run_once()
        return self

    when = given

    def then_rows(self, statement: str, *expected: tuple[Any, ...]) -> Self:
        """A SQL query gives exactly these rows."""
        cursor = self.db.cursor()
        cursor.execute(statement)
        found = [tuple(row) for row in cursor.fetchall()]
        cursor.close()
        assert found == list(expected), f"expected the rows {list(expected)!r}, got {found!r}"
        return self

    def then(self, check: Callable[[Any], Any]) -> Self:
        """`check(db)` is true."""
        assert check(self.db), f"the check {check!r} failed on {self.db!r}"
        return self

    def close(self) -> None:
        """Close the database, if the scenario opened it."""
        self.projector.close()


class SagaScenario(_Outcome):
    """Sagas that run in the test's thread, on a virtual clock; `InvalidTypeError` when their broker has another."""

    def __init__(self, sagas: Sagas) -> None:
        super().__init__()
        clock = sagas.broker.clock
        if not isinstance(clock, VirtualClock):
            raise InvalidTypeError("the sagas' broker has no VirtualClock; open it with clock=penstock.VirtualClock()")
        self.sagas = sagas
        self.clock: VirtualClock = clock
        self.handle: SagaHandle | None = None

    def when_started(self, definition: str | Callable[..., Any], *arguments: Any, saga_id: str = "test-1") -> Self:
        """Start a saga, and run what can run."""
        self.handle = self.sagas.start(definition, *arguments, saga_id=saga_id)
        self.sagas.run_until_idle()
        return self

    def when_signalled(self, name: str, data: Any = None) -> Self:
        """Signal the saga, and run what can run."""
        self.sagas.signal(self._started().saga_id, name, data)
        self.sagas.run_until_idle()
        return self

    def when_time_passes(self, seconds: float) -> Self:
        """Advance the clock, and run what can run."""
        self.clock.advance(seconds)
        self.sagas.run_until_idle()
        return self

    def then_status(self, expected: str) -> Self:
        """The saga has this status."""
        found = self._started().status
        assert found == expected, f"expected the status {expected!r}, got {found!r}"
        return self

    def then_result(self, expected: Any) -> Self:
        """The saga is completed with this result."""
        handle = self._started()
        try:
            found = handle.result(timeout=0)
        except (SagaFailedError, SagaTimeoutError) as error:
            raise AssertionError(f"expected the result {expected!r}, got {error!r}") from error
        assert found == expected, f"expected the result {expected!r}, got {found!r}"
        return self

    def _started(self) -> SagaHandle:
        if self.handle is None:
            raise InvalidTypeError("no saga was started; call when_started first")
        return self.handle
