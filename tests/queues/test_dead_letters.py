"""Dead letters: what they carry, RabbitMQ's x-death, cycles, redrive, and what follows a death in the middle."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import penstock
from penstock import InvalidConfigError, StaleReceiptError, VirtualClock
from penstock.queues.dead_letter import dead_letter_headers
from penstock.queues.dead_lettering import BURY


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
def broker(tmp_path: Path, clock: VirtualClock) -> Iterator[penstock.Broker]:
    with penstock.open(tmp_path / "data", clock=clock) as opened:
        yield opened


def one(queue: penstock.ShareGroup) -> penstock.Message:
    (message,) = queue.receive(1, wait=0)
    return message


def header(message: penstock.Message, name: str) -> str:
    return (dict(message.all_headers)[name] or b"").decode()


def test_what_a_dead_letter_carries(broker: penstock.Broker, clock: VirtualClock) -> None:
    queue = broker.queue("q", max_receives=2, dead_letter="dead")
    queue.send(b"body", group_id="g", headers=[("mine", b"kept")])
    one(queue).nack()
    clock.advance(1)
    one(queue)
    clock.advance(30)  # the second failure: it ran out
    assert queue.receive(wait=0) == []
    letter = one(broker.queue("dead"))
    assert (letter.value, letter.group_id, header(letter, "mine")) == (b"body", "g", "kept")
    found = {
        name: header(letter, "dead-letter-" + name) for name in ("topic", "partition", "offset", "group", "reason")
    }
    assert found == {"topic": "q", "partition": "0", "offset": "0", "group": "q", "reason": "delivery_limit"}
    assert json.loads(header(letter, "x-death")) == [
        {
            "queue": "q",
            "reason": "delivery_limit",
            "count": 1,
            "exchange": "",
            "routing-keys": ["q"],
            "time": clock.time_ms() // 1000,
        }
    ]
    assert (header(letter, "x-first-death-queue"), header(letter, "x-first-death-reason")) == ("q", "delivery_limit")


def test_x_death_counts_for_each_queue_and_reason_newest_first(broker: penstock.Broker) -> None:
    first = broker.queue("first", dead_letter="second")
    second = broker.queue("second", dead_letter="first")
    first.send(b"x")
    one(first).reject()
    one(second).reject("again")
    one(first).reject()
    letter = one(second)
    history = [(entry["queue"], entry["reason"], entry["count"]) for entry in json.loads(header(letter, "x-death"))]
    assert history == [("first", "rejected", 2), ("second", "rejected", 1)]
    assert header(letter, "x-first-death-queue") == "first"


def test_a_circle_that_nobody_rejected_is_dropped(broker: penstock.Broker, clock: VirtualClock) -> None:
    first = broker.queue("first", message_ttl=1.0, dead_letter="second")
    second = broker.queue("second", message_ttl=1.0, dead_letter="first")
    first.send(b"x")
    for queue in (first, second, first, second):
        clock.advance(1)
        assert queue.receive(wait=0) == []
    assert first.stats().sent == 1 and second.stats().sent == 1


def test_dead_letter_exchange(broker: penstock.Broker) -> None:
    caught = broker.queue("caught")
    exchange = broker.exchange("dlx", type="topic")
    exchange.bind(caught, "failed.#")
    queue = broker.queue("q", dead_letter_exchange="dlx", dead_letter_routing_key="failed.q")
    queue.send(b"x")
    one(queue).reject("bad")
    letter = one(caught)
    assert (letter.value, header(letter, "dead-letter-error")) == (b"x", "bad")
    assert header(letter, "x-routing-key") == "failed.q"
    assert queue.stats().in_flight == 0
    with pytest.raises(InvalidConfigError, match="give one"):
        broker.queue("q", dead_letter="caught")


def test_the_policy_of_the_dead_letter_queue(broker: penstock.Broker) -> None:
    broker.queue("closed", redrive_allow_policy="denyAll")
    broker.queue("some", redrive_allow_policy=["a"])
    with pytest.raises(InvalidConfigError, match="denyAll"):
        broker.queue("a", dead_letter="closed")
    with pytest.raises(InvalidConfigError, match="does not allow 'b'"):
        broker.queue("b", dead_letter="some")
    broker.queue("a", dead_letter="some")
    with pytest.raises(InvalidConfigError, match="fifo"):
        broker.queue("f", fifo=True, dead_letter="a")


def test_dead_messages_without_a_dead_letter_queue_stay_and_come_back(broker: penstock.Broker) -> None:
    queue = broker.queue("q")
    queue.send_many([b"a", b"b", b"c"])
    for message in queue.receive(wait=0):
        message.reject()
    assert [message.value for message in queue.peek("dead")] == [b"a", b"b", b"c"]
    broker.maintain()
    report = queue.redrive(filter=lambda message: message.value != b"b", dry_run=True)
    assert (report.moved, report.skipped, queue.stats().dead) == (2, 1, 3)
    assert queue.redrive(filter=lambda message: message.value != b"b").message_ids == ["q-0-0", "q-0-2"]
    assert queue.redrive(edit=lambda message: message.value.upper()).moved == 1
    assert [message.value for message in queue.receive(wait=0)] == [b"a", b"c", b"B"]
    assert queue.stats().dead == 0


def test_redrive_moves_letters_back_where_they_came_from(broker: penstock.Broker) -> None:
    queues = [broker.queue(name, dead_letter="dead") for name in ("a", "b")]
    for queue in queues:
        queue.send(queue.name.encode(), headers=[("h", b"v")])
        one(queue).reject()
    assert [message.value for message in queues[0].peek("dead")] == [b"a"]
    assert queues[0].redrive().moved == 1
    assert broker.queue("dead").redrive().moved == 1
    for queue in queues:
        message = one(queue)
        assert message.value == queue.name.encode()
        assert [name for name, _ in message.headers if name.startswith("dead-letter")] == []
        assert header(message, "h") == "v" and json.loads(header(message, "x-death"))[0]["count"] == 1
    assert broker.queue("dead").stats().ready == 0


def test_redrive_elsewhere_slowly_and_cancelled(tmp_path: Path) -> None:
    with penstock.open(tmp_path / "data") as broker:
        queue, other = broker.queue("q"), broker.queue("other")
        queue.send_many([b"%d" % number for number in range(50)])
        for message in queue.receive(50, wait=0):
            message.reject()
        assert queue.redrive(to="other", max_messages=3).moved == 3
        task = queue.start_redrive(to="other", rate=50.0)
        while task.report.moved < 2:
            pass
        assert task.status == "RUNNING"
        task.cancel()
        report = task.result(10)
        assert report.cancelled and task.status == "CANCELLED" and 2 <= report.moved < 47
        assert other.stats().ready == 3 + report.moved
        assert queue.stats().dead == 47 - report.moved


def test_a_letter_stored_before_a_death_is_not_stored_again(broker: penstock.Broker, clock: VirtualClock) -> None:
    queue = broker.queue("q", max_receives=1, dead_letter="dead", visibility_timeout=10.0)
    queue.send(b"x")
    message = one(queue)
    queue._delivery_of(0).settle(message.offset, message.delivery_count, BURY, 1)
    queue._dead_lettering.store(message, "delivery_limit", None, None, clock.time_ms())  # and killed
    clock.advance(10)
    assert queue.receive(wait=0) == []
    assert broker.queue("dead").stats().sent == 1
    assert queue.stats().in_flight == 0


@pytest.mark.parametrize("stored", [0, 1, 2])
@pytest.mark.parametrize("max_receives", [1, None])
def test_an_exchange_stores_each_letter_once_whenever_its_publisher_died(
    broker: penstock.Broker, clock: VirtualClock, stored: int, max_receives: int | None
) -> None:
    places = [broker.queue("a"), broker.create_topic("b")]
    exchange = broker.exchange("dlx", type="fanout")
    for place in places:
        exchange.bind(place)
    queue = broker.queue("q", max_receives=max_receives, dead_letter_exchange="dlx", visibility_timeout=10.0)
    queue.send(b"x", group_id="g")
    message = one(queue)
    queue._delivery_of(0).settle(message.offset, message.delivery_count, BURY, 2)  # rejected
    headers = dead_letter_headers(message, "q", "rejected", None, clock.time_ms())
    for place in places[:stored]:  # it comes so far, and is killed
        place.append(b"x", None, headers) if place.name == "b" else place._store_letter(message, headers)
    clock.advance(10)
    assert queue.receive(wait=0) == []
    assert [broker.topic(name).log(0).log_end_offset for name in "ab"] == [1, 1]
    letter = one(broker.queue("a"))
    assert (header(letter, "dead-letter-reason"), letter.group_id) == ("rejected", "g")
    assert queue.stats().in_flight == 0


def test_a_letter_is_not_refused_by_a_full_queue(broker: penstock.Broker) -> None:
    full = broker.queue("full", max_length=1, overflow="reject-publish")
    full.send(b"first")
    queue = broker.queue("q", dead_letter="full")
    queue.send(b"x")
    one(queue).reject()
    assert [message.value for message in full.receive(wait=0)] == [b"first", b"x"]


def test_limited_queues_may_be_each_other_s_dead_letters(broker: penstock.Broker) -> None:
    first = broker.queue("first", max_length=1, dead_letter="second")
    second = broker.queue("second", max_length=1, dead_letter="first")
    for number in range(4):
        first.send(b"%d" % number)
        second.send(b"%d" % number)
    assert first.stats().ready == second.stats().ready == 1


def test_a_foreign_x_death_header_is_borne(broker: penstock.Broker) -> None:
    queue, letters = broker.queue("q", dead_letter="dead"), broker.queue("dead")
    for text in (b"{", b"[1]", b'[{"queue": "q", "reason": "rejected", "count": "many"}]'):
        queue.send(b"x", headers=[("x-death", text)])
        one(queue).reject()
        assert json.loads(header(one(letters), "x-death"))[0]["count"] == 1


def test_a_filter_that_raises_fails_the_task(broker: penstock.Broker) -> None:
    queue = broker.queue("q")
    queue.send(b"x")
    one(queue).reject()

    def broken(message: penstock.Message) -> bool:
        raise RuntimeError("no")

    task = queue.start_redrive(filter=broken)
    with pytest.raises(RuntimeError, match="no"):
        task.result(10)
    assert task.status == "FAILED" and queue.stats().dead == 1


def test_two_threads_redrive_at_once(tmp_path: Path) -> None:
    with penstock.open(tmp_path / "data") as broker:
        queue = broker.queue("q", dead_letter="dead")
        queue.send_many([b"%d" % number for number in range(200)])
        for message in queue.receive(200, wait=0):
            message.reject()
        threads = [threading.Thread(target=queue.redrive) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert queue.stats().ready == 200


@pytest.mark.parametrize("how", ["nack", "reject"])
def test_a_stale_holder_stores_no_letter(broker: penstock.Broker, clock: VirtualClock, how: str) -> None:
    queue = broker.queue("q", max_receives=2, dead_letter="dead", visibility_timeout=10.0)
    queue.send(b"x")
    one(queue).nack()
    late = one(queue)
    late.extend(1.0)
    broker.queue("q", max_receives=5)
    clock.advance(1)
    again = one(queue)
    broker.queue("q", max_receives=2)
    with pytest.raises(StaleReceiptError):
        getattr(late, how)()
    assert broker.queue("dead").stats().sent == 0
    again.ack()


def test_the_queue_made_for_letters_takes_a_message_as_large_as_the_source_allows(broker: penstock.Broker) -> None:
    queue = broker.queue("large", max_receives=1, dead_letter="large-dead", max_message_bytes=4000)
    queue.send(b"x" * 3900)
    (message,) = queue.receive()
    with pytest.raises(ValueError), message:
        raise ValueError("why")
    assert message.settled
    (letter,) = broker.queue("large-dead").receive()
    assert letter.value == b"x" * 3900


def test_a_letter_too_large_for_its_queue_stays_in_place_and_blocks_nothing(broker: penstock.Broker) -> None:
    broker.queue("small", max_message_bytes=2000, max_receives=None)
    queue = broker.queue("large", max_receives=1, dead_letter="small", max_message_bytes=4000)
    queue.send(b"x" * 3900)
    queue.send(b"next")
    first, second = queue.receive()
    first.nack()
    second.ack()
    assert queue.receive(wait=0) == [] and broker.queue("small").peek() == []
    assert [message.value for message in queue.peek("dead")] == [b"x" * 3900]
    assert queue.stats().dead == 1


def test_dead_messages_of_a_group_are_seen_revived_and_dropped(broker: penstock.Broker) -> None:
    topic = broker.create_topic("orders")
    topic.append_batch([b"%d" % number for number in range(6)])
    with broker.share_consumer("orders", "billing", auto_offset_reset=2) as group:
        assert group.settled_to() == 2
        for message in group.receive(wait=0):
            message.ack() if message.value == b"2" else message.reject()
        assert group.settled_to() == 6
        dead = group.peek("dead", 10)
        assert [message.value for message in dead] == [b"3", b"4", b"5"]
        assert group.revive(dead[1]) and not group.revive(dead[1])
        assert group.settled_to() == 4
        assert [message.value for message in group.peek()] == [b"4"]
        assert group.purge("dead") == 2 and group.stats().dead == 0
        assert [(message.value, message.failure_count) for message in group.receive(wait=0)] == [(b"4", 0)]
        with pytest.raises(penstock.InvalidTypeError, match="message is 7"):
            group.revive(7)  # type: ignore[arg-type]
    assert group.closed
    for wrong in (-1, 1 << 63, True, "soon"):
        with pytest.raises(penstock.InvalidConfigError, match="auto_offset_reset"):
            broker.share_consumer("orders", "other", auto_offset_reset=wrong)
