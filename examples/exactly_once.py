"""Consume, transform, produce: every order becomes one invoice, however often the program is stopped in between.

Run it: `python examples/exactly_once.py`.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import penstock

ORDERS = 100


def invoice(broker: penstock.Broker, stop_after: int) -> int:
    """Work off up to `stop_after` batches of orders; the invoices and the group's offsets are committed together."""
    written = 0
    with (
        broker.consumer("orders", group="invoicing", isolation_level="read_committed") as consumer,
        broker.producer(transactional_id="invoicing-1") as producer,
    ):
        for _ in range(stop_after):
            records = consumer.poll(max_records=10, timeout=0.2)
            if not records:
                break
            with producer.transaction():
                for record in records:
                    producer.send("invoices", b"invoice for " + (record.value or b""), key=record.key)
                producer.send_offsets(consumer)
            written += len(records)
    return written


def main(path: Path) -> None:
    """Invoice in two goes, as if restarted, and count."""
    with penstock.open(path) as broker:
        orders = broker.create_topic("orders", partitions=2)
        broker.create_topic("invoices", partitions=3)
        for n in range(ORDERS):
            orders.append(b"order %d" % n, key=b"customer-%d" % (n % 7))
        written = invoice(broker, stop_after=4) + invoice(broker, stop_after=1000)
        with broker.consumer("invoices", isolation_level="read_committed") as consumer:
            found = {record.value for record in consumer.poll(max_records=10_000)}
        print(f"{written} invoices written, {len(found)} different ones of {ORDERS} orders")
        assert written == len(found) == ORDERS


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory:
        main(Path(directory) / "data")
