"""Alerts fire when they should, once, and are resolved; on a virtual clock."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import penstock
from penstock.observe import Alert, Alerts


@pytest.fixture
def seen() -> list[Alert]:
    return []


def states(seen: list[Alert]) -> list[tuple[str, str, float]]:
    return [(alert.state, alert.subject, alert.value) for alert in seen]


def test_depth(timed: penstock.Broker, seen: list[Alert]) -> None:
    alerts = Alerts(timed)
    queue = timed.queue("q")
    alerts.add("deep", "depth", "q", above=2, callback=seen.append)
    assert alerts.check() == []
    queue.send_many([b"m"] * 3)
    fired = alerts.check()
    assert fired == seen
    assert alerts.check() == [], "it fires once"
    assert alerts.firing() == [("deep", "q")]
    queue.ack_many(queue.receive(1))
    alerts.check()
    assert states(seen) == [("firing", "q", 3), ("resolved", "q", 2)]
    assert (seen[0].name, seen[0].measure, seen[0].threshold) == ("deep", "depth", 2)
    assert alerts.firing() == []


def test_only_after_a_while(timed: penstock.Broker, clock: penstock.VirtualClock, seen: list[Alert]) -> None:
    alerts = Alerts(timed)
    queue = timed.queue("q")
    alerts.add("deep", "depth", above=0, for_seconds=10, callback=seen.append)
    queue.send(b"m")
    start_ms = clock.time_ms()
    alerts.check()
    clock.advance(9)
    alerts.check()
    assert seen == []
    queue.ack_many(queue.receive())
    alerts.check()
    queue.send(b"m")
    clock.advance(2)
    alerts.check()
    clock.advance(9)
    alerts.check()
    assert seen == [], "it was below in between"
    clock.advance(1)
    alerts.check()
    assert states(seen) == [("firing", "q", 1)]
    assert seen[0].since_ms == start_ms + 11_000
    assert seen[0].timestamp_ms == start_ms + 21_000


def test_hysteresis(timed: penstock.Broker, seen: list[Alert]) -> None:
    alerts = Alerts(timed)
    queue = timed.queue("q")
    alerts.add("deep", "depth", above=3, resolve_at=1, callback=seen.append)
    queue.send_many([b"m"] * 4)
    for _ in range(4):
        alerts.check()
        queue.ack_many(queue.receive(1))
    assert states(seen) == [("firing", "q", 4), ("resolved", "q", 1)]


def test_lag_and_age(timed: penstock.Broker, clock: penstock.VirtualClock, seen: list[Alert]) -> None:
    topic = timed.create_topic("orders")
    topic.append(b"v")
    queue = timed.queue("emails")
    queue.send(b"m")
    with timed.consumer("orders", group="billing") as consumer:
        consumer.poll()
        alerts = Alerts(timed)
        alerts.add("behind", "lag", "bill*", above=1, callback=seen.append)
        alerts.add("late", "lag_s", "billing", above=30, callback=seen.append)
        alerts.add("old", "age_s", above=30, callback=seen.append)
        alerts.check()
        topic.append(b"v")
        topic.append(b"v")
        alerts.check()
        clock.advance(31)
        alerts.check()
        assert [(alert.name, alert.subject, alert.value) for alert in seen] == [
            ("behind", "billing", 3), ("late", "billing", 31), ("old", "emails", 31),
        ]  # fmt: skip


def test_dead_letters_and_error_rates(timed: penstock.Broker, clock: penstock.VirtualClock, seen: list[Alert]) -> None:
    topic = timed.create_topic("t", max_message_bytes=100)
    queue = timed.queue("q", max_receives=1)
    share = timed.share_consumer("t", "s")
    alerts = Alerts(timed)
    alerts.add("dead", "dead", above=0, callback=seen.append)
    alerts.add("dying", "dead_lettered_per_s", above=0.05, callback=seen.append)
    alerts.add("failing", "error_rate", above=0.4, callback=seen.append)
    alerts.add("broken", "errors_per_s", "t", above=0, callback=seen.append)
    alerts.check()
    queue.send_many([b"m"] * 2)
    first, second = queue.receive(2)
    first.nack()
    second.ack()
    topic.append(b"v")
    share.receive(1)[0].nack()
    with pytest.raises(penstock.RecordTooLargeError):
        topic.append(b"v" * 200)
    clock.advance(10)
    alerts.check()
    assert sorted((alert.name, alert.subject, alert.value) for alert in seen) == [
        ("broken", "t", 0.1), ("dead", "q", 1), ("dying", "q", 0.1), ("failing", "q", 0.5), ("failing", "t/s", 1.0),
    ]  # fmt: skip
    clock.advance(10)
    resolved = alerts.check()
    assert sorted(alert.name for alert in resolved) == ["broken", "dying", "failing", "failing"]


def test_what_goes_away_is_resolved(timed: penstock.Broker, seen: list[Alert]) -> None:
    timed.queue("q").send(b"m")
    alerts = Alerts(timed)
    alerts.add("deep", "depth", above=0, callback=seen.append)
    alerts.check()
    timed.delete_queue("q")
    alerts.check()
    assert states(seen) == [("firing", "q", 1), ("resolved", "q", 0)]


def test_a_callback_that_raises_does_not_stop_the_others(
    timed: penstock.Broker, seen: list[Alert], caplog: pytest.LogCaptureFixture
) -> None:
    timed.queue("q").send(b"m")

    def broken(alert: Alert) -> None:
        raise RuntimeError("pager is off")

    alerts = Alerts(timed)
    alerts.add("first", "depth", above=0, callback=broken)
    alerts.add("second", "depth", above=0, callback=seen.append)
    alerts.check()
    assert [alert.name for alert in seen] == ["second"]
    assert any("callback of alert first" in record.message for record in caplog.records)
    named = [record for record in caplog.records if getattr(record, "alert", "") == "second"]
    assert named and named[0].subject == "q"  # type: ignore[attr-defined]


def test_in_the_background(tmp_path: Path) -> None:
    with penstock.open(tmp_path / "data") as broker:
        broker.queue("q").send(b"m")
        fired = threading.Event()
        alerts = Alerts(broker, interval=0.01)
        alerts.add("deep", "depth", above=0, callback=lambda alert: fired.set())
        with alerts:
            assert fired.wait(30)
        assert alerts._thread is None


def test_the_thread_ends_with_the_broker(tmp_path: Path) -> None:
    broker = penstock.open(tmp_path / "data")
    alerts = Alerts(broker, interval=0.01).start()
    thread = alerts._thread
    assert thread is not None
    broker.close()
    thread.join(30)
    assert not thread.is_alive()


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"measure": "speed"}, penstock.InvalidArgumentError),
        ({"above": "1"}, penstock.InvalidTypeError),
        ({"resolve_at": 2}, penstock.InvalidArgumentError),
        ({"for_seconds": -1}, penstock.InvalidArgumentError),
        ({"callback": None}, penstock.InvalidTypeError),
        ({"subject": 3}, penstock.InvalidTypeError),
    ],
)
def test_bad_rules(broker: penstock.Broker, change: dict[str, Any], error: type[Exception]) -> None:
    good: dict[str, Any] = {"name": "n", "measure": "lag", "subject": "*", "above": 1, "callback": print}
    add: Callable[..., None] = Alerts(broker).add
    with pytest.raises(error):
        add(**{**good, **change})
    with pytest.raises(penstock.InvalidConfigError):
        Alerts(broker, interval=0)
