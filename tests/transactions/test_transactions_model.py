"""Transactions against a plain model (hypothesis): producers of several processes, fenced, too slow, dying at any step.

The model holds what lies in each partition and which transaction it belongs to. After each step a reader of committed
records, one that has read along from the beginning and a new one, finds exactly what was committed, in order, up to the
first record of an open transaction; a reader of all finds all; the group's offsets are those of the committed ones.
Time stands still unless a step moves it, and the keepers look when told.
"""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

import penstock
from penstock import FencedError, TopicPartition, TransactionStateError
from penstock.storage.partition_log import PartitionLog
from penstock.storage.transaction_record import TransactionRecord
from penstock.streams import keeper as keeper_module
from penstock.streams.transactions import Transactions

OUT = [TopicPartition("out", number) for number in range(3)]
IN = [TopicPartition("in", number) for number in range(2)]
IDS = ("one", "two", "three")
some = st.integers(0, 1000)  # taken modulo of whatever there is
OPEN, COMMITTED, ABORTED = "open", "committed", "aborted"

ENLISTING = ("enlist", "add_partitions")


class Died(BaseException):
    """The process is no more."""


# Where a process may die while it commits: the method, whether it was done, and whether the transaction is decided.
DEATHS: list[tuple[Any, str, bool, bool]] = [
    (Transactions, "enlist", False, False),
    (TransactionRecord, "add_partitions", True, False),
    (Transactions, "enlist", True, False),
    (TransactionRecord, "set_offsets", True, False),
    (TransactionRecord, "decide", False, False),
    (TransactionRecord, "decide", True, True),
    (Transactions, "_apply", False, True),
    (TransactionRecord, "offsets_applied", False, True),
    (PartitionLog, "end_transaction", False, True),
    (PartitionLog, "end_transaction", True, True),
    (PartitionLog, "append", True, True),  # the marker
    (TransactionRecord, "finish", False, True),
    (TransactionRecord, "finish", True, True),
]


class Transaction:
    def __init__(self, started: float) -> None:
        self.started = started
        self.state = OPEN
        self.touched: set[TopicPartition] = set()
        self.offsets: dict[TopicPartition, tuple[int, int]] = {}  # claim, position


class Process:
    """A broker as one process would have it: its keeper looks when told, and it can die."""

    def __init__(self, path: Path, clock: penstock.VirtualClock) -> None:
        self.broker = penstock.open(path, clock=clock, fsync="never")
        self.alive = True
        keeper = self.keeper = self.broker._keeper
        keeper.token()
        keeper._stopped.set()
        assert keeper._thread is not None
        keeper._thread.join()
        keeper.tick()

    def crash(self) -> None:
        """What the kernel does when a process dies: its locks are free."""
        self.alive = False
        assert self.keeper._process is not None
        self.keeper._process.release()
        self.keeper._coordinator.release()


class Sender:
    """A transactional producer and what the model knows of it."""

    def __init__(self, process: Process, name: str, timeout_s: int) -> None:
        self.process, self.name, self.timeout_s = process, name, timeout_s
        self.producer = process.broker.producer(
            transactional_id=name, transaction_timeout_ms=timeout_s * 1000, linger_ms=3_600_000
        )
        self.transaction: Transaction | None = None  # open as far as it knows
        self.buffered: list[tuple[TopicPartition, bytes]] = []
        self.fenced = False


