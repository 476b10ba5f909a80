"""The fixtures of the pytest plugin. Importing this imports no event patterns: that is left to the fixtures."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from penstock import Broker, VirtualClock
    from penstock.testing.captured import CapturedEvents


@pytest.fixture
def penstock_clock() -> VirtualClock:
    """A clock that moves only by `advance(seconds)`: time-outs, retries and timers are tested without waiting."""
    from penstock import VirtualClock

    return VirtualClock()


@pytest.fixture
def penstock_broker(tmp_path: Path, penstock_clock: VirtualClock) -> Iterator[Broker]:
    """An open broker in a directory of the test's own, on `penstock_clock`; closed after the test."""
    import penstock

    with penstock.open(tmp_path / "penstock", fsync="never", clock=penstock_clock) as broker:
        yield broker


@pytest.fixture
def penstock_events(penstock_broker: Broker) -> CapturedEvents:
    """What is published to `penstock_broker` in this test."""
    from penstock.testing.captured import CapturedEvents

    return CapturedEvents(penstock_broker)


@pytest.fixture
def penstock_scenario(penstock_broker: Broker) -> Iterator[Scenarios]:
    """Makes scenarios: `.aggregate(Account)`, `.projection(Orders())`, `.sagas(sagas)`, `.store(store)`."""
    made = Scenarios(penstock_broker)
    yield made
    made.close()


class Scenarios:
    """What `penstock_scenario` gives: it makes scenarios over `penstock_broker`."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._projections: list[Any] = []

    def aggregate(self, aggregate_class: Any, id: str = "test-1") -> Any:
        """An `AggregateScenario`."""
        from penstock.testing.scenario import AggregateScenario

        return AggregateScenario(aggregate_class, id)

    def store(self, store: Any = None) -> Any:
        """A `Scenario` over a store (default: one of its own)."""
        from penstock.events import EventStore
        from penstock.testing.scenario import Scenario

        return Scenario(EventStore(self._broker, "scenario") if store is None else store)

    def projection(self, projection: Any, database: Any = ":memory:") -> Any:
        """A `ProjectionScenario`."""
        from penstock.testing.scenario import ProjectionScenario

        number = len(self._projections)
        self._projections.append(ProjectionScenario(self._broker, projection, database, f"scenario-{number}"))
        return self._projections[-1]

    def sagas(self, sagas: Any) -> Any:
        """A `SagaScenario`."""
        from penstock.testing.scenario import SagaScenario

        return SagaScenario(sagas)

    def close(self) -> None:
        """Close the projections' databases."""
        for scenario in self._projections:
            scenario.close()
