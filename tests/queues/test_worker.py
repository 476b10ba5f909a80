"""The worker loop: threads, processes, retry, graceful stop; schedules; the transition table."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from children import Child

import penstock
from penstock import InvalidArgumentError, InvalidConfigError, RetryPolicy, StaleReceiptError, VirtualClock


def wait_until(check: object, timeout: float = 20.0) -> None:
    deadline = time.monotonic() + timeout
    assert callable(check)
    while not check():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.005)


def test_handlers_run_in_threads(broker: penstock.Broker) -> None:
    queue = broker.queue("q")
    queue.send_many([b"%d" % number for number in range(200)])
    seen: list[bytes] = []
    both = threading.Barrier(2, timeout=10)

    def handle(message: penstock.Message) -> None:
        if message.value in (b"0", b"1"):
            both.wait()  # passes only when two run at once
        seen.append(message.value)

    worker = queue.worker(handle, threads=2, prefetch=1).start()
    wait_until(lambda: queue.stats().acknowledged == 200)
    worker.stop()
    worker.join()
    assert sorted(map(int, seen)) == list(range(200))


def test_failures_are_tried_again_and_end_in_the_dead_letter_queue_with_the_traceback(broker: penstock.Broker) -> None:
    queue = broker.queue("q", dead_letter="dead")
    queue.send_many([b"flaky", b"poison", b"hopeless"])
    attempts: dict[bytes, int] = {}

    def handle(message: penstock.Message) -> None:
        attempts[message.value] = attempts.get(message.value, 0) + 1
        if message.value == b"hopeless":
            raise KeyError("never again")
        if message.value == b"poison" or attempts[message.value] < 3:
            raise ValueError("broken " + message.value.decode())

    retry = RetryPolicy(max_attempts=4, delay=0.01, max_delay=0.02, give_up_on=(KeyError,))
    worker = queue.worker(handle, retry=retry).start()
    dead = broker.queue("dead")
    wait_until(lambda: dead.stats().ready == 2 and queue.stats().acknowledged == 1)
    worker.stop()
    worker.join()
    assert attempts == {b"flaky": 3, b"poison": 4, b"hopeless": 1}
    letters = {message.value: dict(message.headers) for message in dead.receive(wait=0)}
    assert b"ValueError: broken poison" in (letters[b"poison"]["dead-letter-error"] or b"")
    assert letters[b"hopeless"]["dead-letter-reason"] == b"rejected"


def test_a_stop_gives_back_what_was_prefetched(broker: penstock.Broker) -> None:
    queue = broker.queue("q")
    queue.send_many([b"%d" % number for number in range(10)])
    begun, go_on = threading.Event(), threading.Event()

    def handle(message: penstock.Message) -> None:
        begun.set()
        go_on.wait(10)

    worker = queue.worker(handle, prefetch=10).start()
    assert begun.wait(10)
    worker.stop()
    go_on.set()
    worker.join()
    stats = queue.stats()
    assert (stats.acknowledged, stats.ready, stats.in_flight) == (1, 9, 0)
    assert queue.receive(1, wait=0)[0].failure_count == 0


def test_a_group_of_a_fifo_queue_waits_for_the_one_that_failed(broker: penstock.Broker) -> None:
    queue = broker.queue("q", fifo=True)
    for number in range(6):
        queue.send(b"%d" % number, group_id="ab"[number % 2])
    done: list[bytes] = []
    failed = []

    def handle(message: penstock.Message) -> None:
        if message.value == b"0" and not failed:
            failed.append(message)
            raise OSError("not now")
        done.append(message.value)

    worker = queue.worker(handle, prefetch=6, retry=RetryPolicy(delay=0.01)).start()
    wait_until(lambda: queue.stats().acknowledged == 6)
    worker.stop()
    worker.join()
    assert [value for value in done if int(value) % 2 == 0] == [b"0", b"2", b"4"]
    assert sorted(done) == [b"%d" % number for number in range(6)]


def test_what_a_handler_holds_is_kept(broker: penstock.Broker) -> None:
    queue = broker.queue("q", visibility_timeout=0.3)
    queue.send(b"slow")
    calls = []

    def handle(message: penstock.Message) -> None:
        calls.append(message.delivery_count)
        time.sleep(1.2)

    worker = queue.worker(handle, threads=2).start()
    wait_until(lambda: queue.stats().acknowledged == 1)
    worker.stop()
    worker.join()
    assert calls == [1]


def test_sigterm_finishes_what_is_in_hand(tmp_path: Path) -> None:
    code = """
import sys, time, penstock
def handle(message):
    print("begun", flush=True)
    time.sleep(0.5)
    print("finished", flush=True)
with penstock.open(sys.argv[1]) as broker:
    broker.queue("q").consume(handle, prefetch=5)
print("closed", flush=True)
"""
    with penstock.open(tmp_path / "data") as broker:
        queue = broker.queue("q")
        queue.send_many([b"a", b"b", b"c"])
        child = Child(code, tmp_path / "data", stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None and child.stdout.readline() == "begun\n"
        child.send_signal(signal.SIGTERM)
        out, _ = child.communicate(timeout=20)
        assert out == "finished\nclosed\n" and child.returncode == 0
        stats = queue.stats()
        assert (stats.acknowledged, stats.ready, stats.in_flight) == (1, 2, 0)


def test_worker_processes(tmp_path: Path) -> None:
    script = tmp_path / "job.py"
    script.write_text(
        """
