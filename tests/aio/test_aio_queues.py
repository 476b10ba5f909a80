"""penstock.aio: queues, share groups and exchanges, awaited."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

import penstock
from penstock.aio import AsyncBroker

Body = Callable[[AsyncBroker], Awaitable[None]]


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., None]:
    """Run a coroutine function with an open broker."""

    def start(body: Body, **options: object) -> None:
        async def main() -> None:
            async with penstock.aio.open(tmp_path / "data", **options) as broker:  # type: ignore[attr-defined]
                await body(broker)

        asyncio.run(asyncio.wait_for(main(), 60))

    return start


@pytest.mark.parametrize("fsync", ["never", "always"])
def test_a_message_goes_through_its_life(run: Callable[..., None], fsync: str) -> None:
    async def body(broker: AsyncBroker) -> None:
        async with await broker.queue("q", max_receives=2) as queue:
            await queue.send(b"a", headers=[("h", b"v")])
            await queue.send_many([b"b", b"c", b"d"])
            first, second, *rest = await queue.receive()
            await queue.ack(first)
            await queue.reject(second)
            await queue.nack(rest[0], failed=False)
            assert await queue.ack_many(rest[1:]) == []
            stats = await queue.stats()
            assert (stats.ready, stats.in_flight, stats.dead, stats.acknowledged) == (1, 0, 1, 2)
            assert [message.value for message in await queue.peek("dead")] == [b"b"]
            assert (await queue.redrive()).moved == 1
            assert await queue.purge() == 2

    run(body, fsync=fsync)


def test_a_waiting_receive_wakes_and_can_be_cancelled(run: Callable[..., None]) -> None:
    async def body(broker: AsyncBroker) -> None:
        queue = await broker.queue("q")
        waiting = asyncio.create_task(queue.receive(wait=30))
        await asyncio.sleep(0.05)
        await queue.send(b"a")
        (message,) = await waiting
        await queue.ack(message)
        cancelled = asyncio.create_task(queue.receive(wait=30))
        await asyncio.sleep(0.05)
        cancelled.cancel()
        await asyncio.gather(cancelled, return_exceptions=True)
        await queue.send(b"b")
        assert [message.value for message in await queue.receive(wait=0)] == [b"b"]
        await queue.send(b"soon", delay=0.1)
        assert [message.value for message in await queue.receive(wait=10)] == [b"soon"]

    run(body)


def test_async_handlers(run: Callable[..., None]) -> None:
    async def body(broker: AsyncBroker) -> None:
        queue = await broker.queue("q", dead_letter="dead")
        await queue.send_many([b"%d" % number for number in range(20)])
        seen = []

        async def handle(message: penstock.Message) -> None:
            await asyncio.sleep(0.001)
            if message.value == b"13":
                raise ValueError("unlucky")
            seen.append(message.value)

        working = asyncio.create_task(queue.consume(handle, tasks=4, retry=penstock.RetryPolicy(max_attempts=1)))
        while len(seen) < 19 or (await queue.stats()).acknowledged < 19:
            await asyncio.sleep(0.01)
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
        assert (await queue.stats()).in_flight == 0
        (letter,) = await (await broker.queue("dead")).receive()
        assert letter.value == b"13" and b"unlucky" in (dict(letter.headers)["dead-letter-error"] or b"")

    run(body)


def test_exchanges_and_share_groups(run: Callable[..., None]) -> None:
    async def body(broker: AsyncBroker) -> None:
        topic = await broker.create_topic("t")
        queue = await broker.queue("q")
        exchange = await broker.exchange("e", type="topic")
        await exchange.bind(queue, "a.*")
        await exchange.bind(topic, "#")
        assert len(await exchange.publish(b"x", "a.b")) == 2
        assert await exchange.unbind(queue, "a.*")
        assert len(await exchange.publish(b"y", "a.b")) == 1
        async with await broker.share_consumer("t", group="g") as shared:
            found = []
            async for message in shared:
                await shared.ack(message)
                found.append(message.value)
                if len(found) == 2:
                    break
            assert found == [b"x", b"y"]

    run(body)


def test_batches_attempts_and_redrives(run: Callable[..., None]) -> None:
    async def body(broker: AsyncBroker) -> None:
        queue = await broker.queue("q")
        assert [one.ok for one in await queue.send_batch([{"value": b"a"}, {"value": b"b"}, {"value": 5}])] == [
            True,
            True,
            False,
        ]
        held = await queue.receive_attempt("once", 10)
        assert [message.id for message in await queue.receive_attempt("once", 10)] == [one.id for one in held]
        handles = [message.receipt_handle for message in held]
        await queue.extend(held[0], 50.0)
        await queue.change_visibility(handles[0], 60.0)
        assert [one.ok for one in await queue.change_visibility_batch([(handle, 90.0) for handle in handles])] == [
            True,
            True,
        ]
        assert [one.ok for one in await queue.delete_batch(handles[:1])] == [True]
        await queue.reject(held[1])
        task = await queue.start_redrive()
        assert (await task.result()).moved == 1 and (task.status, task.report.moved) == ("COMPLETED", 1)
        assert (await queue.attributes())["ApproximateNumberOfMessages"] == "1"
        with pytest.raises(penstock.InvalidArgumentError):
            await queue.receive(wait=-1)
        assert list(await broker.queues()) == ["q"]
        await broker.delete_queue("q")
        assert await broker.queues() == {}

    run(body)


def test_exchanges_share_groups_and_schedules(run: Callable[..., None]) -> None:
    async def body(broker: AsyncBroker) -> None:
        queue = await broker.queue("q")
        last = await broker.exchange("last", type="fanout")
        first = await broker.exchange("first", type="topic", alternate=last)
        await first.bind(queue, "a.*")
        await last.bind(queue)
        assert await first.publish_many([(b"1", "a.b"), (b"2", "b")]) == 2
        assert await first.routes("a.x") == [("queue", "q")]
        assert [one.routing_key for one in await first.bindings()] == ["a.*"]
        assert await broker.exchanges() == {"first": "topic", "last": "fanout"}
        await last.delete()
        await broker.delete_exchange("first")
        schedule = await broker.schedule("daily", queue, b"x", cron="0 3 * * *")
        assert await broker.schedules() == [schedule]
        await broker.delete_schedule("daily")
        shared = await broker.share_consumer("q", "audit")
        assert await broker.share_groups("q") == ["audit", "q"]
        assert (await shared.stats()).ready == 2
        await shared.close()
        await broker.delete_share_group("q", "audit")

    run(body)


def test_a_worker_stops_gracefully(run: Callable[..., None]) -> None:
    async def body(broker: AsyncBroker) -> None:
        queue = await broker.queue("q", max_receives=2, retry_delay=0.0)
        await queue.send_many([b"%d" % number for number in range(5)] + [b"bad"])
        seen: list[bytes] = []
        reached = asyncio.Event()

        async def handle(message: penstock.Message) -> None:
            await asyncio.sleep(0)
            if message.value == b"bad":
                raise RuntimeError("never")
            seen.append(message.value)
            if len(seen) == 3:
                worker.stop()
                reached.set()

        worker = queue.worker(handle, prefetch=10).start()
        await reached.wait()
        await worker.join()
        stats = await queue.stats()
        assert (seen, stats.acknowledged, stats.ready, stats.in_flight) == ([b"0", b"1", b"2"], 3, 3, 0)
        retry = penstock.RetryPolicy(delay=0.0)
        second = queue.worker(handle, tasks=2, retry=retry, visibility_timeout=5.0, exclusive=True).start()
        while (await queue.stats()).dead < 1 or len(seen) < 5:
            await asyncio.sleep(0.005)
        with pytest.raises(penstock.LockedError):
            await queue.worker(handle).run()
        second.stop()
        await second.join()
        assert (await queue.stats()).in_flight == 0 and sorted(seen) == [b"0", b"1", b"2", b"3", b"4"]
        with pytest.raises(penstock.InvalidConfigError):
            queue.worker(handle, tasks=0)

    run(body)


def test_a_waiting_task_of_higher_priority_comes_first(run: Callable[..., None]) -> None:
    async def body(broker: AsyncBroker) -> None:
        queue = await broker.queue("q")
        first = asyncio.create_task(queue.receive(1, wait=10, consumer_priority=5))
        await asyncio.sleep(0.02)
        await queue.send(b"a")
        assert await queue.receive(1, wait=0) == []
        assert [message.value for message in await first] == [b"a"]

    run(body)


def test_a_group_of_a_fifo_queue_waits_for_the_one_that_failed(run: Callable[..., None]) -> None:
    async def body(broker: AsyncBroker) -> None:
        queue = await broker.queue("q", fifo=True)
        for number in range(6):
            await queue.send(b"%d" % number, group_id="ab"[number % 2])
        done: list[bytes] = []
        failed: list[bytes] = []

        async def handle(message: penstock.Message) -> None:
            if message.value == b"0" and not failed:
                failed.append(message.value)
                raise OSError("not now")
            done.append(message.value)
            if len(done) == 6:
                worker.stop()

        worker = queue.worker(handle, prefetch=6, retry=penstock.RetryPolicy(delay=0.01)).start()
        await worker.join()
        assert [value for value in done if int(value) % 2 == 0] == [b"0", b"2", b"4"]
        assert sorted(done) == [b"%d" % number for number in range(6)]

    run(body)
