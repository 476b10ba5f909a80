"""Exclusive queues, queues that are not durable, and queues that were left half made or half deleted."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from children import Child

import penstock
from penstock import InvalidConfigError, LockedError, UnknownQueueError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def broker(path: Path) -> Iterator[penstock.Broker]:
    with penstock.open(path, fsync="never", maintenance_interval_ms=10**9) as broker:
        yield broker


def test_an_exclusive_queue_is_refused_to_others_and_goes_with_its_owner(broker: penstock.Broker, path: Path) -> None:
    with penstock.open(path, fsync="never", maintenance_interval_ms=10**9) as owner:
        queue = owner.queue("reply", exclusive=True)
        assert owner.queue("reply") is queue
        for action in (
            lambda: broker.queue("reply"),
            lambda: broker.queue("reply", exclusive=True),
            lambda: broker.delete_queue("reply"),
        ):
            with pytest.raises(LockedError, match="'reply' is exclusive"):
                action()
        broker.exchange("").publish(b"answer", "reply")
        assert [message.value for message in queue.receive(wait=0)] == [b"answer"]
        broker.maintain()
        assert "reply" in broker.queues()
    assert "reply" not in broker.queues() and "reply" not in broker.topics()
    assert broker.queue("reply").stats().sent == 0
    with pytest.raises(InvalidConfigError, match="exclusive"):
        broker.queue("reply", exclusive=True)


OWNER = """
import os, sys, penstock
broker = penstock.open(sys.argv[1], fsync="never")
broker.queue("reply", exclusive=True).send(b"lost")
os._exit(0)
"""


@pytest.mark.parametrize("finder", ["declare", "maintain", "delete"])
def test_an_exclusive_queue_goes_with_a_process_that_dies(broker: penstock.Broker, path: Path, finder: str) -> None:
    assert Child(OWNER, path).wait(60) == 0
    assert "reply" in broker.queues()
    if finder == "declare":
        assert broker.queue("reply").stats().sent == 0
        return
    broker.maintain() if finder == "maintain" else broker.delete_queue("reply")
    assert "reply" not in broker.queues()


def test_a_forked_child_is_not_the_owner(broker: penstock.Broker, path: Path) -> None:
    broker.queue("reply", exclusive=True)
    child = os.fork()
    if child == 0:
        try:
            broker.queue("reply")
        except LockedError:
            os._exit(7)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert broker.queue("reply").stats().ready == 0


def test_a_queue_that_is_not_durable_ends_with_the_last_process(path: Path) -> None:
    with penstock.open(path, fsync="never") as broker:
        broker.queue("transient", durable=False).send(b"x")
        broker.queue("durable").send(b"x")
        with penstock.open(path, fsync="never") as other:
            assert other.queue("transient").stats().ready == 1
        assert broker.queue("transient").stats().ready == 1
    with penstock.open(path, fsync="never") as broker:
        assert list(broker.queues()) == ["durable"] == broker.topics()


@pytest.mark.parametrize("step", ["topic made", "row deleted"])
def test_a_queue_left_half_made_or_half_deleted_is_made_anew(broker: penstock.Broker, step: str) -> None:
    if step == "topic made":
        broker._queues.begin("q")
        broker.create_topic("q").append(b"nobody's")
    else:
        broker.queue("q").send(b"old")
        broker._queues.delete_queue("q")
        broker._open_queues.pop("q").close()
        broker._catalog_bell.ring()
        with pytest.raises(UnknownQueueError):
            broker.delete_queue("q")
    queue = broker.queue("q")
    assert queue.stats().sent == 0
    queue.send(b"new")
    assert [message.value for message in queue.receive(wait=0)] == [b"new"]
    assert not broker._queues.begun("q")
