"""Penstock for asyncio: `async with penstock.aio.open("data") as broker:`.

The same producers and consumers, awaited. Records are read and stored by the loop's own thread, at memory speed; one
thread for each loop waits for new records on behalf of all its consumers. Cancelling a call loses no record.
"""

from penstock.aio.broker import AsyncBroker, open
from penstock.aio.consumer import AsyncConsumer
from penstock.aio.producer import AsyncProducer
from penstock.aio.queue import AsyncExchange, AsyncQueue, AsyncRedriveTask, AsyncShareGroup
from penstock.aio.worker import AsyncWorker

__all__ = [
    "AsyncBroker",
    "AsyncConsumer",
    "AsyncExchange",
    "AsyncProducer",
    "AsyncQueue",
    "AsyncRedriveTask",
    "AsyncShareGroup",
    "AsyncWorker",
    "open",
]
