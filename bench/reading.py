"""Reading 100-byte values back: beside an LMDB cursor that yields values."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import penstock
from bench.measure import Result, Side, versus
from bench.values import texts


def plain(action: Callable[[], int]) -> Side:
    """An action that needs no set-up."""
    return lambda: nullcontext(action)


class Reading:
    """One topic and one LMDB environment with the same values."""

    def __init__(self, directory: Path, count: int, rounds: int) -> None:
        import lmdb

        self.count, self.rounds = count, rounds
        values = texts(count)
        self.broker = penstock.open(directory / "reading", fsync="never")
        self.broker.create_topic("t")
        with self.broker.producer() as producer:
            producer.send_many("t", values)
        self.environment = lmdb.open(str(directory / "lmdb"), map_size=1 << 32, sync=False)
        with self.environment.begin(write=True) as transaction:
            for number, value in enumerate(values):
                transaction.put(number.to_bytes(8, "big"), value, append=True)

    def lmdb(self) -> int:
        seen = 0
        with self.environment.begin() as transaction:
            for _ in transaction.cursor().iternext(keys=False, values=True):
                seen += 1
        return seen

    def iterate(self) -> int:
        seen = 0
        with self.broker.consumer("t") as consumer:
            for _ in consumer:
                seen += 1
                if seen == self.count:
                    break
        return seen

    def values(self) -> int:
        seen = 0
        with self.broker.consumer("t") as consumer:
            while seen < self.count:
                for batch in consumer.poll_batches(timeout=1.0):
                    seen += len(batch.values())
        return seen

    def columns(self) -> int:
        seen = 0
        with self.broker.consumer("t") as consumer:
            while seen < self.count:
                for batch in consumer.poll_batches(timeout=1.0):
                    seen += len(batch.value_starts)
        return seen

    def run(self) -> list[Result]:
        """Every comparison of this module."""
        results = [
            versus(
                "Record objects by iteration / lmdb cursor", plain(self.iterate), plain(self.lmdb), 1.5, self.rounds
            ),
            versus("values() of batches / lmdb cursor", plain(self.values), plain(self.lmdb), 4, self.rounds),
            versus("columns only / lmdb cursor", plain(self.columns), plain(self.lmdb), 8, self.rounds),
        ]
        self.broker.close()
        self.environment.close()
        return results