import os, sys, penstock
def handle(message):
    message.queue._broker.queue("done").send(message.value, headers=[("pid", str(os.getpid()).encode())])
if __name__ == "__main__":
    with penstock.open(sys.argv[1]) as broker:
        broker.queue("q").consume(handle, processes=2, threads=2)
"""
    )
    with penstock.open(tmp_path / "data") as broker:
        queue, done = broker.queue("q"), broker.queue("done")
        child = subprocess.Popen([sys.executable, str(script), str(tmp_path / "data")])
        try:
            pids: set[bytes | None] = set()
            deadline = time.monotonic() + 40
            while len(pids) < 2 and time.monotonic() < deadline:
                queue.send_many([b"x"] * 20)
                for message in done.receive(100, wait=0.2):
                    pids.add(dict(message.headers)["pid"])
                    message.ack()
        finally:
            child.send_signal(signal.SIGTERM)
            assert child.wait(20) == 0
        assert len(pids) == 2
        assert queue.stats().in_flight == 0


def test_bad_options_are_refused(broker: penstock.Broker) -> None:
    queue = broker.queue("q")
    for options in ({"threads": 0}, {"processes": -1}, {"prefetch": 1.5}):
        with pytest.raises(InvalidConfigError):
            queue.worker(print, **options)
    with pytest.raises(penstock.InvalidTypeError):
        queue.worker("no function")  # type: ignore[arg-type]
    with pytest.raises(InvalidConfigError, match="jitter"):
        RetryPolicy(jitter=2)


def test_back_off_grows_to_its_limit() -> None:
    policy = RetryPolicy(delay=1.0, factor=2.0, max_delay=10.0, jitter=0.0)
    assert [policy.delay_after(failures) for failures in (1, 2, 3, 4, 5, 500)] == [1, 2, 4, 8, 10, 10]
    jittered = {RetryPolicy(jitter=0.5).delay_after(1) for _ in range(50)}
    assert len(jittered) > 40 and all(0.5 <= delay <= 1 for delay in jittered)


def test_schedules_send_once_at_each_time(tmp_path: Path) -> None:
    start = int(datetime(2026, 3, 1, 11, 59, 30, tzinfo=UTC).timestamp() * 1000)
    clock = VirtualClock(start)
    with penstock.open(tmp_path / "data", clock=clock) as one, penstock.open(tmp_path / "data", clock=clock) as two:
        queue = one.queue("q")
        schedule = one.schedule("hourly", queue, b"tick", "0 * * * *", headers=[("h", b"v")])
        assert schedule.due_ms == start + 30_000
        assert [found.name for found in two.schedules()] == ["hourly"]
        clock.advance(30)
        (message,) = queue.receive(wait=3600)
        assert (message.value, message.headers[0]) == (b"tick", ("h", b"v"))
        message.ack()
        clock.advance(5 * 3600)  # what was missed is made up for by one message
        (message,) = queue.receive(wait=60)
        message.ack()
        two.delete_schedule("hourly")
        clock.advance(7200)
        assert queue.receive(wait=0) == []
        with pytest.raises(InvalidArgumentError, match="cron"):
            one.schedule("bad", queue, b"", "every day")
        with pytest.raises(InvalidArgumentError):
            one.delete_schedule("hourly")


def test_a_due_message_is_not_sent_twice_after_a_death(tmp_path: Path) -> None:
    clock = VirtualClock()
    with penstock.open(tmp_path / "data", clock=clock) as broker:
        queue = broker.queue("q")
        due = broker.schedule("s", queue, b"tick", "* * * * *").due_ms
        clock.advance((due - clock.time_ms()) / 1000)
        assert len(queue.receive(wait=60)) == 1
        broker._queues.write("UPDATE schedules SET due_ms = ?", due)  # as if it had died before it noted that
        wait_until(lambda: broker.schedules()[0].due_ms > due)
        assert queue.stats().sent == 1


ACTIONS = {"accept": 1, "release": 2, "reject": 3, "renew": 4, "fail": 5}


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("state", ["available", "acquired", "stale", "acknowledged", "archived"])
def test_the_transition_table(broker: penstock.Broker, state: str, action: str) -> None:
    queue = broker.queue("q")
    queue.send(b"a")
    queue.send(b"keeps the start where it is")
    delivery = queue._deliveries[0]
    (message,) = queue.receive(1, wait=0)
    receipt = message.delivery_count
    if state == "available":
        message.nack(failed=False)
    elif state == "stale":
        message.nack(failed=False)
        queue.receive(1, wait=0)
    elif state == "acknowledged":
        message.ack()
    elif state == "archived":
        message.reject()
    later = broker.clock.time_ms() + 60_000
    legal = state == "acquired" or (state == "acknowledged" and action == "accept")
    before = delivery.counts(broker.clock.time_ms())
    if legal:
        delivery.settle(0, receipt, ACTIONS[action], 2 if action == "reject" else later)
        counts = delivery.counts(broker.clock.time_ms())
        moved = {"accept": (1, 0, 0, 0), "release": (1, 0, 1, 0), "fail": (1, 0, 1, 0), "reject": (1, 0, 0, 1)}
        assert counts[:4] == moved.get(action, (1, 1, 0, 0))
    else:
        with pytest.raises(StaleReceiptError):
            delivery.settle(0, receipt, ACTIONS[action], 2)
        assert delivery.counts(broker.clock.time_ms()) == before
