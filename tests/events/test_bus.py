"""The event bus: by type, by group, by key; retries, dead letters, redrive, batches, copies, async handlers."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from children import Child

import penstock
from penstock import InvalidConfigError, InvalidTypeError, VirtualClock, events


class BusShape(events.Event):
    number: int


class BusSquare(BusShape):
    pass


class BusCircle(BusShape):
    pass


class BusOther(events.Event):
    name: str


ONCE = events.Retry(max_attempts=1)


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
def bus(tmp_path: Path, clock: VirtualClock) -> Iterator[events.EventBus]:
    with penstock.open(tmp_path / "data", fsync="never", clock=clock) as broker:
        with events.EventBus(broker, source="tests") as made:
            yield made


def test_handlers_get_their_types(bus: events.EventBus) -> None:
    got: dict[str, list[int]] = {"square": [], "shape": [], "all": [], "two": [], "name": []}
    bus.on(BusSquare, group="a")(lambda event: got["square"].append(event.number))
    bus.on(BusShape, group="b")(lambda event: got["shape"].append(event.number))
    bus.on("*", group="c")(lambda event: got["all"].append(getattr(event, "number", -1)))
    bus.on(BusSquare, BusOther, group="d")(lambda event: got["two"].append(getattr(event, "number", -1)))
    bus.on("BusCircle", group="e")(lambda event: got["name"].append(event.number))
    bus.publish(BusSquare(1))
    bus.publish_many([BusCircle(2), BusOther("x"), BusSquare(3)], keys=["k", None, b"k"])
    assert bus.run_until_idle() == 5 * 4
    assert got == {"square": [1, 3], "shape": [1, 2, 3], "all": [1, 2, -1, 3], "two": [1, -1, 3], "name": [2]}
    assert bus.run_until_idle() == 0
    assert bus.dead_letters() == []


def test_causes_are_carried_on(bus: events.EventBus) -> None:
    seen: list[events.Envelope] = []

    @bus.on(BusSquare, group="first")
    def first(event: BusSquare) -> None:
        bus.publish(BusCircle(event.number))

    @bus.on(BusCircle, group="second")
    def second(event: BusCircle, envelope: events.Envelope) -> None:
        seen.append(envelope)

    cause = bus.publish(BusSquare(7), metadata={"userId": "u"})
    bus.run_until_idle()
    (envelope,) = seen
    assert envelope.causation_id == cause.message_id and envelope.correlation_id == cause.correlation_id
    assert (envelope.metadata["userId"], envelope.source) == ("u", "tests")


def test_parameters_with_a_default_are_the_handlers_own(bus: events.EventBus) -> None:
    got: list[object] = []
    for name in ("a", "b"):
        bus.on(BusSquare, group=name, filter=lambda event, least=1: event.number >= least)(
            lambda event, name=name: got.append((name, event.number))
        )
    bus.on(BusSquare, group="c")(lambda event, envelope=None: got.append(envelope.source))
    bus.on(BusSquare, group="d")(lambda event, envelope, name="d": got.append((name, envelope.source)))
    bus.publish(BusSquare(1))
    bus.run_until_idle()
    assert got == [("a", 1), ("b", 1), "tests", ("d", "tests")]


def test_filters_skip(bus: events.EventBus) -> None:
    got: list[int] = []
    bus.on(BusShape, group="odd", filter=lambda event: event.number % 2)(lambda event: got.append(event.number))
    bus.on(BusShape, group="mine", filter=lambda _, envelope: envelope.source == "me")(lambda event: got.append(-1))
    bus.publish_many([BusSquare(number) for number in range(4)])
    bus.publish(BusSquare(9), source="me")
    bus.run_until_idle()
    assert got == [1, 3, 9, -1]


def test_a_failure_is_retried_alone_and_its_key_waits(bus: events.EventBus, clock: VirtualClock) -> None:
    got: list[tuple[str, int]] = []
    broken = True

    @bus.on(BusSquare, group="g", retry=events.Retry(delay=10, jitter=0))
    def handle(event: BusSquare, envelope: events.Envelope) -> None:
        if event.number == 0 and broken:
            raise OSError("not now")
        got.append((envelope.type, event.number))

    bus.publish_many([BusSquare(0), BusSquare(1), BusSquare(2), BusSquare(3)], keys=["a", "b", "a", "b"])
    bus.run_until_idle()
    assert [number for _, number in got] == [1, 3]
    clock.advance(5)
    assert bus.run_until_idle() == 0
    broken = False
    clock.advance(5)
    bus.run_until_idle()
    assert [number for _, number in got] == [1, 3, 0, 2]


@pytest.mark.parametrize("options", [{}, {"batch": True}], ids=["one by one", "batch"])
@pytest.mark.parametrize("what", ["upcaster", "filter", "handler"])
def test_whatever_fails_the_key_waits(bus: events.EventBus, clock: VirtualClock, what: str, options: dict) -> None:
    done: list[int] = []
    failures = {"upcaster": 1, "filter": 1, "handler": 1 + len(options)}  # a batch is tried again one by one

    class Moved(events.Event, type=f"BusMoved-{what}-{len(options)}", version=2):
        number: int

    @events.registry.upcaster(Moved.event_type, 1)
    def upcast(data: dict) -> dict:
        fail("upcaster", data["number"])
        return data

    def fail(where: str, number: int) -> None:
        if where == what and number == 0 and failures[where]:
            failures[where] -= 1
            raise OSError("not now")

    def wanted(event: Moved) -> bool:
        fail("filter", event.number)
        return True

    @bus.on(Moved, group="g", filter=wanted, retry=events.Retry(delay=10, jitter=0), **options)
    def handle(given: list[Moved] | Moved) -> None:
        for event in given if isinstance(given, list) else [given]:
            fail("handler", event.number)
            done.append(event.number)

    old = [msgspec.structs.replace(events.Envelope.wrap(Moved(number), "t"), version=1) for number in range(3)]
    bus.publish_many(old, keys=["k"] * 3)
    bus.run_until_idle()
    assert done == []
    clock.advance(10)
    bus.run_until_idle()
    assert done == [0, 1, 2] and bus.dead_letters() == []


def test_dead_letters_say_why_and_can_be_redriven(bus: events.EventBus, clock: VirtualClock) -> None:
    got: list[str] = []
    broken = True

    @bus.on(BusSquare, group="g", retry=events.Retry(max_attempts=3, delay=1, jitter=0, give_up_on=(KeyError,)))
    def handle(event: BusSquare) -> None:
        if broken:
            raise KeyError("hopeless") if event.number == 2 else ValueError(f"broken {event.number}")
        got.append(f"g{event.number}")

    bus.on(BusSquare, group="other")(lambda event: got.append(f"other{event.number}"))
    bus.publish_many([BusSquare(1), BusSquare(2), BusSquare(3)])
    for _ in range(4):
        bus.run_until_idle()
        clock.advance(10)
    letters = {letter.envelope.data["number"]: letter for letter in bus.dead_letters("g") if letter.envelope}
    assert {number: (letter.reason, letter.attempts) for number, letter in letters.items()} == {
        1: ("delivery_limit", 3), 2: ("rejected", 1), 3: ("delivery_limit", 3),
    }  # fmt: skip
    assert "ValueError: broken 1" in letters[1].error and "in handle" in letters[1].error
    assert got == ["other1", "other2", "other3"]
    assert bus.redrive("g", dry_run=True).moved == 3 and len(bus.dead_letters()) == 3
    broken = False
    report = bus.redrive("g", filter=lambda letter: letter.reason == "delivery_limit")
    assert (report.moved, report.skipped) == (2, 1)
    bus.run_until_idle()
    assert sorted(got[3:]) == ["g1", "g3"]
    assert [letter.reason for letter in bus.dead_letters()] == ["rejected"]
    assert bus.redrive("nobody").moved == 0


def test_what_was_redriven_may_die_again(bus: events.EventBus, clock: VirtualClock) -> None:
    @bus.on(BusSquare, group="g", retry=events.Retry(max_attempts=2, delay=0, jitter=0))
    def handle(event: BusSquare) -> None:
        raise ValueError("always")

    bus.publish(BusSquare(1))
    for _ in range(2):
        bus.run_until_idle()
        (letter,) = bus.dead_letters("g")
        assert "ValueError: always" in letter.error
        assert bus.redrive("g").moved == 1 and bus.dead_letters() == []


def test_poison_is_dead_lettered_and_the_rest_goes_on(bus: events.EventBus) -> None:
    got: list[int] = []
    bus.on(BusSquare, group="g")(lambda event: got.append(event.number))
    envelope = events.Envelope.wrap(BusSquare(1), "x")
    topic = bus.broker.topic("events")
    topic.append(b"\x00 no json")
    topic.append(envelope.to_json().replace(b"BusSquare", b"NobodyKnowsIt"))
    topic.append(envelope.to_json().replace(b'"number":1', b'"number":"one"'))
    topic.append(b"")
    deep = b'{"a":' * 100_000
    topic.append(deep)
    topic.append(envelope.to_json().replace(b'"number":1', b'"a":' + deep + b"1" + b"}" * 100_000))
    bus.publish(BusSquare(5))
    bus.run_until_idle()
    assert got == [5]
    letters = bus.dead_letters()
    assert [letter.reason for letter in letters] == ["rejected"] * 6
    errors = [letter.error.strip().splitlines()[-1] for letter in letters]
    assert "no envelope" in errors[0] and "NobodyKnowsIt" in errors[1] and "number" in errors[2]
    assert letters[0].envelope is None and letters[0].value == b"\x00 no json"


def test_unknown_types_may_be_skipped(bus: events.EventBus) -> None:
    other = events.EventBus(bus.broker, "x", unknown_types="skip")
    got: list[object] = []
    other.on("*", group="skips")(got.append)
    raw = events.Envelope.wrap(BusSquare(1), "x").to_json().replace(b"BusSquare", b"NobodyKnowsIt")
    bus.broker.topic("events").append(raw)
    other.run_until_idle()
    assert got == [] and other.dead_letters() == []
    other.close()


def test_no_more_events_than_asked_for(bus: events.EventBus) -> None:
    done: list[int] = []

    @bus.on(BusSquare, group="g")
    def handle(event: BusSquare) -> None:
        done.append(event.number)
        bus.publish(BusSquare(event.number + 1))

    bus.on(BusSquare, group="other")(lambda event: None)
    bus.publish_many([BusSquare(number) for number in range(10)])
    assert bus.run_until_idle(max_events=0) == 0
    assert bus.run_until_idle(max_events=3) == 3 and done == [0, 1, 2]
    assert bus.run_until_idle(max_events=20) == 20


def test_idempotent_handlers_take_an_id_once(bus: events.EventBus, tmp_path: Path) -> None:
    got: list[str] = []
    bus.on(BusSquare, group="remembers", idempotent=True)(lambda event: got.append("a"))
    inbox = events.Inbox(tmp_path / "own.db", group="own")
    inbox.connection.execute("CREATE TABLE effects (number)")

    @bus.on(BusSquare, group="own", idempotent=inbox, retry=ONCE)
    def handle(event: BusSquare) -> None:
        inbox.connection.execute("INSERT INTO effects VALUES (?)", (event.number,))
        if event.number < 0:
            raise ValueError("undone")

    envelope = bus.publish(BusSquare(3))
    bus.publish(envelope)
    bus.run_until_idle()
    bus.publish(envelope, key="elsewhere")
    bus.publish(BusSquare(-1))
    bus.run_until_idle()
    assert got == ["a", "a"]
    assert inbox.connection.execute("SELECT number FROM effects").fetchall() == [(3,)]
    assert len(bus.dead_letters("own")) == 1
    inbox.close()


def test_batches(bus: events.EventBus) -> None:
    got: list[list[int]] = []

    @bus.on(BusShape, group="g", batch=True, prefetch=4, retry=ONCE, filter=lambda event: event.number != 8)
    def handle(batch: list[BusShape], envelopes: list[events.Envelope]) -> None:
        assert [envelope.data["number"] for envelope in envelopes] == [event.number for event in batch]
        if any(event.number == 2 for event in batch):
            raise ValueError("two")
        got.append([event.number for event in batch])

    bus.publish_many([BusSquare(number) for number in range(9)])
    bus.run_until_idle()
    assert got[:3] == [[0], [1], [3]]
    assert [number for batch in got[3:] for number in batch] == [4, 5, 6, 7]  # in one batch, unless the machine is slow
    assert [letter.envelope.data["number"] for letter in bus.dead_letters() if letter.envelope] == [2]


def test_slow_handlers_get_fewer_at_once_by_the_brokers_clock(bus: events.EventBus, clock: VirtualClock) -> None:
    got: list[list[int]] = []

    @bus.on(BusSquare, group="g", batch=True, prefetch=4)
    def handle(batch: list[BusSquare]) -> None:
        got.append([event.number for event in batch])
        if len(got) == 1:
            clock.advance(0.19)

    bus.publish_many([BusSquare(number) for number in range(10)])
    bus.run_until_idle()
    assert got == [[0, 1, 2, 3], [4, 5], [6, 7, 8, 9]]


def test_every_subscriber_gets_a_copy(bus: events.EventBus, clock: VirtualClock) -> None:
    bus.publish(BusSquare(0))  # before they subscribed
    other = events.EventBus(bus.broker, "other")
    got: list[tuple[str, int]] = []
    attempts: list[int] = []

    def flaky(event: BusSquare) -> None:
        attempts.append(event.number)
        if event.number == 1 and len(attempts) < 4:
            raise ValueError("again")
        got.append(("flaky", event.number))

    retry = events.Retry(max_attempts=3, delay=1, jitter=0)
    bus.on(BusSquare, group="caches", copies="subscriber", retry=retry)(flaky)
    other.on(BusSquare, group="caches", copies="subscriber")(lambda event: got.append(("other", event.number)))
    bus.publish_many([BusSquare(1), BusSquare(2), BusSquare(3)], keys=["k", "k", "l"])
    bus.run_until_idle()
    other.run_until_idle()
    assert got == [("flaky", 3), ("other", 1), ("other", 2), ("other", 3)]
    for _ in range(3):
        clock.advance(10)
        bus.run_until_idle()
    assert got[4:] == [("flaky", 1), ("flaky", 2)] and attempts == [1, 3, 1, 1, 2]
    assert bus.dead_letters() == []
    other.close()


def test_a_copy_that_keeps_failing_is_a_dead_letter(bus: events.EventBus) -> None:
    @bus.on(BusSquare, group="caches", copies="subscriber", retry=ONCE)
    def handle(event: BusSquare) -> None:
        raise ValueError("never")

    bus.publish(BusSquare(1))
    bus.run_until_idle()
    (letter,) = bus.dead_letters("caches")
    assert letter.reason == "delivery_limit" and "ValueError: never" in letter.error


def test_async_handlers_run_at_once_by_key(bus: events.EventBus) -> None:
    running: set[int] = set()
    most = 0
    order: dict[int, list[int]] = {0: [], 1: [], 2: []}
    current: list[str] = []

    @bus.on(BusSquare, group="g", retry=ONCE)
    async def handle(event: BusSquare, envelope: events.Envelope) -> None:
        nonlocal most
        running.add(event.number)
        most = max(most, len(running))
        await asyncio.sleep(0)
        found = events.current_envelope()
        assert found is not None
        current.append(found.message_id)
        assert found.message_id == envelope.message_id
        order[event.number % 3].append(event.number)
        running.discard(event.number)
        if event.number == 4:
            raise ValueError("four")

    bus.publish_many([BusSquare(number) for number in range(9)], keys=lambda event: str(event.number % 3))
    bus.run_until_idle()
    assert order == {0: [0, 3, 6], 1: [1, 4, 7], 2: [2, 5, 8]} and most == 3 and len(current) == 9
    assert len(bus.dead_letters()) == 1


def test_an_open_circuit_pauses_and_fails_nothing(bus: events.EventBus, clock: VirtualClock) -> None:
    breaker = events.CircuitBreaker(failure_threshold=2, reset_timeout=30)
    calls: list[int] = []
    broken = True

    @bus.on(BusSquare, group="g", breaker=breaker, retry=events.Retry(delay=0, jitter=0, max_attempts=3))
    def handle(event: BusSquare) -> None:
        calls.append(event.number)
        if broken:
            raise ConnectionError("down")

    bus.publish_many([BusSquare(number) for number in range(5)])
    bus.run_until_idle()
    assert calls == [0, 1] and breaker.state == "open"
    clock.advance(29)
    assert bus.run_until_idle() == 0
    clock.advance(1)
    bus.run_until_idle()  # one trial, which fails
    assert len(calls) == 3 and breaker.state == "open"
    broken = False
    clock.advance(30)
    bus.run_until_idle()
    assert sorted(calls[3:]) == [0, 1, 2, 3, 4] and breaker.state == "closed"
    assert bus.dead_letters() == []


def test_back_pressure_in_a_handler_is_no_failure(bus: events.EventBus, clock: VirtualClock) -> None:
    limit = events.RateLimit(1, per=60, max_wait=0, clock=clock)
    got: list[int] = []

    @bus.on(BusSquare, group="g", retry=ONCE)
    @limit
    def handle(event: BusSquare) -> None:
        got.append(event.number)

    bus.publish_many([BusSquare(1), BusSquare(2), BusSquare(3)], keys=["a", "a", "a"])
    for _ in range(4):
        bus.run_until_idle()
        clock.advance(60)
    assert got == [1, 2, 3] and bus.dead_letters() == []


def test_threads_share_and_a_stop_gives_back(tmp_path: Path) -> None:
    with penstock.open(tmp_path / "data", fsync="never") as broker, events.EventBus(broker, "t") as bus:
        both, begun, go_on = threading.Barrier(2, timeout=20), threading.Event(), threading.Event()
        got: list[int] = []

        @bus.on(BusSquare, group="g", prefetch=1)
        def handle(event: BusSquare) -> None:
            if event.number in (0, 1):
                both.wait()  # passes only when two run at once
            got.append(event.number)

        @bus.on(BusCircle, group="slow")
        def slow(event: BusCircle) -> None:
            begun.set()
            go_on.wait(20)
            got.append(100)

        bus.publish_many([BusSquare(number) for number in range(50)])
        bus.start(workers=2, groups=["g"])
        with pytest.raises(InvalidConfigError, match="runs already"):
            bus.start()
        bus.drain(20)
        bus.stop()
        assert sorted(got) == list(range(50))
        bus.publish_many([BusCircle(1), BusCircle(2)], keys=["a", "b"])
        bus.start(groups=["slow"])
        assert begun.wait(20)
        bus._ask_to_stop()
        go_on.set()
        bus.stop()
        assert got[50:] == [100]
        bus.run_until_idle()
        assert got[50:] == [100, 100]


def test_drain_waits_for_retries(tmp_path: Path) -> None:
    with penstock.open(tmp_path / "data", fsync="never") as broker, events.EventBus(broker, "t") as bus:
        calls: list[int] = []

        @bus.on(BusSquare, group="g", retry=events.Retry(max_attempts=4, delay=0.01, max_delay=0.01))
        def handle(event: BusSquare) -> None:
            calls.append(event.number)
            if len(calls) < 3:
                raise ValueError("again")

        bus.publish(BusSquare(1))
        bus.drain(timeout=20)
        assert calls == [1, 1, 1] and bus.dead_letters() == []


def test_drain_gives_up_in_time(bus: events.EventBus) -> None:
    bus.on(BusSquare, group="g", retry=events.Retry(delay=60))(lambda event: event.nothing)
    bus.publish(BusSquare(1))
    with pytest.raises(penstock.WaitTimeoutError, match="'g'") as caught:
        bus.drain(timeout=0)
    assert isinstance(caught.value, TimeoutError) and caught.value.retriable


def test_what_ends_a_worker_ends_the_run(tmp_path: Path) -> None:
    with penstock.open(tmp_path / "data", fsync="never") as broker, events.EventBus(broker, "t") as bus:

        @bus.on(BusSquare, group="g")
        def handle(event: BusSquare) -> None:
            raise SystemExit(3)

        bus.publish(BusSquare(1))
        with pytest.raises(SystemExit):
            bus.run()
        assert bus.run_until_idle(max_events=0) == 0


def test_serve_runs_handlers_in_the_callers_loop(tmp_path: Path) -> None:
    async def main(bus: events.EventBus) -> None:
        loop, done = asyncio.get_running_loop(), asyncio.Event()

        @bus.on(BusSquare, group="g")
        async def handle(event: BusSquare) -> None:
            assert asyncio.get_running_loop() is loop
            done.set()

        task = asyncio.create_task(bus.serve())
        bus.publish(BusSquare(1))
        await asyncio.wait_for(done.wait(), 20)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with penstock.open(tmp_path / "data", fsync="never") as broker, events.EventBus(broker, "t") as bus:
        asyncio.run(main(bus))


WORKER = """
import sys, os, penstock
from penstock import events
class BusWork(events.Event):
    number: int
