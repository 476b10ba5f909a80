"""A service on asyncio: requests are stored at once, a background task works them off in a consumer group.

Run it: `python examples/asyncio_service.py`. With FastAPI, a route does `place`, and the lifespan starts `work`.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
from pathlib import Path

import penstock.aio
from penstock.aio import AsyncBroker, AsyncProducer

ORDERS = 20


async def place(producer: AsyncProducer, customer: str, total_cents: int) -> int:
    """What a request does: store the order, answer with its offset."""
    order = json.dumps({"customer": customer, "total_cents": total_cents}).encode()
    stored = await producer.send_and_wait("orders", order, key=customer.encode())
    return stored.offset


async def work(broker: AsyncBroker, done: asyncio.Queue[str]) -> None:
    """What runs beside the requests: bill each order once its turn comes."""
    async with broker.consumer("orders", group="billing") as consumer:
        async for record in consumer:
            assert record.value is not None
            await done.put(json.loads(record.value)["customer"])


async def main(path: Path) -> None:
    """Take some orders, wait until they are billed, stop."""
    async with penstock.aio.open(path) as broker:
        await broker.create_topic("orders", partitions=2)
        billed: asyncio.Queue[str] = asyncio.Queue()
        worker = asyncio.create_task(work(broker, billed))
        async with broker.producer() as producer:
            offsets = await asyncio.gather(*(place(producer, f"customer-{n}", n * 100) for n in range(ORDERS)))
        customers = [await billed.get() for _ in offsets]
        worker.cancel()
        await asyncio.gather(worker, return_exceptions=True)
        print(f"billed {len(customers)} orders of {len(set(customers))} customers")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(main(Path(directory) / "data"))
