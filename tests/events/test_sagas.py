"""Sagas on a virtual clock: steps, retries, compensation, waits, signals, lists, cancel, retry, refusals."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

import penstock
from penstock import events
from penstock.clock import VirtualClock
from penstock.events.sagas.partition import OwnedPartition


class SagaOrder(events.Event, type="SagaOrder", version=1):
    """An argument that is an event."""

    order_id: str
    cents: int


class Line(msgspec.Struct):
    """A result that is a struct."""

    sku: str
    count: int


class Log(list):
    """What the steps did, in order."""

    def step(self, name: str, result: Any = None, error: Exception | None = None):
        """A step that notes its name and arguments."""

        def call(*args: Any) -> Any:
            self.append(name)
            if error is not None:
                raise error
            return result

        call.__name__ = name
        return call


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
def sagas(tmp_path: Path, clock: VirtualClock) -> Iterator[events.Sagas]:
    with penstock.open(tmp_path / "data", clock=clock) as broker, events.Sagas(broker, partitions=2) as made:
        yield made


@pytest.fixture
def log() -> Log:
    return Log()


def again(sagas: events.Sagas) -> events.Sagas:
    """The same sagas, as a restarted program has them: nothing is remembered but what is stored."""
    sagas.close()
    restarted = events.Sagas(sagas.broker)
    restarted._definitions = sagas._definitions
    return restarted


# --- steps -----------------------------------------------------------------------------------------------------------


def test_steps_run_in_order_and_the_result_is_told(sagas, log) -> None:
    @sagas.define("place-order")
    def place_order(saga, order):
        reserved = saga.step(log.step("reserve", {"stock": 3}), order)
        return [reserved, saga.step(log.step("charge", 42), order), order]

    handle = sagas.start("place-order", {"id": 1}, saga_id="order-1")
    assert handle.status == "running"
    sagas.run_until_idle()
    assert log == ["reserve", "charge"]
    assert handle.status == "completed"
    assert handle.result(timeout=0) == [{"stock": 3}, 42, {"id": 1}]


def test_a_second_start_changes_nothing(sagas, log) -> None:
    @sagas.define()
    def once(saga):
        return saga.step(log.step("step"))

    for _ in range(3):
        sagas.start(once, saga_id="same")
        sagas.run_until_idle()
        sagas = again(sagas)
    assert log == ["step"]
    assert [saga.saga_id for saga in sagas.list()] == ["same"]


@pytest.mark.parametrize(
    "value",
    [None, True, 7, 1.5, "text", [1, [2]], {"a": {"b": [None]}}, Line("x", 2), SagaOrder("o-1", 5)],
    ids=repr,
)
def test_values_come_back_as_they_went(sagas, value) -> None:
    seen = []

    @sagas.define("echo")
    def echo(saga, given):
        seen.append(given)
        seen.append(saga.step(lambda: given))
        saga.wait_for("go")
        return given

    handle = sagas.start("echo", value)
    sagas.run_until_idle()
    sagas = again(sagas)
    sagas.signal(handle.saga_id, "go")
    sagas.run_until_idle()
    assert seen == [value] * 4
    assert [type(one) for one in seen] == [type(value)] * 4
    assert sagas.handle(handle.saga_id).result(0) == value


def test_arguments_become_what_the_function_names(sagas) -> None:
    @sagas.define("typed")
    def typed(saga, line: Line, size: int = 3):
        return [type(line).__name__, line.count, size]

    handle = sagas.start("typed", {"sku": "a", "count": 4})
    sagas.run_until_idle()
    assert handle.result(0) == ["Line", 4, 3]


def test_async_steps(sagas) -> None:
    async def fetch(number):
        return number + 1

    @sagas.define("async")
    def asynchronous(saga):
        return saga.step(fetch, 1) + saga.step(fetch, 2, timeout=5.0)

    handle = sagas.start("async")
    sagas.run_until_idle()
    assert handle.result(0) == 5


def test_keys_are_told_to_the_step_and_stay_the_same(sagas, clock) -> None:
    keys = []

    def charge():
        info = events.current_step()
        keys.append((info.key, info.attempt, info.step))
        if len(keys) < 3:
            raise ConnectionError("away")

    @sagas.define("keys")
    def with_keys(saga):
        assert saga.step_key == "k:0"
        saga.step(charge, retry=events.Retry(max_attempts=3, delay=1, jitter=0))
        saga.step(lambda: keys.append(saga.step_key), key="mine")

    sagas.start("keys", saga_id="k")
    for _ in range(3):
        sagas.run_until_idle()
        clock.advance(2)
    assert keys == [("k:0", 1, "charge"), ("k:0", 2, "charge"), ("k:0", 3, "charge"), "mine"]


# --- failing ---------------------------------------------------------------------------------------------------------


def test_failure_compensates_in_reverse(sagas, log) -> None:
    @sagas.define("fails")
    def fails(saga):
        for name in "abc":
            saga.step(log.step(name), compensate=log.step(f"undo {name}"))
        saga.step(log.step("d", error=ValueError("declined")), compensate=log.step("undo d"))

    handle = sagas.start("fails", saga_id="f")
    sagas.run_until_idle()
    assert log == ["a", "b", "c", "d", "undo c", "undo b", "undo a"]
    assert handle.status == "failed"
    with pytest.raises(events.SagaFailedError, match="'f' failed in step 'd': ValueError: declined") as caught:
        handle.result(0)
    assert (caught.value.step, caught.value.reason, caught.value.status) == ("d", "ValueError: declined", "failed")
    assert [one.status for one in sagas.inspect("f").operations] == ["compensated"] * 3 + ["failed"]


def test_a_saga_may_catch_what_failed(sagas, log) -> None:
    @sagas.define("otherwise")
    def otherwise(saga):
        try:
            saga.step(log.step("card", error=ValueError("declined")))
        except events.StepFailedError as error:
            saga.wait_for("go")
            return [error.step, error.reason, saga.step(log.step("invoice", "sent"))]

    handle = sagas.start("otherwise", saga_id="o")
    sagas.run_until_idle()
    sagas.signal("o", "go")
    sagas.run_until_idle()
    assert handle.result(0) == ["card", "ValueError: declined", "sent"]
    assert log == ["card", "invoice"]


def test_retries_wait_their_time(sagas, clock, log) -> None:
    failing = [ConnectionError("1"), ConnectionError("2")]

    def flaky():
        log.append(clock.monotonic())
        if failing:
            raise failing.pop()
        return "ok"

    @sagas.define("flaky")
    def with_retries(saga):
        return saga.step(flaky, retry=events.Retry(max_attempts=5, delay=10, factor=2, jitter=0))

    handle = sagas.start("flaky", saga_id="f")
    sagas.run_until_idle()
    assert sagas.inspect("f").operations[0].status == "retrying"
    for _ in range(7):
        clock.advance(5)
        sagas.run_until_idle()
    assert log == [0, 10, 30]
    assert handle.result(0) == "ok"
    assert sagas.inspect("f").operations[0].attempts == 3


def test_what_is_not_retried(sagas, log) -> None:
    @sagas.define("fatal")
    def fatal(saga):
        saga.step(log.step("s", error=KeyError("x")), retry=events.Retry(give_up_on=(KeyError,)))

    handle = sagas.start("fatal")
    sagas.run_until_idle()
    assert handle.status == "failed"
    assert log == ["s"]


def test_a_step_that_takes_too_long_fails(sagas, clock) -> None:
    release = threading.Event()
    began = threading.Event()

    def slow():
        began.set()
        release.wait(30)

    @sagas.define("slow")
    def with_timeout(saga):
        saga.step(slow, timeout=5.0)

    handle = sagas.start("slow")
    passing = threading.Thread(target=lambda: (began.wait(30), clock.advance(6)))
    passing.start()
    sagas.run_until_idle()
    passing.join()
    release.set()
    with pytest.raises(events.SagaFailedError, match="SagaTimeoutError: step 'slow'"):
        handle.result(0)


def test_a_step_in_time_is_not_disturbed_by_its_timeout(sagas) -> None:
    @sagas.define("quick")
    def quick(saga):
        return [saga.step(lambda n=n: n, timeout=60.0) for n in range(5)]

    handle = sagas.start("quick")
    sagas.run_until_idle()
    assert handle.result(0) == [0, 1, 2, 3, 4]


def test_compensations_are_retried_and_then_wait_for_somebody(sagas, clock, log) -> None:
    mended = []

    def undo():
        log.append("undo")
        if not mended:
            raise OSError("the shop is closed")

    @sagas.define("stuck")
    def stuck(saga):
        saga.step(log.step("a"), compensate=log.step("undo a"))
        saga.step(log.step("b"), compensate=undo)
        raise RuntimeError("no")

    handle = sagas.start("stuck", saga_id="s")
    for _ in range(10):
        sagas.run_until_idle()
        clock.advance(10)
    assert handle.status == "compensation_failed"
    assert log == ["a", "b"] + ["undo"] * 5
    with pytest.raises(events.SagaFailedError, match="the compensation of b failed: OSError"):
        handle.result(0)
    assert [saga.compensation_error for saga in sagas.list(status="compensation_failed")] == [
        "OSError: the shop is closed"
    ]
    mended.append(True)
    sagas = again(sagas)
    sagas.retry("s")
    sagas.run_until_idle()
    assert sagas.handle("s").status == "failed"
    assert log[-2:] == ["undo", "undo a"]
    assert sagas.inspect("s").reason == "RuntimeError: no"


def test_what_cannot_be_stored_fails_the_saga_and_is_compensated(sagas, log) -> None:
    @sagas.define("odd")
    def odd(saga):
        saga.step(log.step("s", result=object()), compensate=log.step("undo s"))

    handle = sagas.start("odd")
    sagas.run_until_idle()
    assert log == ["s", "undo s"]
    with pytest.raises(events.SagaFailedError, match=r"the result of step 's' is object, which is not serialisable"):
        handle.result(0)


# --- waiting ---------------------------------------------------------------------------------------------------------


def test_a_signal_wakes_and_one_that_came_before_is_kept(sagas, log) -> None:
    @sagas.define("waits")
    def waits(saga):
        saga.step(log.step("before"))
        return [saga.wait_for("shipped"), saga.wait_for("paid"), saga.wait_for("shipped")]

    sagas.signal("w", "paid", {"cents": 5})  # before it even starts
    handle = sagas.start("waits", saga_id="w")
    sagas.run_until_idle()
    assert handle.status == "waiting"
    assert sagas.inspect("w").signals == ("paid",)
    sagas.signal("w", "shipped", 1)
    sagas.signal("w", "shipped", 2)
    sagas = again(sagas)
    sagas.run_until_idle()
    assert sagas.handle("w").result(0) == [1, {"cents": 5}, 2]
    assert log == ["before"]


def test_where_chooses_among_signals(sagas) -> None:
    @sagas.define("chooses")
    def chooses(saga):
        return [saga.wait_for("n", where=lambda n: n > 5), saga.wait_for("n")]

    handle = sagas.start("chooses", saga_id="c")
    for number in (1, 7):
        sagas.signal("c", "n", number)
        sagas.run_until_idle()
    assert handle.result(0) == [7, 1]


@pytest.mark.parametrize("restart", [False, True])
def test_a_wait_times_out_at_its_time_wherever_it_runs(sagas, clock, restart) -> None:
    @sagas.define("late")
    def late(saga):
        try:
            return saga.wait_for("shipped", timeout=100)
        except events.SagaTimeoutError:
            return [saga.wait_for("paid", timeout=50, default="nothing"), saga.now.timestamp()]

    handle = sagas.start("late", saga_id="l")
    for _ in range(29):
        sagas.run_until_idle()
        assert handle.status == "waiting"
        clock.advance(5)
        if restart:
            sagas = again(sagas)
            handle = sagas.handle("l")
    clock.advance(5)
    sagas.run_until_idle()
    assert sagas.handle("l").result(0) == ["nothing", clock.time_ms() / 1000]


def test_a_timeout_that_is_not_caught_compensates(sagas, clock, log) -> None:
    @sagas.define("unshipped")
    def unshipped(saga):
        saga.step(log.step("charge"), compensate=log.step("refund"))
        saga.wait_for("shipped", timeout=86_400)

    handle = sagas.start("unshipped")
    sagas.run_until_idle()
    clock.advance(86_401)
    sagas.run_until_idle()
    assert log == ["charge", "refund"]
    with pytest.raises(events.SagaFailedError, match="'shipped'"):
        handle.result(0)


def test_sleep_and_now(sagas, clock) -> None:
    @sagas.define("sleeps")
    def sleeps(saga):
        before = saga.now
        saga.sleep(0)
        saga.sleep(3600)
        return (saga.now - before).total_seconds()

    handle = sagas.start("sleeps", saga_id="s")
    for _ in range(4):
        sagas.run_until_idle()
        sagas = again(sagas)
        assert sagas.handle("s").status == "waiting"
        clock.advance(1000)
    sagas.run_until_idle()
    assert sagas.handle(handle.saga_id).result(0) == 3600


# --- acting from outside ---------------------------------------------------------------------------------------------


def test_cancel_compensates_and_retry_begins_anew_with_other_keys(sagas, log) -> None:
    @sagas.define("cancelled")
    def cancelled(saga):
        saga.step(lambda: log.append(saga.step_key), compensate=log.step("undo"))
        return saga.wait_for("go")

    handle = sagas.start("cancelled", saga_id="c")
    sagas.run_until_idle()
    sagas.cancel("c")
    sagas.run_until_idle()
    assert handle.status == "cancelled"
    with pytest.raises(events.SagaCancelledError):
        handle.result(0)
    with pytest.raises(events.SagaStateError, match="is cancelled"):
        sagas.cancel("c")
    sagas.retry("c")
    sagas.signal("c", "go", 5)
    sagas.run_until_idle()
    assert handle.result(0) == 5
    assert log == ["c:0", "undo", "c~2:0"]
    assert sagas.inspect("c").run == 2
    with pytest.raises(events.SagaStateError, match="is completed"):
        sagas.retry("c")


def test_list_and_count(sagas, clock) -> None:
    @sagas.define("mixed")
    def mixed(saga, what):
        if what == "fail":
            raise ValueError("no")
        return saga.wait_for("go") if what == "wait" else None

    for number, what in enumerate(["fail", "wait", "end", "fail"]):
        sagas.start("mixed", what, saga_id=str(number))
    assert sagas.count() == {"running": 4}
    sagas.run_until_idle()
    for restart in (False, True):
        one = again(sagas) if restart else sagas
        assert sorted(saga.saga_id for saga in one.list(status="failed")) == ["0", "3"]
        assert [saga.saga_id for saga in one.list(status="waiting", definition="mixed")] == ["1"]
        assert one.list(definition="other") == []
        assert len(one.list()) == 4
        assert len(one.list(limit=3)) == 3
        assert one.count() == {"failed": 2, "waiting": 1, "completed": 1}


def test_another_function_than_the_journal_says_is_noticed(sagas, log) -> None:
    names = ["a", "b"]

    @sagas.define("changed")
    def changed(saga):
        for name in list(names):
            saga.step(log.step(name), compensate=log.step("undo"))
        saga.wait_for("go")

    handle = sagas.start("changed", saga_id="c")
    sagas.run_until_idle()
    names[1] = "x"
    sagas.signal("c", "go")
    sagas.run_until_idle()
    with pytest.raises(events.SagaNonDeterminismError, match="operation 1 is step 'b' in the journal, and 'x'"):
        handle.result(0)
    assert log == ["a", "b"]
    names[1] = "b"
    sagas.retry("c")
    sagas.run_until_idle()
    assert handle.status == "completed"
    assert log == ["a", "b"]


def test_a_function_that_ends_early_is_noticed(sagas, log) -> None:
    names = ["a", "b"]

    @sagas.define("shorter")
    def shorter(saga):
        for name in list(names):
            saga.step(log.step(name))
        if len(names) == 2:
            saga.wait_for("go")

    handle = sagas.start("shorter", saga_id="s")
    sagas.run_until_idle()
    names.pop()
    sagas.signal("s", "go")
    sagas.run_until_idle()
    with pytest.raises(events.SagaNonDeterminismError, match="operation 1 is step 'b'"):
        handle.result(0)


def test_a_step_must_not_use_its_saga(sagas) -> None:
    @sagas.define("nested")
    def nested(saga):
        saga.step(lambda: saga.step(lambda: None), name="outer")

    handle = sagas.start("nested")
    sagas.run_until_idle()
    with pytest.raises(events.SagaFailedError, match="step 'outer' uses its saga"):
        handle.result(0)


# --- what is kept ----------------------------------------------------------------------------------------------------


def test_finished_sagas_are_forgotten_and_their_log_goes(tmp_path, clock) -> None:
    with penstock.open(tmp_path / "data", clock=clock) as broker:
        with events.Sagas(broker, partitions=1, retention_ms=60_000) as sagas:

            @sagas.define("short")
            def short(saga, wait):
                return saga.wait_for("go") if wait else None

            sagas.start("short", False, saga_id="over")
            sagas.start("short", True, saga_id="waits")
            sagas.run_until_idle()
            clock.advance(120)
            sagas.run_until_idle()
            with pytest.raises(events.UnknownSagaError):
                sagas.inspect("over")
            log = broker.topic("sagas").log(0)
            assert log.log_start_offset >= 4
            (tmp_path / "data" / "sagas" / "sagas.sqlite3").unlink()
            for left in (tmp_path / "data" / "sagas").iterdir():
                left.unlink()
            with again(sagas) as restarted:
                restarted.signal("waits", "go", "still here")
                restarted.run_until_idle()
                assert restarted.handle("waits").result(0) == "still here"


def test_the_log_of_a_saga_in_a_workers_hands_stays(tmp_path, clock, monkeypatch) -> None:
    in_step, go_on, trimmed = threading.Event(), threading.Event(), threading.Event()
    trim = OwnedPartition.trim

    def trim_and_tell(*args):
        trim(*args)
        trimmed.set()

    monkeypatch.setattr(OwnedPartition, "trim", trim_and_tell)
    with penstock.open(tmp_path / "data", clock=clock) as broker:
        with events.Sagas(broker, partitions=1, retention_ms=60_000) as sagas:

            @sagas.define("long")
            def long(saga):
                saga.step(lambda: 1, name="before")
                saga.step(lambda: (in_step.set(), go_on.wait(10)) and 2, name="in hand")
                return 3

            handle = sagas.start("long")
            sagas.start_background(workers=1)
            assert in_step.wait(10)
            clock.advance(120)
            assert trimmed.wait(10)
            begin = broker.topic("sagas").log(0).log_start_offset
            go_on.set()
            assert handle.result(timeout=10) == 3
    assert begin == 0, "a process that lost the store would not know of the saga's first step"


def test_a_lost_store_is_made_again_from_the_log(sagas) -> None:
    @sagas.define("simple")
    def simple(saga, number):
        return saga.step(lambda: number)

    for number in range(20):
        sagas.start("simple", number, saga_id=str(number))
    sagas.run_until_idle()
    sagas.close()
    for file in (sagas.broker.path / "sagas").iterdir():
        file.unlink()
    with again(sagas) as restarted:
        assert restarted.run_until_idle() == 0
        assert [restarted.handle(str(number)).result(0) for number in range(20)] == list(range(20))


def test_opening_reads_no_history(sagas) -> None:
    @sagas.define("simple")
    def simple(saga, number):
        return saga.step(lambda: number)

    for number in range(50):
        sagas.start("simple", number)
    sagas.run_until_idle()
    logs = [sagas.broker.topic("sagas").log(number) for number in range(2)]
    assert sagas._store.checkpoints() == {number: log.log_end_offset for number, log in enumerate(logs)}
    assert sagas.run_until_idle() == 0


def test_foreign_records_are_left_out(sagas, caplog) -> None:
    @sagas.define("simple")
    def simple(saga):
        return "ok"

    for value in (b"poison", b"[1]", b'{"kind":7}', None, b'{"a":' * 100_000):
        sagas.broker.topic("sagas").append(value, key=b"s")
    for key in (None, b"", b"\xff"):
        sagas.broker.topic("sagas").append(b'{"kind":"start","name":"simple"}', key=key)
    handle = sagas.start("simple", saga_id="s")
    assert [one.saga_id for one in sagas.list()] == ["s"]
    sagas.run_until_idle()
    assert handle.result(0) == "ok"
    assert caplog.text.count("no entry of sagas") == 7


# --- refusals --------------------------------------------------------------------------------------------------------


def test_refusals(sagas, broker) -> None:
    @sagas.define("known")
    def known(saga, order):
        return None

    with pytest.raises(events.UnknownSagaError, match="'unknown'; defined are 'known'"):
        sagas.start("unknown", 1)
    with pytest.raises(penstock.InvalidArgumentError, match="missing a required argument"):
        sagas.start("known")
    with pytest.raises(penstock.InvalidArgumentError, match="too many"):
        sagas.start("known", 1, 2)
    with pytest.raises(penstock.InvalidTypeError, match="argument 1 of saga 'known' is object"):
        sagas.start("known", object())
    with pytest.raises(penstock.InvalidTypeError, match="saga_id is 7"):
        sagas.start("known", 1, saga_id=7)
    with pytest.raises(penstock.InvalidArgumentError, match="saga_id has 501"):
        sagas.start("known", 1, saga_id="x" * 501)
    with pytest.raises(penstock.InvalidTypeError, match="data is set"):
        sagas.signal("s", "n", {object()})
    for call in (sagas.inspect, sagas.cancel, sagas.retry, sagas.handle):
        with pytest.raises(events.UnknownSagaError, match="'nobody'"):
            call("nobody")
    with pytest.raises(penstock.InvalidArgumentError, match="status is 'odd'"):
        sagas.list(status="odd")
    with pytest.raises(penstock.InvalidArgumentError, match="workers is 0"):
        sagas.run(workers=0)
    with pytest.raises(penstock.InvalidTypeError, match="not async"):
        sagas.define("async")(dataclasses)
    with pytest.raises(penstock.InvalidConfigError, match="retention_ms is 0"):
        events.Sagas(broker, retention_ms=0)
    with pytest.raises(penstock.InvalidNameError):
        events.Sagas(broker, name="no/name")
    assert sagas.list() == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"retry": 3}, "retry is 3"),
        ({"timeout": 0}, "timeout is 0"),
        ({"compensate": "undo"}, "compensate is 'undo'"),
    ],
)
def test_bad_options_of_a_step_fail_before_its_effect(sagas, log, options, message) -> None:
    @sagas.define("bad")
    def bad(saga):
        saga.step(log.step("s"), **options)

    handle = sagas.start("bad")
    sagas.run_until_idle()
    with pytest.raises(events.SagaFailedError, match=message):
        handle.result(0)
    assert log == []


def test_a_result_that_does_not_come(sagas, clock) -> None:
    @sagas.define("waits")
    def waits(saga):
        saga.wait_for("go")

    handle = sagas.start("waits", saga_id="w")
    with pytest.raises(events.SagaTimeoutError, match="'w' is still running"):
        handle.result(0)
    with pytest.raises(penstock.InvalidArgumentError, match="timeout is -1"):
        handle.result(-1)