class TransactionModel(RuleBasedStateMachine):
    """See the module."""

    @initialize()
    def open(self) -> None:
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(keeper_module, "TICK_S", 3600.0)  # it looks when a step says so
        self.directory = tempfile.TemporaryDirectory()
        self.path = Path(self.directory.name) / "data"
        self.clock = penstock.VirtualClock()
        self.watcher = Process(self.path, self.clock)  # the first, so it looks after the others
        self.watcher.broker.create_topic("out", partitions=len(OUT))
        topic = self.watcher.broker.create_topic("in", partitions=len(IN))
        for place in IN:
            for number in range(60):
                topic.append(b"%d" % number, partition=place.partition)
        self.logs: dict[TopicPartition, list[tuple[bytes, Transaction | None]]] = {place: [] for place in OUT}
        self.serial = 0
        self.senders: list[Sender] = []
        self.newest: dict[str, Sender] = {}
        self.committed: dict[TopicPartition, int] = {}
        self.claims: dict[TopicPartition, int] = defaultdict(int)  # the one that may commit
        self.processes = [Process(self.path, self.clock) for _ in range(2)]
        self.dead: list[Process] = []
        self.new_consumer()
        self.along = self.reader("read_committed")
        self.seen_along: dict[TopicPartition, list[bytes]] = {place: [] for place in OUT}

    def teardown(self) -> None:
        if hasattr(self, "processes"):
            for process in [*self.dead, *self.processes, self.watcher]:
                process.broker.close()
            self.patch.undo()
            self.directory.cleanup()

    # --- what the model does by itself ---------------------------------------------------------------------------

    def new_consumer(self) -> None:
        self.consumer = self.processes[0].broker.consumer(
            "in", group="g", enable_auto_commit=False, max_poll_interval_ms=2**31 - 1
        )
        self.own_claims: dict[TopicPartition, int] = {}
        self.positions: dict[TopicPartition, int] = {}

    def chosen(self, number: int, fits: Callable[[Sender], bool] = lambda sender: True) -> Sender | None:
        able = [sender for sender in self.senders if sender.process.alive and fits(sender)]
        return able[number % len(able)] if able else None

    def store(self, sender: Sender) -> None:
        assert sender.transaction is not None
        for place, value in sender.buffered:
            self.logs[place].append((value, sender.transaction))
            sender.transaction.touched.add(place)
        sender.buffered.clear()

    def fence(self, sender: Sender | None) -> None:
        """Somebody else ended what it had open."""
        if sender is not None:
            sender.fenced = True
            if sender.transaction is not None and sender.transaction.state == OPEN:
                sender.transaction.state = ABORTED

    def commits(self, sender: Sender) -> None:
        assert sender.transaction is not None
        sender.transaction.state = COMMITTED
        self.committed.update({place: position for place, (_, position) in sender.transaction.offsets.items()})
        sender.transaction = None

    def owns_what_it_read(self, transaction: Transaction) -> bool:
        return all(self.claims[place] == claim for place, (claim, _) in transaction.offsets.items())

    # --- steps -----------------------------------------------------------------------------------------------------

    @rule(name=st.sampled_from(IDS), where=st.integers(0, 1), timeout_s=st.sampled_from([5, 60]), twice=st.booleans())
    def make(self, name: str, where: int, timeout_s: int, twice: bool) -> None:
        """The older one of that id, if there is one, is a zombie from now on."""
        if twice:
            self.make(name, 1 - where, timeout_s, False)
        self.senders = self.senders[-8:]
        sender = Sender(self.processes[where], name, timeout_s)
        self.fence(self.newest.get(name))
        self.newest[name] = sender
        self.senders.append(sender)

    @rule(number=some)
    def begin(self, number: int) -> None:
        if (sender := self.chosen(number)) is None:
            return
        if sender.transaction is not None:
            with pytest.raises(TransactionStateError):
                sender.producer.begin_transaction()
        elif sender.fenced:
            with pytest.raises(FencedError, match=sender.name):
                sender.producer.begin_transaction()
        else:
            sender.producer.begin_transaction()
            sender.transaction = Transaction(self.clock.monotonic())

    @rule(name=st.sampled_from(IDS))
    def zombies_begin(self, name: str) -> None:
        """It changes nothing for the newest one, whatever that is doing."""
        for sender in self.senders:
            if sender.name == name and sender.fenced and sender.process.alive and sender.transaction is None:
                with pytest.raises(FencedError, match=name):
                    sender.producer.begin_transaction()

    @rule(number=some, places=st.lists(st.sampled_from(OUT), min_size=1, max_size=6))
    def send(self, number: int, places: list[TopicPartition]) -> None:
        if (sender := self.chosen(number)) is None:
            return
        if sender.transaction is None:
            with pytest.raises(TransactionStateError):
                sender.producer.send("out", b"refused", partition=0)
            return
        for place in places:
            self.serial += 1
            value = b"%s %d" % (sender.name.encode(), self.serial)
            sender.producer.send("out", value, partition=place.partition)
            sender.buffered.append((place, value))

    @rule(number=some)
    def flush(self, number: int) -> None:
        if (sender := self.chosen(number)) is None or sender.transaction is None:
            return
        if sender.fenced and sender.buffered:
            with pytest.raises(FencedError):
                sender.producer.flush()
            self.give_up(sender)
        else:
            sender.producer.flush()
            self.store(sender)

    def give_up(self, sender: Sender) -> None:
        """What a program does with a producer that was fenced; an abort says nothing of it."""
        assert sender.fenced
        sender.producer.abort_transaction()
        sender.buffered.clear()
        sender.transaction = None

    @rule(count=st.integers(1, 8))
    def consume(self, count: int) -> None:
        records = self.consumer.poll(max_records=count, timeout=0)
        for place in IN:
            if place not in self.own_claims or self.own_claims[place] != self.claims[place]:
                self.claims[place] += 1  # taken (again), from what is committed
                self.own_claims[place] = self.claims[place]
                self.positions[place] = self.committed.get(place, 0)
        for record in records:
            place = TopicPartition(record.topic, record.partition)
            assert record.offset == self.positions[place]
            self.positions[place] += 1

    @rule(number=some)
    def send_offsets(self, number: int) -> None:
        sender = self.chosen(number, lambda sender: sender.process is self.processes[0])
        if sender is None:
            return
        if sender.transaction is None:
            with pytest.raises(TransactionStateError):
                sender.producer.send_offsets(self.consumer)
            return
        self.give_offsets(sender, sender.transaction)

    def give_offsets(self, sender: Sender, transaction: Transaction) -> None:
        sender.producer.send_offsets(self.consumer)
        transaction.offsets.update(
            {place: (self.own_claims[place], position) for place, position in self.positions.items()}
        )

    @rule(number=some)
    def consume_and_send_offsets(self, number: int) -> None:
        self.consume(3)
        self.send_offsets(number)

    @rule(place=st.sampled_from(IN), offset=st.integers(0, 60))
    def reset(self, place: TopicPartition, offset: int) -> None:
        self.watcher.broker.reset_offsets("g", "in", offset, partitions=[place.partition])
        self.committed[place] = offset
        self.claims[place] += 1

    @rule(number=some)
    def commit(self, number: int) -> None:
        if (sender := self.chosen(number)) is None:
            return
        if sender.transaction is None:
            with pytest.raises(TransactionStateError):
                sender.producer.commit_transaction()
        elif sender.fenced:
            with pytest.raises(FencedError):
                sender.producer.commit_transaction()
            self.give_up(sender)
        elif not self.owns_what_it_read(sender.transaction):
            with pytest.raises(FencedError, match="moved"):
                sender.producer.commit_transaction()
            self.store(sender)
        else:
            sender.producer.commit_transaction()
            self.store(sender)
            self.commits(sender)

    @rule(number=some)
    def whole_transaction(self, number: int) -> None:
        sender = self.chosen(number, lambda sender: sender.transaction is None and not sender.fenced)
        if sender is None:
            return
        able = [each for each in self.senders if each.process.alive]
        place = able.index(sender)
        self.begin(place)
        self.send(place, [OUT[0], OUT[2]])
        self.flush(place)
        self.send(place, [OUT[1], OUT[0]])
        self.commit(place)

    @rule(number=some)
    def abort(self, number: int) -> None:
        if (sender := self.chosen(number)) is None:
            return
        if sender.transaction is None:
            with pytest.raises(TransactionStateError):
                sender.producer.abort_transaction()
            return
        sender.producer.abort_transaction()
        self.aborted(sender)

    def aborted(self, sender: Sender) -> None:
        if sender.transaction is not None and sender.transaction.state == OPEN:
            sender.transaction.state = ABORTED
        sender.transaction = None
        sender.buffered.clear()

    @rule(number=some)
    def close(self, number: int) -> None:
        if (sender := self.chosen(number)) is not None:
            sender.producer.close()
            self.aborted(sender)
            self.senders.remove(sender)

    @rule(name=st.sampled_from(IDS))
    def abort_from_outside(self, name: str) -> None:
        sender = self.newest.get(name)
        if sender is None:
            return
        is_open = sender.transaction is not None and sender.transaction.state == OPEN
        assert self.watcher.broker.abort_transaction(name) is is_open
        if is_open:
            self.fence(sender)

    @rule(place=st.sampled_from(OUT))
    def append(self, place: TopicPartition) -> None:
        """By somebody who has no transactions."""
        self.serial += 1
        value = b"plain %d" % self.serial
        self.watcher.broker.topic("out").append(value, partition=place.partition)
        self.logs[place].append((value, None))

    @rule(seconds=st.sampled_from([1, 4, 6, 30, 61]))
    def pass_time(self, seconds: int) -> None:
        for _ in range(2):
            self.clock.advance(seconds / 2)
            for name in self.newest:
                self.zombies_begin(name)
            for process in [*self.processes, self.watcher]:
                process.keeper.tick()
            for sender in self.newest.values():
                transaction = sender.transaction
                if transaction is None or transaction.state != OPEN:
                    continue
                if not sender.process.alive or self.clock.monotonic() - transaction.started > sender.timeout_s:
                    self.fence(sender)

    # --- death -------------------------------------------------------------------------------------------------------

    @rule(where=st.integers(0, 1), noticed=st.booleans())
    def crash(self, where: int, noticed: bool) -> None:
        if len(self.dead) < 4:
            self.die(where)
            if noticed or where == 0:
                self.recover()
            self.start(where)

    def die(self, where: int) -> None:
        process = self.processes[where]
        process.crash()
        self.dead.append(process)

    def recover(self) -> None:
        """Another process notices."""
        self.watcher.keeper.tick()
        for sender in self.newest.values():
            if not sender.process.alive:
                self.fence(sender)

    def start(self, where: int) -> None:
        self.processes[where] = Process(self.path, self.clock)
        self.senders = [sender for sender in self.senders if sender.process.alive]
        if where == 0:
            for place in IN:
                self.claims[place] += 1  # the dead member's were taken away
            self.new_consumer()

    @rule(number=some, death=st.sampled_from(DEATHS), nth=st.integers(1, 3), taken_over=st.booleans())
    def die_while_committing(self, number: int, death: tuple[Any, str, bool, bool], nth: int, taken_over: bool) -> None:
        owner, method, done, decided = death

        def fits(sender: Sender) -> bool:
            transaction = sender.transaction
            return not sender.fenced and (transaction is None or self.owns_what_it_read(transaction))

        sender = self.chosen(number, fits)
        if sender is None or len(self.dead) >= 4:
            return
        if sender.transaction is None:
            sender.producer.begin_transaction()
            sender.transaction = Transaction(self.clock.monotonic())
        if sender.process is self.processes[0]:
            self.consume(3)
            self.give_offsets(sender, sender.transaction)
        if method in (*ENLISTING, "append"):  # what is stored before or after is not told apart
            sender.producer.flush()
            self.store(sender)
            if method in ENLISTING and sender.transaction.touched:
                return
            if method in ENLISTING:
                self.send_to(sender, OUT)
        if sender.producer._linger is not None:
            sender.producer._linger.stop()  # a dead process has no thread that tries again
        if method in ENLISTING:
            nth = 1  # all partitions are enlisted in one go
        happened = self.die_in(owner, method, done, nth, sender.producer.commit_transaction)
        if method not in ENLISTING:
            self.store(sender)
        if decided or not happened:
            self.commits(sender)
        where = self.processes.index(sender.process)
        self.die(where)
        self.zombies_begin(sender.name)
        if taken_over and where == 1:
            self.start(where)
            self.make(sender.name, 0, 60, False)
        self.recover()
        if not (taken_over and where == 1):
            self.start(where)

    def send_to(self, sender: Sender, places: list[TopicPartition]) -> None:
        for place in places:
            sender.producer.send("out", b"never stored", partition=place.partition)

    def die_in(self, owner: Any, method: str, done: bool, nth: int, call: Callable[[], object]) -> bool:
        """Whether the process died in the nth call of that method."""
        original, calls = getattr(owner, method), 0

        def dying(*arguments: Any, **options: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == nth and not done:
                raise Died
            result = original(*arguments, **options)
            if calls == nth:
                raise Died
            return result

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(owner, method, dying)
            try:
                call()
            except Died:
                return True
        return False

    @rule()
    def reopen(self) -> None:
        """One closes and opens again: what is open is aborted."""
        for sender in [sender for sender in self.senders if sender.process is self.processes[1]]:
            self.aborted(sender)
        self.processes[1].broker.close()
        self.processes[1].alive = False
        self.dead.append(self.processes[1])
        self.start(1)

    # --- always ------------------------------------------------------------------------------------------------------

    def reader(self, level: str) -> penstock.Consumer:
        consumer = self.watcher.broker.consumer(isolation_level=level)
        consumer.assign(OUT)
        return consumer

    def read(self, consumer: penstock.Consumer, into: dict[TopicPartition, list[bytes]]) -> None:
        while records := consumer.poll(timeout=0, max_records=10_000):
            for record in records:
                assert record.value is not None
                into[TopicPartition(record.topic, record.partition)].append(record.value)

    def stable(self, place: TopicPartition) -> Iterator[bytes]:
        for value, transaction in self.logs[place]:
            if transaction is not None and transaction.state == OPEN:
                return
            if transaction is None or transaction.state == COMMITTED:
                yield value

    @invariant()
    def readers_see_what_the_model_has(self) -> None:
        if not hasattr(self, "processes"):
            return
        committed = {place: list(self.stable(place)) for place in OUT}
        for level, expected in (
            ("read_committed", committed),
            ("read_uncommitted", {place: [value for value, _ in log] for place, log in self.logs.items()}),
        ):
            found: dict[TopicPartition, list[bytes]] = {place: [] for place in OUT}
            with self.reader(level) as consumer:
                self.read(consumer, found)
            assert found == expected, level
        self.read(self.along, self.seen_along)
        assert self.seen_along == committed

    @invariant()
    def offsets_are_those_of_the_committed(self) -> None:
        if not hasattr(self, "processes"):
            return
        for found in self.watcher.broker.describe_group("g").partitions:
            expected = self.committed.get(TopicPartition(found.topic, found.partition), 0)
            assert (found.committed or 0) == expected

    @invariant()
    def states_are_told(self) -> None:
        if not hasattr(self, "processes"):
            return
        found = {entry.transactional_id: entry.state for entry in self.watcher.broker.transactions()}
        expected = {
            name: "ongoing" if sender.transaction is not None and sender.transaction.state == OPEN else "none"
            for name, sender in self.newest.items()
        }
        assert found == expected


@pytest.mark.parametrize("where", [0, 1], ids=["with-offsets", "without"])
@pytest.mark.parametrize("nth", [1, 2])
@pytest.mark.parametrize("death", DEATHS, ids=lambda death: f"{death[1]}-{'done' if death[2] else 'not-done'}")
def test_death_at_each_step_of_a_commit(death: tuple[Any, str, bool, bool], nth: int, where: int) -> None:
    """With a zombie that tries to begin before anybody noticed."""
    model = TransactionModel()
    model.open()
    try:
        model.make("one", where, 60, True)
        model.begin(1)
        if death[1] not in ENLISTING:
            model.send(1, OUT)
        model.die_while_committing(1, death, nth, nth == 2)
        model.readers_see_what_the_model_has()
        model.offsets_are_those_of_the_committed()
        model.states_are_told()
    finally:
        model.teardown()


def test_a_zombie_does_not_prolong_the_transaction_of_the_newest() -> None:
    model = TransactionModel()
    model.open()
    try:
        model.make("one", 0, 5, True)
        model.begin(1)
        model.pass_time(6)
        model.states_are_told()
    finally:
        model.teardown()


TransactionModel.TestCase.settings = settings(
    max_examples=30,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.reuse, Phase.generate],
)
TestTransactionModel = pytest.mark.filterwarnings("ignore::hypothesis.errors.HypothesisWarning")(
    TransactionModel.TestCase
)


@pytest.mark.slow
@pytest.mark.timeout(4 * 3600)
@pytest.mark.filterwarnings("ignore::hypothesis.errors.HypothesisWarning")
def test_for_long() -> None:
    long = settings(TransactionModel.TestCase.settings, max_examples=3000, stateful_step_count=80, phases=list(Phase))
    run_state_machine_as_test(TransactionModel, settings=long)