with penstock.open(sys.argv[1]) as broker:
    bus = events.EventBus(broker, "worker")
    @bus.on(BusWork, group="g", visibility_timeout=0.5)
    def handle(event):
        if event.number == 13 and sys.argv[2] == "dies":
            os.kill(os.getpid(), 9)
        broker.topic("done").append(b"%d" % event.number, key=b"%d" % os.getpid())
    bus.run()
    bus.close()
print("closed", flush=True)
"""


def test_processes_compete_and_a_death_loses_nothing(tmp_path: Path) -> None:
    class BusWork(events.Event):
        number: int

    def worker(how: str) -> Child:
        return Child(WORKER, tmp_path / "data", how, stdout=subprocess.PIPE, text=True)

    with penstock.open(tmp_path / "data", fsync="never") as broker:
        done = broker.create_topic("done")
        bus = events.EventBus(broker, "t")
        bus.publish_many([BusWork(number) for number in range(30)])
        dying = worker("dies")
        assert dying.wait(60) == -signal.SIGKILL
        assert dying.stdout is not None
        dying.stdout.close()
        children = [worker("lives"), worker("lives")]
        seen: list[int] = []
        pids: set[bytes | None] = set()
        count = 30
        with broker.consumer("done") as consumer:
            while len(set(seen)) < count or len(pids) < 2:
                records = consumer.poll(timeout=0.2)
                seen += [int(record.value or b"-1") for record in records]
                pids |= {record.key for record in records} - {b"%d" % dying.pid}
                if len(set(seen)) == count and len(pids) < 2:  # the other one has not begun yet
                    bus.publish_many([BusWork(number) for number in range(count, count + 10)])
                    count += 10
        for child in children:
            child.send_signal(signal.SIGTERM)
            out, _ = child.communicate(timeout=30)
            assert out.endswith("closed\n") and child.returncode == 0
        assert done.describe().partitions[0].log_end_offset >= count
        assert sorted(seen) == sorted(set(seen)), "what had been handled was not repeated"
        bus.close()


@pytest.mark.parametrize(
    ("error", "options"),
    [
        (InvalidTypeError, {"retry": 3}),
        (InvalidTypeError, {"idempotent": "yes"}),
        (InvalidTypeError, {"filter": 3}),
        (InvalidConfigError, {"copies": "many"}),
        (penstock.InvalidArgumentError, {"prefetch": 0}),
        (penstock.InvalidArgumentError, {"visibility_timeout": 0}),
    ],
)
def test_bad_options(bus: events.EventBus, error: type[Exception], options: dict[str, object]) -> None:
    with pytest.raises(error, match=next(iter(options))):
        bus.on(BusSquare, **options)  # type: ignore[arg-type]


def test_bad_calls(bus: events.EventBus) -> None:
    with pytest.raises(InvalidTypeError, match="event_types is empty"):
        bus.on()
    with pytest.raises(InvalidTypeError, match="event type is"):
        bus.on(int)  # type: ignore[arg-type]
    with pytest.raises(InvalidConfigError, match="takes 3 arguments"):
        bus.on(BusSquare)(lambda a, b, c: None)
    with pytest.raises(InvalidTypeError, match="an object of an Event class"):
        bus.publish("text")  # type: ignore[arg-type]
    with pytest.raises(InvalidTypeError, match="key is 3"):
        bus.publish(BusSquare(1), key=3)  # type: ignore[arg-type]
    with pytest.raises(penstock.InvalidArgumentError, match="keys has 1 items"):
        bus.publish_many([BusSquare(1), BusSquare(2)], keys=["a"])
    with pytest.raises(InvalidConfigError, match="partitions is 4"):
        events.EventBus(bus.broker, "x", partitions=4)
    bus.on(BusSquare, group="g")(print)
    with pytest.raises(InvalidConfigError, match="ordered is False"):
        bus.on(BusSquare, group="g", ordered=False)(print)
    with pytest.raises(InvalidConfigError, match="batch is True"):
        bus.on(BusSquare, group="g", batch=True)(print)
    with pytest.raises(penstock.InvalidArgumentError, match="groups with handlers here"):
        bus.start(groups=["nobody"])
    assert bus.groups == ["g"]
