"""The wall clock is set back or forward: leases, timers and retries go on in their time, and nothing is done twice."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import penstock
from penstock import events

from .jumping_clock import JumpingClock

HOUR = 3600.0


class Ticked(events.Event, type="JumpTicked"):
    number: int


@pytest.fixture
def clock() -> JumpingClock:
    return JumpingClock()


@pytest.fixture
def broker(tmp_path: Path, clock: JumpingClock) -> Iterator[penstock.Broker]:
    with penstock.open(tmp_path / "data", fsync="never", clock=clock) as opened:
        yield opened


# --- outbox ----------------------------------------------------------------------------------------------------------


def stored(broker: penstock.Broker) -> list[int]:
    return [events.Envelope.from_json(record.value or b"").data["number"] for record in broker.topic("events").replay()]


@pytest.mark.parametrize("jump", [-HOUR, -15.0, -5.0, 0.0, HOUR])
def test_the_lease_of_a_dead_relay_ends(broker, tmp_path: Path, clock: JumpingClock, jump: float) -> None:
    broker.create_topic("events")
    dead, heir = events.Outbox(tmp_path / "app.db"), events.Outbox(tmp_path / "app.db")
    assert dead._relay_to(broker, 1, 10.0).take_lease()
    dead.add(Ticked(1))
    clock.jump(jump)
    for _ in range(20):  # two leases
        heir.relay(broker, lease=10.0)
        clock.advance(1)
    assert stored(broker) == [1]
    dead.close()
    heir.close()


def test_a_relay_that_lives_keeps_its_lease_or_is_fenced(broker, tmp_path: Path, clock: JumpingClock) -> None:
    broker.create_topic("events")
    outbox, other = events.Outbox(tmp_path / "app.db"), events.Outbox(tmp_path / "app.db")
    relay = outbox._relay_to(broker, 1, 10.0)
    assert relay.take_lease()
    clock.jump(-5)
    assert other.relay(broker) == 0
    clock.advance(4)
    assert relay.take_lease(), "it renews it"
    clock.jump(-HOUR)
    outbox.add(Ticked(1))
    assert other.relay(broker) == 1, "it is of before the jump"
    outbox.add(Ticked(2))
    with pytest.raises(penstock.FencedError):
        relay.step()
    assert other.relay(broker) == 1 and stored(broker) == [1, 2]
    outbox.close()
    other.close()


# --- inbox -----------------------------------------------------------------------------------------------------------


def test_an_inbox_remembers_at_least_its_time_and_forgets_in_the_end(tmp_path: Path, clock: JumpingClock) -> None:
    with events.Inbox(tmp_path / "inbox.db", ttl=320.0, clock=clock) as inbox:
        rows = inbox.connection.execute
        for number in range(10):
            inbox.remember(f"before-{number}")
        clock.jump(-HOUR)
        with inbox.once("after") as first:
            assert first
        with inbox.once("before-1") as first:
            assert not first
        for number in range(70):
            clock.advance(10)
            with inbox.once(f"later-{number}") as first:
                assert first
        assert rows("SELECT count(*) FROM penstock_inbox WHERE id LIKE 'later%'").fetchone()[0] <= 35
        assert inbox.seen("before-1"), "for as long as the clock takes to come there again"
        clock.jump(HOUR)
        clock.advance(320)
        with inbox.once("last"):
            assert rows("SELECT count(*) FROM penstock_inbox").fetchone() == (1,) or inbox.purge()
        assert not inbox.seen("before-1")


# --- sagas -----------------------------------------------------------------------------------------------------------


def sleeps(saga):
    saga.sleep(60)
    return "slept"


def waits(saga):
    return saga.wait_for("never", timeout=60, default="waited")


def retries(saga):
    def fails_once():
        if events.current_step().attempt == 1:
            raise ValueError("once")
        return "retried"

    return saga.step(fails_once, retry=events.Retry(max_attempts=2, delay=60, jitter=0))


def undoes(saga):
    def fails_once():
        if events.current_step().attempt == 1:
            raise ValueError("once")

    saga.step(lambda: None, compensate=fails_once, retry=events.Retry(max_attempts=2, delay=60, jitter=0), name="done")
    raise ValueError("undo it")


def over(sagas: events.Sagas) -> bool:
    sagas.run_until_idle()
    return sagas.inspect("s").status in ("completed", "failed")


@pytest.mark.parametrize("function", [sleeps, waits, retries, undoes])
def test_a_timer_of_a_saga_comes_when_its_time_has_passed(broker, clock: JumpingClock, function) -> None:
    with events.Sagas(broker, partitions=1) as sagas:
        sagas.define("timed")(function)
        sagas.start("timed", saga_id="s")
        assert not over(sagas)
        clock.advance(30)
        clock.jump(-HOUR)
        for _ in range(29):
            clock.advance(1)
            assert not over(sagas)
        clock.advance(1)
        assert over(sagas)
        assert sagas.inspect("s").status == ("failed" if function is undoes else "completed")


@pytest.mark.parametrize("function", [sleeps, waits, retries, undoes])
def test_a_restart_waits_once_more_at_the_most(broker, clock: JumpingClock, function) -> None:
    with events.Sagas(broker, partitions=1) as before:
        before.define("timed")(function)
        before.start("timed", saga_id="s")
        assert not over(before)
    clock.advance(30)
    clock.jump(-HOUR)
    with events.Sagas(broker) as sagas:
        sagas.define("timed")(function)
        assert not over(sagas)
        clock.advance(59)
        assert not over(sagas)
        clock.advance(1)
        assert over(sagas)


@pytest.mark.parametrize("jump", [-20.0, HOUR])
def test_a_timer_follows_the_wall_clock_forward(broker, clock: JumpingClock, jump: float) -> None:
    """By a jump of an hour, and back to where it was after a step into the past."""
    with events.Sagas(broker, partitions=1) as sagas:
        sagas.define("timed")(sleeps)
        sagas.start("timed", saga_id="s")
        assert not over(sagas)
        clock.jump(jump)
        if jump < 0:
            assert not over(sagas)
            clock.advance(10)
            clock.jump(-jump + 50)
        assert over(sagas)


def test_a_sleep_that_is_over_stays_over(broker, clock: JumpingClock) -> None:
    with events.Sagas(broker, partitions=1) as sagas:

        @sagas.define("timed")
        def timed(saga):
            saga.sleep(60)
            return saga.wait_for("go")

        handle = sagas.start(timed, saga_id="s")
        sagas.run_until_idle()
        clock.advance(60)
        sagas.run_until_idle()
        clock.jump(-HOUR)
        sagas.signal("s", "go", "on")
        sagas.run_until_idle()
        assert handle.result(0) == "on"


def test_steps_are_not_repeated(broker, clock: JumpingClock) -> None:
    done: list[int] = []
    with events.Sagas(broker, partitions=1) as sagas:

        @sagas.define("timed")
        def timed(saga):
            for number in range(5):
                saga.step(lambda number=number: done.append(number), name=f"step {number}")
                saga.sleep(60)

        handle = sagas.start(timed, saga_id="s")
        for jump in (HOUR, -2 * HOUR, 0, -HOUR, HOUR, 0, 0):
            sagas.run_until_idle()
            clock.advance(30)
            clock.jump(jump)
            sagas.run_until_idle()
            clock.advance(30)
        sagas.run_until_idle()
        assert done == [0, 1, 2, 3, 4] and handle.status == "completed"


# --- bus, subscriptions, queues --------------------------------------------------------------------------------------


@pytest.mark.parametrize("watched", [True, False], ids=["somebody receives", "nobody received lately"])
def test_a_retry_comes_in_its_time(broker, clock: JumpingClock, watched: bool) -> None:
    attempts: list[int] = []
    with events.EventBus(broker) as bus:

        @bus.on(Ticked, group="g", retry=events.Retry(max_attempts=3, delay=60, factor=1, jitter=0))
        def handle(event: Ticked) -> None:
            attempts.append(event.number)
            if len(attempts) < 3:
                raise OSError("not now")

        bus.publish(Ticked(1))
        bus.run_until_idle()
        for failures in (1, 2):
            clock.advance(30)
            if watched:
                bus.run_until_idle()
            clock.jump(-HOUR)
            bus.run_until_idle()
            clock.advance(29 if watched else 59)
            bus.run_until_idle()
            assert len(attempts) == failures
            clock.advance(1)
            bus.run_until_idle()
            assert len(attempts) == failures + 1


def test_what_a_dead_consumer_held_comes_back(broker, clock: JumpingClock) -> None:
    store = events.EventStore(broker, "shop")
    store.append("a-1", [Ticked(number) for number in range(3)])
    work = store.subscription("work", visibility_timeout=30.0)
    first, second, third = work.receive(wait=0)
    first.ack()
    second.nack(delay=20.0)
    clock.advance(10)
    assert work.receive(wait=0) == []
    clock.jump(-HOUR)
    assert work.receive(wait=0) == []
    clock.advance(10)
    (again,) = work.receive(wait=0)
    assert again.position == 2
    again.ack()
    clock.advance(19)
    assert work.receive(wait=0) == [], "whoever holds it has a whole time-out, as the clock may have been wrong before"
    clock.advance(1)
    (again,) = work.receive(wait=0)
    assert again.position == 3
    with pytest.raises(penstock.StaleReceiptError):
        third.ack()


def test_one_stream_after_another_all_the_same(broker, clock: JumpingClock) -> None:
    store = events.EventStore(broker, "shop")
    store.append("a-1", [Ticked(number) for number in range(3)])
    work = store.subscription("work", by_stream=True)
    first, *_ = work.receive(wait=0)
    first.nack(delay=20.0)
    clock.jump(-HOUR)
    assert work.receive(wait=0) == []
    clock.advance(20)
    assert [delivery.position for delivery in work.receive(wait=0)] == [1, 2, 3]


def test_a_jump_forward_and_back_gives_nothing_out_twice(broker, clock: JumpingClock) -> None:
    queue = broker.queue("q", visibility_timeout=30.0)
    queue.send_many([b"one", b"two"])
    (one,) = queue.receive(1, wait=0)
    clock.jump(365 * 24 * HOUR)
    other = broker.queue("other")
    other.send(b"x")
    assert len(other.receive(wait=0)) == 1
    clock.jump(-365 * 24 * HOUR)
    (two,) = queue.receive(2, wait=0)
    assert two.value == b"two", "the first one is still held"
    clock.advance(29)
    assert queue.receive(wait=0) == []
    one.ack()
    clock.advance(1)
    assert [message.value for message in queue.receive(wait=0)] == [b"two"]


def test_what_is_sent_for_a_point_in_time_waits_for_it(broker, clock: JumpingClock) -> None:
    queue = broker.queue("q")
    queue.send(b"later", delay=60.0)
    queue.send(b"now")
    (now,) = queue.receive(wait=0)
    now.ack()
    clock.jump(-HOUR)
    clock.advance(HOUR + 59)
    assert queue.receive(wait=0) == []
    clock.advance(1)
    assert [message.value for message in queue.receive(wait=0)] == [b"later"]


@pytest.mark.parametrize("seconds", [0.0, 0.5, 0.9])
def test_small_steps_change_nothing(broker, clock: JumpingClock, seconds: float) -> None:
    queue = broker.queue("q", visibility_timeout=30.0)
    queue.send(b"one")
    assert len(queue.receive(wait=0)) == 1
    clock.advance(29)
    clock.jump(-seconds)
    assert queue.receive(wait=0) == []
    clock.advance(1 + seconds)
    assert len(queue.receive(wait=0)) == 1
