"""A saga function that catches the exception by which it is left: it is left all the same, and goes on in time."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

import penstock
from penstock import events
from penstock.clock import VirtualClock
from penstock.events.sagas import saga as saga_module


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
def sagas(tmp_path: Path, clock: VirtualClock) -> Iterator[events.Sagas]:
    with penstock.open(tmp_path / "data", clock=clock) as broker, events.Sagas(broker, partitions=1) as made:
        yield made


def wait(saga):
    return saga.wait_for("go", timeout=60)


def sleep(saga):
    saga.sleep(60)
    return "slept"


def retried(saga):
    def fails_once():
        if events.current_step().attempt == 1:
            raise ValueError("once")
        return "second"

    return saga.step(fails_once, retry=events.Retry(max_attempts=2, delay=10, jitter=0))


@pytest.mark.parametrize(("operation", "result"), [(wait, "went"), (sleep, "slept"), (retried, "second")])
def test_one_that_returns_is_still_waiting(sagas, clock, caplog, operation, result) -> None:
    @sagas.define("swallows")
    def swallows(saga):
        try:
            return operation(saga)
        except BaseException:
            return "swallowed"

    handle = sagas.start("swallows", saga_id="s")
    sagas.run_until_idle()
    assert handle.status in ("waiting", "running")
    assert "saga s: what its function returned does not count" in caplog.text
    if operation is wait:
        sagas.signal("s", "go", "went")
    clock.advance(60)
    sagas.run_until_idle()
    assert handle.result(0) == result


def test_one_that_goes_on_does_nothing(sagas) -> None:
    done = []

    @sagas.define("goes-on")
    def goes_on(saga):
        try:
            answer = saga.wait_for("go")
        except:  # noqa: E722
            answer = "none"
        saga.step(lambda: done.append(answer), name="note")
        return answer

    handle = sagas.start("goes-on", saga_id="s")
    for _ in range(3):
        sagas.run_until_idle()
    assert done == [] and handle.status == "waiting"
    sagas.signal("s", "go", "yes")
    sagas.run_until_idle()
    assert handle.result(0) == "yes" and done == ["yes"]
    assert [one.name for one in sagas.inspect("s").operations] == ["go", "note"]


def test_a_step_in_a_finally_block_waits_for_its_turn(sagas) -> None:
    done = []

    @sagas.define("cleans-up")
    def cleans_up(saga):
        try:
            return saga.wait_for("go")
        finally:
            saga.step(lambda: done.append("cleaned"), name="clean")

    handle = sagas.start("cleans-up", saga_id="s")
    sagas.run_until_idle()
    assert done == [] and handle.status == "waiting"
    sagas.signal("s", "go", 1)
    sagas.run_until_idle()
    assert handle.result(0) == 1 and done == ["cleaned"]


def test_what_it_raises_instead_is_not_its_failure(sagas, caplog) -> None:
    undone = []

    @sagas.define("raises")
    def raises(saga):
        saga.step(lambda: None, name="first", compensate=lambda: undone.append("first"))
        try:
            return saga.wait_for("go")
        except BaseException as error:
            raise RuntimeError("cannot wait") from error

    handle = sagas.start("raises", saga_id="s")
    sagas.run_until_idle()
    assert handle.status == "waiting" and undone == []
    assert "saga s: RuntimeError: cannot wait does not count" in caplog.text
    sagas.signal("s", "go", "well")
    sagas.run_until_idle()
    assert handle.result(0) == "well"


def test_a_time_out_is_for_the_function_to_catch(sagas, clock) -> None:
    @sagas.define("bare")
    def bare(saga):
        try:
            return saga.wait_for("go", timeout=60)
        except:  # noqa: E722
            return "too late"

    handle = sagas.start("bare")
    sagas.run_until_idle()
    clock.advance(61)
    sagas.run_until_idle()
    assert handle.result(0) == "too late"


def test_one_that_is_cancelled_is_compensated(sagas) -> None:
    undone = []

    @sagas.define("stubborn")
    def stubborn(saga):
        saga.step(lambda: None, name="first", compensate=lambda: undone.append("first"))
        try:
            saga.wait_for("go")
        except BaseException:
            return "no matter"

    handle = sagas.start("stubborn", saga_id="s")
    sagas.run_until_idle()
    sagas.cancel("s")
    sagas.run_until_idle()
    assert handle.status == "cancelled" and undone == ["first"]


def test_another_journal_is_noticed_all_the_same(sagas) -> None:
    names = ["before"]

    @sagas.define("changes")
    def changes(saga):
        try:
            saga.step(lambda: None, name=names[0])
        except BaseException:
            return "hidden"
        saga.wait_for("go")

    handle = sagas.start("changes", saga_id="s")
    sagas.run_until_idle()
    names[0] = "after"
    sagas.signal("s", "go")
    sagas.run_until_idle()
    with pytest.raises(events.SagaNonDeterminismError, match="operation 0 is step 'before'"):
        handle.result(0)


def test_one_that_never_gives_up_is_told_of(sagas, caplog, monkeypatch) -> None:
    monkeypatch.setattr(saga_module, "REFUSED_PAUSE_S", 0)
    tries = 0

    @sagas.define("loops")
    def loops(saga):
        nonlocal tries
        while tries < 1000:
            tries += 1
            try:
                return saga.wait_for("go")
            except BaseException:
                continue

    handle = sagas.start("loops", saga_id="s")
    sagas.run_until_idle()
    assert handle.status == "waiting"
    found = [record for record in caplog.records if "holds a worker" in record.getMessage()]
    assert [record.levelno for record in found] == [logging.ERROR]


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_of_the_program_comes_through(sagas, kind) -> None:
    @sagas.define("ends")
    def ends(saga):
        try:
            saga.wait_for("go")
        finally:
            raise kind

    sagas.start("ends")
    with pytest.raises(kind):
        sagas.run_until_idle()
