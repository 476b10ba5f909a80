"""The adapter for `eventsourcing` passes the tests that the package has for persistence modules."""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest import TestCase
from uuid import uuid4

import pytest

pytest.importorskip("eventsourcing")

from eventsourcing.application import AggregateNotFoundError, Application
from eventsourcing.domain import Aggregate, event
from eventsourcing.persistence import IntegrityError, InterfaceError, StoredEvent, Tracking
from eventsourcing.tests import application, persistence
from eventsourcing.utils import Environment

from penstock.events.contrib.eventsourcing import (
    Factory,
    PenstockAggregateRecorder,
    PenstockApplicationRecorder,
    PenstockFactory,
    PenstockProcessRecorder,
    PenstockTrackingRecorder,
)

MODULE = "penstock.events.contrib.eventsourcing"


class WithDirectory(TestCase):
    """A directory for each test."""

    def setUp(self) -> None:
        directory = TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.path = directory.name
        self.env = Environment(name="Shop", env={"PERSISTENCE_MODULE": MODULE, "PENSTOCK_PATH": directory.name})
        super().setUp()

    def opened(self) -> PenstockFactory:
        factory = Factory(self.env)
        self.addCleanup(factory.close)
        return factory


class TestAggregateRecorder(WithDirectory, persistence.AggregateRecorderTestCase):
    def create_recorder(self) -> PenstockAggregateRecorder:
        return self.opened().aggregate_recorder()


class TestApplicationRecorder(WithDirectory, persistence.ApplicationRecorderTestCase):
    def create_recorder(self) -> PenstockApplicationRecorder:
        return self.opened().application_recorder()

    def test_insert_subscribe(self) -> None:
        self.optional_test_insert_subscribe()


class TestTrackingRecorder(WithDirectory, persistence.TrackingRecorderTestCase):
    def create_recorder(self) -> PenstockTrackingRecorder:
        return self.opened().tracking_recorder()


class TestProcessRecorder(WithDirectory, persistence.ProcessRecorderTestCase):
    def create_recorder(self) -> PenstockProcessRecorder:
        return self.opened().process_recorder()


class TestNonInterleaving(WithDirectory, persistence.NonInterleavingNotificationIDsBaseCase):
    def create_recorder(self) -> PenstockApplicationRecorder:
        return self.opened().application_recorder()


class OwnTrackingRecorder(PenstockTrackingRecorder):
    """One that an application brings."""


class TestFactory(WithDirectory, persistence.InfrastructureFactoryTestCase[PenstockFactory]):
    def expected_factory_class(self) -> type[PenstockFactory]:
        return PenstockFactory

    def expected_aggregate_recorder_class(self) -> type[PenstockAggregateRecorder]:
        return PenstockAggregateRecorder

    def expected_application_recorder_class(self) -> type[PenstockApplicationRecorder]:
        return PenstockApplicationRecorder

    def expected_tracking_recorder_class(self) -> type[PenstockTrackingRecorder]:
        return PenstockTrackingRecorder

    def tracking_recorder_subclass(self) -> type[PenstockTrackingRecorder]:
        return OwnTrackingRecorder

    def expected_process_recorder_class(self) -> type[PenstockProcessRecorder]:
        return PenstockProcessRecorder

    def tearDown(self) -> None:
        super().tearDown()
        del self.factory  # what it mapped goes with it

    def test_a_directory_is_needed(self) -> None:
        with self.assertRaisesRegex(OSError, "SHOP_PENSTOCK_PATH"):
            Factory(Environment(name="Shop"))


class TestExample(WithDirectory, application.ExampleApplicationTestCase):
    expected_factory_topic = f"{MODULE}:PenstockFactory"

    def setUp(self) -> None:
        super().setUp()
        variables = {"PERSISTENCE_MODULE": MODULE, "PENSTOCK_PATH": self.path}
        os.environ.update(variables)
        self.addCleanup(lambda: [os.environ.pop(name) for name in variables])


class Dog(Aggregate):
    @event("Registered")
    def __init__(self, name: str) -> None:
        self.name = name
        self.tricks: list[str] = []

    @event("TrickAdded")
    def add_trick(self, trick: str) -> None:
        self.tricks.append(trick)


