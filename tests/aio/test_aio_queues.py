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
