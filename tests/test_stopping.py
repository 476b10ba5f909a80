"""Being asked to stop by a signal, whenever it comes."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest

import penstock
from penstock import events
from penstock.events.sagas import sagas as sagas_module
from penstock.stopping import StopFlag, stopped_by_signals


def test_a_flag_is_as_an_event() -> None:
    flag = StopFlag()
    assert not flag.is_set() and not flag.wait(0)
    waiting = [threading.Thread(target=flag.wait, args=(30,)) for _ in range(3)]
    for thread in waiting:
        thread.start()
    flag.set()
    flag.set()
    for thread in waiting:
        thread.join(10)
        assert not thread.is_alive()
    assert flag.is_set() and flag.wait(0)
    flag.clear()
    assert not flag.is_set() and not flag.wait(0)


@pytest.mark.timeout(30)
def test_a_handler_may_set_it_while_it_is_used() -> None:
    """`threading.Event` would wait in the handler for a lock of the thread that it interrupts."""
    flag = StopFlag()
    before = signal.signal(signal.SIGALRM, lambda *_: flag.set())
    try:
        signal.setitimer(signal.ITIMER_REAL, 1e-4, 2e-4)
        until = time.monotonic() + 0.5
        while time.monotonic() < until:
            flag.wait(1e-6)
            flag.clear()
            flag.set()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_handlers_are_given_back() -> None:
    def other(*_: object) -> None: ...

    before = signal.signal(signal.SIGTERM, other)
    try:
        asked: list[int] = []
        with pytest.raises(ZeroDivisionError), stopped_by_signals(lambda: asked.append(1)) as signalled:
            os.kill(os.getpid(), signal.SIGTERM)
            assert signalled.wait(5) and asked == [1]
            raise ZeroDivisionError
        assert signal.getsignal(signal.SIGTERM) is other
    finally:
        signal.signal(signal.SIGTERM, before)


def test_in_another_thread_signals_are_left_alone() -> None:
    found = []

    def look() -> None:
        with stopped_by_signals(lambda: None):
            found.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert found == [signal.getsignal(signal.SIGTERM)]


class AtOnce(events.Event, type="StoppingAtOnce"):
    """What nobody publishes."""


def _before(monkeypatch: pytest.MonkeyPatch, owner: object, name: str) -> None:
    """SIGTERM comes just before this is called for the first time."""
    plain = getattr(owner, name)

    def call(*arguments: object, **options: object) -> object:
        monkeypatch.setattr(owner, name, plain)
        os.kill(os.getpid(), signal.SIGTERM)
        return plain(*arguments, **options)

    monkeypatch.setattr(owner, name, call)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("what", ["sagas", "bus", "projector", "outbox", "worker", "worker's processes"])
def test_a_signal_while_it_begins_is_heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    with penstock.open(tmp_path / "data") as broker:
        if what == "sagas":
            _before(monkeypatch, sagas_module, "Runner")
            with events.Sagas(broker) as sagas:
                sagas.run()
        elif what == "bus":
            with events.EventBus(broker, "stopping") as bus:
                bus.on(AtOnce, group="group")(print)
                _before(monkeypatch, bus, "start")
                bus.run()
        elif what == "projector":
            store = events.EventStore(broker, "store")
            with events.Projector(store, events.Projection(), {}, name="nothing") as projector:
                _before(monkeypatch, projector, "_loop")
                projector.run()
        elif what == "outbox":
            with events.Outbox(tmp_path / "outbox.db") as outbox:
                _before(monkeypatch, outbox, "_relay_to")
                outbox.run(broker)
        else:
            worker = broker.queue("jobs").worker(print, processes=2 if what == "worker's processes" else 0)
            _before(monkeypatch, worker, "start")
            worker.run()
