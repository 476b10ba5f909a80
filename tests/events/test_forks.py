"""A process that forks while its bus and its sagas run: the child stands still, and can begin anew."""

from __future__ import annotations

import os
import signal
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import penstock
from penstock import events


class ForkHappened(events.Event):
    number: int


def in_a_child(work: Callable[[], object], seconds: float = 20.0) -> None:
    """Asserts that `work` ends well in a child of a fork."""
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
        os._exit(1)
    deadline = time.monotonic() + seconds
    while (ended := os.waitpid(child, os.WNOHANG))[0] == 0:
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            raise AssertionError("the child hangs")
        time.sleep(0.005)
    assert os.waitstatus_to_exitcode(ended[1]) == 0


def test_a_child_of_a_process_whose_bus_runs(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    with penstock.open(tmp_path / "data", fsync="never") as broker, events.EventBus(broker) as bus:

        def note(event: ForkHappened) -> None:
            with ledger.open("a") as file:
                file.write(f"{event.number}\n")

        bus.on(ForkHappened, group="sync")(note)

        @bus.on(ForkHappened, group="async")
        async def handle(event: ForkHappened) -> None:
            pass

        def child() -> None:
            bus.stop()
            bus.publish(ForkHappened(2))
            bus.run_until_idle()
            bus.start()
            bus.publish(ForkHappened(3))
            bus.drain()
            bus.close()

        bus.start(workers=2)
        bus.publish(ForkHappened(1))
        bus.drain()
        in_a_child(child)
        bus.publish(ForkHappened(4))
        bus.drain()
        assert sorted(ledger.read_text().split()) == ["1", "2", "3", "4"]


def test_a_child_of_a_process_that_runs_sagas(tmp_path: Path) -> None:
    with penstock.open(tmp_path / "data", fsync="never") as broker, events.Sagas(broker, partitions=2) as sagas:

        @sagas.define("one")
        def one(saga: events.Saga) -> object:
            return saga.step(os.getpid, timeout=5.0)

        def child() -> None:
            assert sagas.handle("first").result(timeout=10) == os.getppid()
            sagas.stop()
            assert sagas.start("one", saga_id="second").result(timeout=10) == os.getppid(), "the parent runs them"
            assert sagas.count() == {"completed": 2}
            sagas.start_background()
            sagas.close()

        sagas.start_background()
        sagas.start("one", saga_id="first").result(timeout=10)
        in_a_child(child)
        assert sagas.start("one").result(timeout=10) == os.getpid()