class Kennel(Application):
    snapshotting_intervals = {Dog: 3}  # noqa: RUF012


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    return {"PERSISTENCE_MODULE": MODULE, "PENSTOCK_PATH": str(tmp_path / "data")}


def test_an_application_survives_its_process(env: dict[str, str]) -> None:
    with Kennel(env=env) as kennel:
        dog = Dog("Fido")
        for number in range(7):
            dog.add_trick(f"trick {number}")
            kennel.save(dog)
        assert kennel.snapshots is not None and len(list(kennel.snapshots.get(dog.id))) == 2
        kennel.factory.close()
    with Kennel(env=env) as kennel:
        again = kennel.repository.get(dog.id)
        assert (again.tricks[-1], again.version) == ("trick 6", dog.version)
        assert kennel.repository.get(dog.id, version=3).tricks == ["trick 0", "trick 1"]
        with pytest.raises(AggregateNotFoundError):
            kennel.repository.get(uuid4())
        again.add_trick("late")
        dog.add_trick("later")
        kennel.save(again)
        with pytest.raises(IntegrityError):
            kennel.save(dog)
        assert [item.id for item in kennel.notification_log["1,20"].items] == list(range(1, 10))
        kennel.factory.close()


def stored(originator: object, version: int) -> StoredEvent:
    return StoredEvent(originator, version, f"topic{version}", b"state")  # type: ignore[arg-type]


def test_versions_with_gaps_and_out_of_order(env: dict[str, str]) -> None:
    factory = Factory(env)
    recorder = factory.aggregate_recorder("snapshots")
    for version in (5, 9, 7, 20):
        recorder.insert_events([stored("s", version)])
    with pytest.raises(IntegrityError):
        recorder.insert_events([stored("s", 7)])
    with pytest.raises(IntegrityError):
        recorder.insert_events([stored("s", 21), stored("s", 9)])

    def select(**options: object) -> list[int]:
        return [found.originator_version for found in recorder.select_events("s", **options)]  # type: ignore[arg-type]

    assert select() == [5, 7, 9, 20]
    assert select(desc=True, limit=1) == [20]
    assert select(desc=True, limit=1, lte=8) == [7]
    assert select(gt=5, lte=9) == [7, 9]
    assert select(gt=20) == select(lte=4) == []
    factory.close()
    with pytest.raises(InterfaceError):
        recorder.insert_events([stored("s", 30)])


def test_contiguous_versions_are_found_without_reading_all(env: dict[str, str]) -> None:
    factory = Factory(env)
    recorder = factory.application_recorder()
    recorder.insert_events([stored("s", version) for version in range(1, 30)])
    for gt in (None, 0, 1, 13, 29, 99):
        for lte in (None, 0, 1, 14, 29, 99):
            for desc in (False, True):
                expected = [v for v in range(1, 30) if (gt is None or v > gt) and (lte is None or v <= lte)]
                found = [e.originator_version for e in recorder.select_events("s", gt=gt, lte=lte, desc=desc)]
                assert found == (expected[::-1] if desc else expected)
    factory.close()


def test_two_recorders_do_not_overwrite_each_other(env: dict[str, str]) -> None:
    one, two = Factory(env), Factory(env)
    first, second = one.process_recorder(), two.process_recorder()
    assert first.insert_events([stored("s", 0)]) == [1]
    with pytest.raises(IntegrityError):
        second.insert_events([stored("s", 0)])
    assert second.insert_events([stored("s", 1)]) == [2]
    with pytest.raises(IntegrityError):
        first.insert_events([stored("s", 1)])
    mixed = [stored("s", 2), stored("t", 0), stored("s", 3)]
    assert first.insert_events(mixed, tracking=Tracking("up", 5)) == [4, 6, 5]
    with pytest.raises(IntegrityError):
        second.insert_events([stored("s", 4)], tracking=Tracking("up", 5))
    assert second.insert_events([stored("s", 4)], tracking=Tracking("up", 6)) == [8]
    found = [(notification.id, notification.originator_id) for notification in first.select_notifications(3, 10)]
    assert found == [(4, "s"), (5, "s"), (6, "t"), (8, "s")]
    assert first.max_notification_id() == 8 and first.max_tracking_id("up") == 6
    first.insert_tracking(Tracking("up", 9))
    assert second.max_notification_id() == 8
    one.close()
    two.close()
