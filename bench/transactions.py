"""Transactions: against plain produce; numbered batches against plain ones; committed reads against all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import penstock
from bench.measure import Result, versus
from bench.reading import plain
from bench.writing import Action, Writing

PER_TRANSACTION = 1000
PARTITIONS = 3


class TransactionBench:
    """A topic of three partitions; a consumer whose offsets travel along."""

    def __init__(self, directory: Path, count: int, rounds: int) -> None:
        self.writing = Writing(directory, count, rounds)
        self.rounds = rounds
        self.chunk = [b"%0100d" % n for n in range(PER_TRANSACTION // PARTITIONS)]
        self.turns = max(1, count // PER_TRANSACTION)

    def run(self) -> list[Result]:
        """The transaction bars."""
        return [
            versus("send_many with idempotence / without", self.numbered, self.unnumbered, 0.95, self.rounds),
            versus("transactions of 1,000 + offsets / plain", self.transactions, self.flushes, 0.6, self.rounds),
            self._reads(),
        ]

    @contextmanager
    def _send_many(self, idempotent: bool) -> Iterator[Action]:
        with self.writing._producer(enable_idempotence=idempotent) as producer:

            def action() -> int:
                producer.send_many("t", self.writing.values)
                producer.flush()
                return len(self.writing.values)

            yield action

    def numbered(self) -> AbstractContextManager[Action]:
        """With producer ids and sequences."""
        return self._send_many(True)

    def unnumbered(self) -> AbstractContextManager[Action]:
        """Without."""
        return self._send_many(False)

    def _fill(self, producer: penstock.Producer) -> None:
        for number in range(PARTITIONS):
            producer.send_many("out", self.chunk, partition=number)

    @contextmanager
    def transactions(self) -> Iterator[Action]:
        """Begin, send, send offsets, commit."""
        with penstock.open(self.writing._fresh("transactions"), fsync="never") as broker:
            broker.create_topic("out", partitions=PARTITIONS)
            source = broker.create_topic("in")
            with (
                broker.producer(transactional_id="t") as producer,
                broker.consumer("in", group="g") as consumer,
            ):
                source.append(b"first")
                consumer.poll()

                def action() -> int:
                    for _ in range(self.turns):
                        with producer.transaction():
                            self._fill(producer)
                            producer.send_offsets(consumer)
                    return self.turns * len(self.chunk) * PARTITIONS

                yield action

    @contextmanager
    def flushes(self) -> Iterator[Action]:
        """The same records, stored as often, without transactions."""
        with penstock.open(self.writing._fresh("transactions"), fsync="never") as broker:
            broker.create_topic("out", partitions=PARTITIONS)
            with broker.producer() as producer:

                def action() -> int:
                    for _ in range(self.turns):
                        self._fill(producer)
                        producer.flush()
                    return self.turns * len(self.chunk) * PARTITIONS

                yield action

    def _reads(self) -> Result:
        with penstock.open(self.writing._fresh("reads"), fsync="never") as broker:
            broker.create_topic("out", partitions=PARTITIONS)
            with broker.producer(transactional_id="t") as producer:
                for _ in range(self.turns):
                    with producer.transaction():
                        self._fill(producer)
            total = self.turns * len(self.chunk) * PARTITIONS

            def read(level: str) -> int:
                seen = 0
                with broker.consumer("out", isolation_level=level) as consumer:
                    while seen < total:
                        seen += len(consumer.poll(max_records=5000))
                return seen

            sides = plain(lambda: read("read_committed")), plain(lambda: read("read_uncommitted"))
            return versus("read_committed / read_uncommitted", *sides, 0.9, self.rounds)
