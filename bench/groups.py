"""Consumer groups: reading with one against without, a commit, the loss of a process, many consumers."""

from __future__ import annotations

import multiprocessing
import os
import signal
import statistics
import time
from multiprocessing.connection import Connection
from pathlib import Path

import penstock
from bench.measure import Result, versus
from bench.reading import plain
from bench.values import texts


def keep_reading(path: str, out: Connection) -> None:
    """In another process: be a member, tell when partitions were read from."""
    with penstock.open(path, fsync="never") as broker, broker.consumer("t", group="g") as consumer:
        out.send(os.getpid())
        while True:
            records = consumer.poll(timeout=1.0)
            if records:
                out.send((time.monotonic(), sorted({record.partition for record in records})))


class Groups:
    """One topic for throughput, one directory each for the rest."""

    def __init__(self, directory: Path, count: int, rounds: int, quick: bool) -> None:
        self.directory, self.count, self.rounds = directory, count, rounds
        self.moves = 1 if quick else 5
        self.members, self.partitions = (20, 40) if quick else (500, 1000)
        self.broker = penstock.open(directory / "groups", fsync="never")
        self.broker.create_topic("t")
        with self.broker.producer() as producer:
            producer.send_many("t", texts(count))
        self.number = 0

    def run(self) -> list[Result]:
        """The group bars."""
        sides = plain(self.with_group), plain(self.alone)
        shared = versus("poll in a group, auto-commit / without a group", *sides, 0.85, self.rounds)
        found = [shared, self._commit(), self._killed()]
        settled, beat = self._many()
        self.broker.close()
        return [*found, settled, beat]

    def alone(self) -> int:
        """Everything, without a group."""
        seen = 0
        with self.broker.consumer("t") as consumer:
            while seen < self.count:
                seen += len(consumer.poll())
        return seen

    def with_group(self) -> int:
        """Everything, as a new group that commits."""
        self.number += 1
        seen = 0
        with self.broker.consumer("t", group=f"g{self.number}") as consumer:
            while seen < self.count:
                seen += len(consumer.poll())
        return seen

    def _commit(self) -> Result:
        with self.broker.consumer("t", group="commit", enable_auto_commit=False) as consumer:
            consumer.poll()
            commit, taken = consumer.commit, []
            for _ in range(self.rounds):
                started = time.perf_counter_ns()
                for _ in range(10_000):
                    commit()
                taken.append((time.perf_counter_ns() - started) / 10_000 / 1000)
        one = statistics.median(taken)
        return Result("commit of an offset", one, 1, "us", one, 1, True)

    def _killed(self) -> Result:
        taken = []
        for number in range(self.moves):
            path = self.directory / f"killed-{number}"
            with penstock.open(path, fsync="never") as broker:
                topic = broker.create_topic("t", partitions=8)
                context = multiprocessing.get_context("spawn")
                pipes = [context.Pipe() for _ in range(4)]
                processes = [context.Process(target=keep_reading, args=(str(path), there)) for _, there in pipes]
                for process in processes:
                    process.start()
                for here, _ in pipes:
                    here.recv()
                while broker.describe_group("g").state != "stable" or len(broker.describe_group("g").members) < 4:
                    time.sleep(0.05)
                victim = next(m for m in broker.describe_group("g").members if m.pid == processes[0].pid)
                os.kill(processes[0].pid or 0, signal.SIGKILL)
                started = time.monotonic()
                for partition in victim.partitions:
                    topic.append(b"v", partition=partition.partition)
                wanted, last = {partition.partition for partition in victim.partitions}, started
                while wanted:
                    for here, _ in pipes[1:]:
                        while here.poll(0.01):
                            when, partitions = here.recv()
                            if wanted & set(partitions):
                                wanted -= set(partitions)
                                last = max(last, when)
                taken.append(last - started)
                for process in processes:
                    process.kill()
                    process.join()
        middle = statistics.median(taken)
        return Result("4 processes, 1 killed: its partitions read again", middle, 1, "s", middle, 1, True)

    def _many(self) -> tuple[Result, Result]:
        with penstock.open(self.directory / "many", fsync="never") as broker:
            broker.create_topic("t", partitions=self.partitions)
            started = time.perf_counter()
            consumers = [broker.consumer("t", group="g") for _ in range(self.members)]
            while sum(len(consumer.assignment()) for consumer in consumers) < self.partitions:
                for consumer in consumers:
                    consumer.poll(timeout=0)
            taken = time.perf_counter() - started
            beats = []
            for _ in range(200):
                before = time.perf_counter_ns()
                broker._groups.beat(0, 1)
                beats.append((time.perf_counter_ns() - before) / 1000)
            for consumer in consumers:
                consumer.close()
        name = f"{self.members} consumers, {self.partitions:,} partitions: settled"
        beat = statistics.median(beats)
        return (
            Result(name, taken, 2, "s", taken / 2, 1, True),
            Result(f"one heartbeat with {self.members} members", beat, 10, "us", beat / 10, 1, True),
        )
