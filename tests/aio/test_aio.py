"""penstock.aio: the same records, awaited; cancellation loses and repeats none; one waiting thread."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from children import Child

import penstock
from penstock import ClosedError, TopicPartition
from penstock.aio import AsyncBroker, AsyncConsumer, AsyncProducer

Body = Callable[[AsyncBroker], Awaitable[None]]


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., None]:
    """Run a coroutine function with an open broker that has topic `t` with two partitions."""

    def start(body: Body, **options: object) -> None:
        async def main() -> None:
            async with penstock.aio.open(tmp_path / "data", **options) as broker:  # type: ignore[attr-defined]
                await broker.create_topic("t", partitions=2)
                await body(broker)

        asyncio.run(asyncio.wait_for(main(), 60))

    return start


def test_round_trip(run: Callable[..., None]) -> None:
    async def body(broker: AsyncBroker) -> None:
        async with broker.producer() as producer, broker.consumer("t") as consumer:
            await producer.send("t", b"one", key=b"k", headers=[("h", b"v")])
            await producer.send_many("t", [b"two", b"three"])
            await producer.flush()
            records = await consumer.poll()
            records += await consumer.poll(timeout=0)
            assert sorted(record.value for record in records if record.value) == [b"one", b"three", b"two"]
            meta = await producer.send_and_wait("t", b"four", partition=1)
            assert meta.partition == 1
            (batch,) = await consumer.poll_batches()
            assert batch.values() == [b"four"]
            assert await consumer.poll(timeout=0.01) == []

    run(body)


@pytest.mark.parametrize("fsync", ["interval", "always"])
def test_iteration_waits_for_more_and_ends_with_close(run: Callable[..., None], fsync: str) -> None:
    async def body(broker: AsyncBroker) -> None:
        consumer = broker.consumer("t")
        seen: list[bytes | None] = []

        async def read() -> None:
            async for record in consumer:
                seen.append(record.value)

        task = asyncio.create_task(read())
        async with broker.producer(linger_ms=0) as producer:
            for n in range(20):
                await producer.send("t", b"%02d" % n, partition=n % 2)
                await asyncio.sleep(0.001)
        while len(seen) < 20:
            await asyncio.sleep(0.005)
        await consumer.close()
        await task
        assert sorted(v for v in seen if v) == [b"%02d" % n for n in range(20)]

    run(body, fsync=fsync)


def test_cancellation_loses_and_repeats_nothing(run: Callable[..., None]) -> None:
    async def body(broker: AsyncBroker) -> None:
        generator = random.Random(7)
        seen: list[int] = []
        consumer = broker.consumer()
        consumer.assign([TopicPartition("t", 0)])

        async def read_some() -> None:
            if generator.random() < 0.5:
                seen.extend(int(record.value or b"") for record in await consumer.poll(max_records=7))
            else:
                async for record in consumer:
                    seen.append(int(record.value or b""))

        async with broker.producer(linger_ms=1) as producer:
            for n in range(300):
                await producer.send("t", b"%d" % n, partition=0)
                if n % 3 == 0:
                    task = asyncio.create_task(read_some())
                    await asyncio.sleep(generator.random() * 0.004)
                    task.cancel()
                    await asyncio.gather(task, return_exceptions=True)
            await producer.flush()
        while records := await consumer.poll(timeout=0):
            seen.extend(int(record.value or b"") for record in records)
        assert seen == list(range(300))

    run(body)


def test_many_consumers_wait_with_one_thread(run: Callable[..., None]) -> None:
    async def body(broker: AsyncBroker) -> None:
        consumers = [broker.consumer("t") for _ in range(30)]
        tasks = [asyncio.create_task(consumer.poll(timeout=None)) for consumer in consumers]
        await asyncio.sleep(0.05)
        assert [thread.name for thread in threading.enumerate()].count("penstock-aio") == 1
        broker.topic("t").append(b"v")
        assert all(len(records) == 1 for records in await asyncio.gather(*tasks))

    run(body)


def test_closing_wakes_who_waits(run: Callable[..., None]) -> None:
    async def body(broker: AsyncBroker) -> None:
        consumer = broker.consumer("t")
        task = asyncio.create_task(consumer.poll(timeout=None))
        await asyncio.sleep(0.02)
        await consumer.close()
        with pytest.raises(ClosedError):
            await task
        with pytest.raises(ClosedError):
            await consumer.poll()

    run(body)


def test_groups_and_transactions(run: Callable[..., None]) -> None:
    async def body(broker: AsyncBroker) -> None:
        await broker.create_topic("out")
        for n in range(10):
            broker.topic("t").append(b"%d" % n, partition=0)
        consumer = broker.consumer("t", group="g")
        committed = broker.consumer("out", isolation_level="read_committed")
        async with broker.producer(transactional_id="x") as producer:
            async with producer.transaction():
                for record in await consumer.poll(max_records=4):
                    await producer.send("out", record.value)
                producer.send_offsets(consumer)
            with pytest.raises(KeyError):
                async with producer.transaction():
                    await producer.send("out", b"never")
                    raise KeyError
        assert [record.value for record in await committed.poll()] == [b"0", b"1", b"2", b"3"]
        assert consumer.committed(TopicPartition("t", 0)) == 4
        consumer.seek_to_committed()
        assert len(await consumer.poll()) == 6
        await consumer.commit()
        assert consumer.committed(TopicPartition("t", 0)) == 10
        await consumer.close()
        await committed.close()

    run(body)


def test_another_process_wakes_the_loop(run: Callable[..., None], tmp_path: Path) -> None:
    script = "import sys, penstock\nwith penstock.open(sys.argv[1]) as b: b.topic('t').append(b'from afar')"

    async def body(broker: AsyncBroker) -> None:
        async with broker.consumer("t") as consumer:
            waiting = asyncio.create_task(consumer.poll(timeout=30))
            await asyncio.sleep(0.02)
            assert await asyncio.to_thread(Child(script, tmp_path / "data").wait, 60) == 0
            assert [record.value for record in await waiting] == [b"from afar"]

    run(body)


def test_loops_in_several_threads(tmp_path: Path) -> None:
    with penstock.open(tmp_path / "data") as sync:
        sync.create_topic("t")
        broker = AsyncBroker(sync)
        seen: list[bytes | None] = []

        async def read() -> None:
            async with broker.consumer("t") as consumer:
                seen.extend(record.value for record in await consumer.poll(timeout=30))

        threads = [threading.Thread(target=asyncio.run, args=(read(),)) for _ in range(3)]
        for thread in threads:
            thread.start()
        time.sleep(0.1)
        sync.topic("t").append(b"v")
        for thread in threads:
            thread.join()
        assert seen == [b"v"] * 3
        asyncio.run(broker.close())


def test_errors_reach_the_task(run: Callable[..., None]) -> None:
    async def body(broker: AsyncBroker) -> None:
        async with broker.producer() as producer, broker.consumer("t") as consumer:
            with pytest.raises(penstock.UnknownTopicError):
                await producer.send("nothing", b"v")
            with pytest.raises(penstock.InvalidTypeError):
                await producer.send("t", "text")
            with pytest.raises(penstock.InvalidArgumentError):
                await consumer.poll(max_records=0)

    run(body)


def test_a_storm_of_cancellations_loses_and_repeats_nothing(run: Callable[..., None]) -> None:
    """Readers, writers and transactions are cancelled at random; what counts in the end is each record once."""
    chance = random.Random(5)

    async def body(broker: AsyncBroker) -> None:
        await broker.create_topic("in", partitions=2)
        await broker.create_topic("out", partitions=2)
        accepted: list[bytes] = []
        read: list[bytes | None] = []

        async def write(producer: AsyncProducer, number: int) -> None:
            for n in range(50):
                value = b"%d/%d" % (number, n)
                accepted.append(value)  # no await lies between this and the call that takes it
                await producer.send("in", value)
                if n % 7 == 0:
                    await producer.flush()
                    await asyncio.sleep(0)

        async def copy(consumer: AsyncConsumer, producer: AsyncProducer, again: list[penstock.Record]) -> None:
            while True:
                records = again or await consumer.poll(timeout=0.05)
                again[:] = records  # until they are committed
                async with producer.transaction():
                    for record in records:
                        await producer.send("out", record.value)
                        await asyncio.sleep(0)
                    producer.send_offsets(consumer)
                    await asyncio.sleep(0)
                again.clear()

        async def read_all(consumer: AsyncConsumer) -> None:
            while True:
                records = await consumer.poll(max_records=chance.randrange(1, 20), timeout=0.05)
                read.extend(record.value for record in records)
                await asyncio.sleep(0)

        async with (
            broker.producer(linger_ms=1) as producer,
            broker.producer(transactional_id="copier") as copier,
            broker.consumer("in", group="g") as source,
            broker.consumer("out", isolation_level="read_committed") as sink,
        ):
            again: list[penstock.Record] = []
            for number in range(12):
                tasks = [
                    asyncio.ensure_future(write(producer, number)),
                    asyncio.ensure_future(copy(source, copier, again)),
                    asyncio.ensure_future(read_all(sink)),
                ]
                for _ in range(chance.randrange(40)):
                    await asyncio.sleep(0)
                for task in tasks:
                    task.cancel()
                    task.cancel()
                outcomes = await asyncio.gather(*tasks, return_exceptions=True)
                assert {type(outcome) for outcome in outcomes} <= {asyncio.CancelledError, type(None)}
            await producer.flush()
            last = [asyncio.ensure_future(copy(source, copier, again)), asyncio.ensure_future(read_all(sink))]
            while len(read) < len(accepted):
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.02)
            for task in last:
                task.cancel()
            await asyncio.gather(*last, return_exceptions=True)
        assert sorted(read) == sorted(accepted)

    run(body)
