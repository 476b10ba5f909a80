"""Blocking reads: what wakes them, what ends them, and who may call meanwhile."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from children import FORKSERVER

import penstock
from penstock.clock import VirtualClock
from penstock.errors import ClosedError, LockedError
from penstock.streams.broker import Broker
from penstock.streams.consumer import Consumer
from penstock.streams.topic_partition import TopicPartition

ZERO = TopicPartition("orders", 0)
SOON_S = 20.0  # a wait that should end at once is given this long before it counts as lost


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    with penstock.open(tmp_path / "data", fsync="never") as opened:
        opened.create_topic("orders")
        yield opened


class Background:
    """Runs `action` in a thread; `result()` waits for what it returned or raises what it raised."""

    def __init__(self, action: Callable[[], Any]) -> None:
        self._action = action
        self._value: Any = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._value = self._action()
        except BaseException as error:  # handed to the thread that asks for the result
            self._error = error

    def result(self) -> Any:
        self._thread.join(SOON_S)
        assert not self._thread.is_alive(), "the call is still blocked"
        if self._error is not None:
            raise self._error
        return self._value


def wait_until_blocked(consumer: Consumer) -> None:
    """Until another thread is inside the consumer, and then a moment for it to fall asleep."""
    deadline = time.monotonic() + SOON_S
    while time.monotonic() < deadline:
        try:
            consumer.paused()
        except LockedError:
            time.sleep(0.005)
            return
        time.sleep(0.0005)
    raise AssertionError("nobody blocks")


def test_poll_waits_for_another_thread(broker: Broker) -> None:
    with broker.consumer("orders") as consumer:
        polling = Background(lambda: consumer.poll(timeout=SOON_S))
        wait_until_blocked(consumer)
        broker.topic("orders").append(b"hello")
        assert [record.value for record in polling.result()] == [b"hello"]


def test_poll_batches_waits_for_ever_for_another_thread(broker: Broker) -> None:
    with broker.consumer("orders") as consumer:
        polling = Background(lambda: consumer.poll_batches(timeout=None))
        wait_until_blocked(consumer)
        broker.topic("orders").append(b"hello")
        assert [batch.values() for batch in polling.result()] == [[b"hello"]]


def append_to(path: str, count: int) -> None:
    """In another process."""
    with penstock.open(path, fsync="never") as broker:
        for number in range(count):
            broker.topic("orders").append(b"%d" % number)


def test_iteration_is_woken_by_another_process(broker: Broker) -> None:
    writer = FORKSERVER.Process(target=append_to, args=(str(broker.path), 3))
    with broker.consumer("orders") as consumer:
        reading = Background(lambda: [next(consumer).value for _ in range(3)])
        wait_until_blocked(consumer)
        writer.start()
        assert reading.result() == [b"0", b"1", b"2"]
        writer.join(SOON_S)
        assert writer.exitcode == 0


def test_a_new_partition_wakes_a_reader(broker: Broker) -> None:
    with broker.consumer("orders") as consumer:
        polling = Background(lambda: consumer.poll(timeout=SOON_S))
        wait_until_blocked(consumer)
        broker.alter_topic("orders", partitions=2)
        broker.topic("orders").append(b"new", partition=1)
        assert [record.partition for record in polling.result()] == [1]


def test_close_from_another_thread_ends_iteration(broker: Broker) -> None:
    broker.topic("orders").append(b"one")
    consumer = broker.consumer("orders")
    reading = Background(lambda: [record.value for record in consumer])
    wait_until_blocked(consumer)
    consumer.close()
    assert reading.result() == [b"one"]


def test_closing_the_broker_ends_iteration(tmp_path: Path) -> None:
    broker = penstock.open(tmp_path / "other", fsync="never")
    broker.create_topic("orders")
    consumer = broker.consumer("orders")
    reading = Background(lambda: list(consumer))
    wait_until_blocked(consumer)
    broker.close()
    assert reading.result() == []


def test_close_from_another_thread_is_an_error_for_a_poll(broker: Broker) -> None:
    consumer = broker.consumer("orders")
    polling = Background(lambda: consumer.poll(timeout=None))
    wait_until_blocked(consumer)
    consumer.close()
    with pytest.raises(ClosedError):
        polling.result()


def test_wakeup_ends_one_blocked_poll(broker: Broker) -> None:
    with broker.consumer("orders") as consumer:
        polling = Background(lambda: consumer.poll(timeout=None))
        wait_until_blocked(consumer)
        consumer.wakeup()
        assert polling.result() == []
        polling = Background(lambda: consumer.poll_batches(timeout=None))
        wait_until_blocked(consumer)
        consumer.wakeup()
        assert polling.result() == []


def test_wakeup_before_the_poll_counts_once_and_hides_no_data(broker: Broker) -> None:
    with broker.consumer("orders") as consumer:
        consumer.wakeup()
        broker.topic("orders").append(b"one")
        assert len(consumer.poll(timeout=None)) == 1
        assert consumer.poll(timeout=None) == []


def test_a_second_thread_is_refused(broker: Broker) -> None:
    with broker.consumer("orders") as consumer:
        polling = Background(lambda: consumer.poll(timeout=None))
        wait_until_blocked(consumer)
        for call in (consumer.poll, consumer.poll_batches, consumer.lag, lambda: next(consumer)):
            with pytest.raises(LockedError, match="another thread"):
                call()
        consumer.wakeup()
        assert polling.result() == []


def test_a_timeout_passes(broker: Broker) -> None:
    with broker.consumer("orders") as consumer:
        started_s = time.monotonic()
        assert consumer.poll(timeout=0.02) == []
        assert 0.02 <= time.monotonic() - started_s < SOON_S


def test_a_blocked_reader_burns_no_processor(broker: Broker) -> None:
    with broker.consumer("orders") as consumer:
        before_s = time.thread_time()
        consumer.poll(timeout=0.1)
        assert time.thread_time() - before_s < 0.02


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="sends a signal to this thread")
@pytest.mark.parametrize(
    "read", [lambda c: next(c), lambda c: c.poll(timeout=None), lambda c: c.poll_batches(timeout=None)]
)
def test_an_interrupt_ends_the_wait_and_loses_nothing(broker: Broker, read: Callable[[Consumer], Any]) -> None:
    main = threading.main_thread().ident
    assert main is not None
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with broker.consumer("orders") as consumer:
            broker.topic("orders").append(b"one")
            assert next(consumer).value == b"one"

            def interrupt() -> None:
                wait_until_blocked(consumer)
                signal.pthread_kill(main, signal.SIGINT)

            interrupting = Background(interrupt)
            started_s = time.monotonic()
            with pytest.raises(KeyboardInterrupt):
                read(consumer)
            assert time.monotonic() - started_s < 5
            interrupting.result()
            assert consumer.position(ZERO) == 1
            broker.topic("orders").append(b"two")
            assert [record.value for record in consumer.poll(timeout=0)] == [b"two"]
    finally:
        signal.signal(signal.SIGINT, previous)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_carries_on_from_its_copy(broker: Broker) -> None:
    for number in range(5):
        broker.topic("orders").append(b"%d" % number)
    with broker.consumer("orders") as consumer:
        assert [next(consumer).value, next(consumer).value] == [b"0", b"1"]
        child = os.fork()
        if child == 0:
            values = [record.value for record in consumer.poll(timeout=0)]
            os._exit(0 if values == [b"2", b"3", b"4"] else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert [record.value for record in consumer.poll(timeout=0)] == [b"2", b"3", b"4"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_forked_while_another_thread_polls_can_poll(broker: Broker) -> None:
    with broker.consumer("orders") as consumer:
        polling = Background(lambda: consumer.poll(timeout=None))
        wait_until_blocked(consumer)
        child = os.fork()
        if child == 0:
            os._exit(0 if consumer.poll(timeout=0) == [] else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        consumer.wakeup()
        assert polling.result() == []


def test_timeouts_follow_a_virtual_clock(tmp_path: Path) -> None:
    clock = VirtualClock()
    with penstock.open(tmp_path / "virtual", fsync="never", clock=clock) as broker:
        broker.create_topic("orders")
        with broker.consumer("orders") as consumer:
            polling = Background(lambda: consumer.poll(timeout=3600.0))
            wait_until_blocked(consumer)
            clock.advance(3599.0)
            time.sleep(0.03)
            with pytest.raises(LockedError):
                consumer.paused()
            clock.advance(1.0)
            assert polling.result() == []
