"""Random use of a queue against a plain model, with a virtual clock: standard, FIFO, priority and limited queues,
delays, times to live, dead letters."""

from __future__ import annotations

import math
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import penstock
from penstock import QueueFullError, StaleReceiptError, VirtualClock

MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None  # these many small directories need no disk
VISIBILITY_S = 10
MAX_RECEIVES = 3
LENGTH_MAX = 5
BYTES_MAX = 9
TTL_S = 12
READY, ACQUIRED, DONE, DEAD, GONE = "ready", "acquired", "done", "dead", "gone"


@dataclass
class Known:
    """What the model knows of one message."""

    name: str
    value: bytes
    priority: int
    group: str | None
    visible_ms: int
    expires_ms: float = math.inf
    state: str = READY
    received: int = 0
    failures: int = 0
    parked: bool = False

    @property
    def open(self) -> bool:
        return self.state in (READY, ACQUIRED)


class QueueMachine(RuleBasedStateMachine):
    kind = "standard"

    @initialize()
    def begin(self) -> None:
        self.path = tempfile.mkdtemp(dir=MEMORY)
        self.clock = VirtualClock()
        self.options = {"max_receives": MAX_RECEIVES, "visibility_timeout": float(VISIBILITY_S)}
        if self.kind == "fifo":
            self.options["fifo"] = True
        if self.kind == "priority":
            self.options["max_priority"] = 2
        if self.kind == "dropping":
            self.options |= {"max_length": LENGTH_MAX, "overflow": "drop-head"}
        if self.kind == "refusing":
            self.options |= {"max_length_bytes": BYTES_MAX, "overflow": "reject-publish"}
        if self.kind in ("expiring", "letters"):
            self.options["message_ttl"] = float(TTL_S)
        if self.kind == "letters":
            self.options |= {"max_length": LENGTH_MAX, "overflow": "drop-head", "dead_letter": "dead"}
        self.known: list[Known] = []
        self.letters: list[Known] = []
        self.letters_stored = 0
        self.again: list[Known] = []  # dropped by a redrive of others
        self.held: list[tuple[penstock.Message, Known, int]] = []
        self._open()

    def _open(self) -> None:
        self.broker = penstock.open(self.path, fsync="never", clock=self.clock, maintenance_interval_ms=10**9)
        self.queue = self.broker.queue("q", **self.options)

    def teardown(self) -> None:
        if hasattr(self, "broker"):
            self.broker.close()
            shutil.rmtree(self.path)

    @property
    def now(self) -> int:
        return self.clock.time_ms()

    # --- the model -------------------------------------------------------------------------------------------------

    def _first_open(self, group: str | None) -> Known | None:
        return next((one for one in self.known if one.open and one.group == group), None)

    def _due(self, one: Known) -> bool:
        return one.open and one.visible_ms <= self.now

    def _take(self, one: Known) -> None:
        if one.state == ACQUIRED:
            one.failures += 1
        one.state, one.received = ACQUIRED, one.received + 1
        one.parked, one.visible_ms = False, self.now + VISIBILITY_S * 1000

    def _claim_fifo(self, wanted: int) -> list[Known]:
        claimed = []
        for one in self.known:
            if len(claimed) == wanted:
                break
            if self._due(one) and not one.parked:
                if self._first_open(one.group) is one:
                    self._take(one)
                    claimed.append(one)
                else:
                    one.failures += one.state == ACQUIRED
                    one.state, one.parked = READY, True
        for one in claimed:
            if len(claimed) == wanted:
                break
            after = self.known[self.known.index(one) + 1 :]
            following = next((other for other in after if other.open and other.group == one.group), None)
            if following is not None and (following.parked or self._due(following)):
                self._take(following)
                claimed.append(following)
        return sorted(claimed, key=self.known.index)

    def _claim(self, wanted: int) -> list[Known]:
        if self.kind == "fifo":
            return self._claim_fifo(wanted)
        claimed = []
        for one in self.known:
            if len(claimed) == wanted:
                break
            if self._due(one):
                self._take(one)
                claimed.append(one)
        return claimed

    def _bury(self, one: Known) -> None:
        one.state = DEAD
        self._to_letters(one)
        self._promote(one.group)

    def _drop(self, one: Known) -> None:
        one.state = GONE
        self._to_letters(one)

    def _to_letters(self, one: Known) -> None:
        if self.kind == "letters":
            one.state = GONE
            self.letters.append(one)
            self.letters_stored += 1

    def _promote(self, group: str | None) -> None:
        if self.kind == "fifo":
            head = self._first_open(group)
            if head is not None and head.parked:
                head.parked, head.visible_ms = False, 0

    def _receive(self, wanted: int) -> list[Known]:
        out: list[Known] = []
        if self.kind == "priority":
            everything = self.known
            try:
                for priority in (2, 1, 0):
                    self.known = [one for one in everything if one.priority == priority]
                    out += self._receive_from(wanted - len(out))
                    if len(out) == wanted:
                        break
            finally:
                self.known = everything
            return out
        return self._receive_from(wanted)

    def _receive_from(self, wanted: int) -> list[Known]:
        out: list[Known] = []
        while True:
            claimed = self._claim(wanted - len(out)) if wanted > len(out) else []
            exhausted = [one for one in claimed if one.failures >= MAX_RECEIVES]
            left = [one for one in claimed if one.failures < MAX_RECEIVES]
            expired = [one for one in left if one.expires_ms <= self.now]
            out += [one for one in left if one.expires_ms > self.now]
            for one in exhausted:
                self._bury(one)
            for one in expired:
                self._drop(one)
            if not (exhausted or expired) or len(out) >= wanted:
                return out

    # --- rules -----------------------------------------------------------------------------------------------------

    @rule(
        count=st.integers(1, 4),
        delay=st.sampled_from([None, None, None, 5.0]),
        number=st.integers(0, 2),
        ttl=st.sampled_from([None, None, 4.0, 30.0]),
    )
    def send(self, count: int, delay: float | None, number: int, ttl: float | None) -> None:
        if self.kind not in ("expiring", "letters"):
            ttl = None
        if self.kind == "fifo":
            delay = None
        for _ in range(count):
            value = b"%d" % len(self.known)
            priority = number if self.kind == "priority" else 0
            group = f"g{number}" if self.kind == "fifo" else None
            due = [other for other in self.known if self._due(other)]
            if self.kind == "refusing" and sum(len(other.value) for other in due) + len(value) > BYTES_MAX:
                with pytest.raises(QueueFullError):
                    self.queue.send(value, delay=delay)
                return
            if self.kind in ("dropping", "letters"):
                for other in due[: max(0, len(due) + 1 - LENGTH_MAX)]:
                    self._drop(other)
            name = self.queue.send(value, delay=delay, priority=priority, group_id=group, ttl=ttl)
            one = Known(name, value, priority, group, self.now + round(delay * 1000) if delay else 0)
            if self.kind in ("expiring", "letters"):
                one.expires_ms = self.now + min(TTL_S, TTL_S if ttl is None else ttl) * 1000
            if group is not None and self._first_open(group) is not None:
                one.parked = True
            self.known.append(one)

    @rule(wanted=st.integers(1, 5))
    def receive(self, wanted: int) -> None:
        messages = self.queue.receive(wanted, wait=0)
        expected = self._receive(wanted)
        assert [message.id for message in messages] == [one.name for one in expected]
        for message, one in zip(messages, expected, strict=True):
            assert (message.value, message.delivery_count, message.failure_count) == (
                one.value,
                one.received,
                one.failures,
            )
            assert message.group_id == one.group
            self.held.append((message, one, one.received))

    def _valid(self, one: Known, receipt: int) -> bool:
        return one.state == ACQUIRED and one.received == receipt

    @precondition(lambda self: self.held)
    @rule(data=st.data(), action=st.sampled_from(["ack", "ack", "ack", "nack", "release", "later", "reject", "extend"]))
    def settle(self, data: st.DataObject, action: str) -> None:
        message, one, receipt = data.draw(st.sampled_from(self.held))
        valid = self._valid(one, receipt)
        again = action == "ack" and one.state == DONE and one.received == receipt
        try:
            if action == "ack":
                message.ack()
            elif action == "nack":
                message.nack()
            elif action == "release":
                message.nack(failed=False)
            elif action == "later":
                message.nack(delay=3.0, failed=False)
            elif action == "reject":
                message.reject()
            else:
                message.extend(20.0)
        except StaleReceiptError:
            assert not valid and not again
            return
        # what lies below the start of the queue was settled: an acknowledgement of it says nothing new
        assert valid or again or (action == "ack" and not one.open)
        if not valid:
            return
        if action == "ack":
            one.state = DONE
            self._promote(one.group)
        elif action == "reject":
            self._bury(one)
        elif action == "extend":
            one.visible_ms = self.now + 20_000
        elif action == "nack" and one.failures + 1 >= MAX_RECEIVES:
            self._bury(one)
        else:
            one.failures += action == "nack"
            head = self.kind != "fifo" or self._first_open(one.group) is one
            one.state, one.parked = READY, not head
            one.visible_ms = self.now + 3000 if action == "later" else 0

    @rule(seconds=st.sampled_from([0.5, 3.0, 10.0, 25.0]))
    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule(clean=st.booleans())
    def reopen(self, clean: bool) -> None:
        if clean:
            self.broker.maintain()
            self._maintained()
        self.broker.close()
        self._open()
        for delivery in self.queue._deliveries:
            if not clean and self.kind == "fifo":
                delivery.test_mark_dirty()
        self.held = []

    def _maintained(self) -> None:
        """What is past its time to live was dropped; what had timed out was looked at, and is ready again."""
        if self.kind not in ("expiring", "letters"):
            return
        for one in [one for one in self.known if self._due(one)]:
            if one.expires_ms <= self.now:
                self._drop(one)
            else:
                one.failures += one.state == ACQUIRED
                one.state, one.visible_ms = READY, 0

    @rule()
    def purge(self) -> None:
        dropped = self.queue.purge()
        gone = [one for one in self.known if one.state == READY]
        assert dropped == len(gone)
        for one in gone:
            one.state = GONE
        for group in {one.group for one in gone}:
            self._promote(group)

    @precondition(lambda self: self.kind == "letters")
    @rule()
    def redrive_letters(self) -> None:
        report = self.queue.redrive()
        assert report.moved == len(self.letters)
        for one in self.letters:
            due = [other for other in self.known if self._due(other)]
            for other in due[: max(0, len(due) + 1 - LENGTH_MAX)]:
                other.state = GONE
                self.again.append(other)
            new = Known(f"q-0-{len(self.known)}", one.value, 0, None, 0, self.now + TTL_S * 1000)
            self.known.append(new)
        self.letters, self.again = self.again, []
        self.letters_stored += len(self.letters)

    @precondition(lambda self: self.kind != "letters")
    @rule()
    def redrive(self) -> None:
        report = self.queue.redrive()
        dead = [one for one in self.known if one.state == DEAD]
        assert report.moved == len(dead)
        for one in dead:
            one.state, one.failures, one.visible_ms, one.parked = READY, 0, 0, False
        if self.kind == "fifo":
            for one in self.known:
                head = self._first_open(one.group)
                if one.state == READY and head is not one:
                    one.parked = True
                elif one.state == READY and one.parked:
                    one.parked, one.visible_ms = False, 0

    @invariant()
    def same_counts(self) -> None:
        if not hasattr(self, "queue"):
            return
        stats = self.queue.stats()
        ready = sum(one.open and (one.parked or one.visible_ms <= self.now) for one in self.known)
        hidden = [one for one in self.known if one.open and not one.parked and one.visible_ms > self.now]
        assert (stats.ready, stats.in_flight, stats.delayed, stats.dead) == (
            ready,
            sum(one.state == ACQUIRED for one in hidden),
            sum(one.state == READY for one in hidden),
            sum(one.state == DEAD for one in self.known),
        )
        if self.kind == "letters":
            letters = self.broker.queue("dead").stats()
            assert (letters.ready, letters.sent) == (len(self.letters), self.letters_stored)
            if self.letters:
                (head,) = self.broker.queue("dead").peek(max_messages=1)
                assert head.value == self.letters[0].value


class FifoMachine(QueueMachine):
    kind = "fifo"


class PriorityMachine(QueueMachine):
    kind = "priority"


class DroppingMachine(QueueMachine):
    kind = "dropping"


class RefusingMachine(QueueMachine):
    kind = "refusing"


class ExpiringMachine(QueueMachine):
    kind = "expiring"


class LetterMachine(QueueMachine):
    kind = "letters"


_settings = settings(
    max_examples=30,
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
)
TestStandardQueue = QueueMachine.TestCase
TestFifoQueue = FifoMachine.TestCase
TestPriorityQueue = PriorityMachine.TestCase
TestDroppingQueue = DroppingMachine.TestCase
TestRefusingQueue = RefusingMachine.TestCase
TestExpiringQueue = ExpiringMachine.TestCase
TestLetterQueue = LetterMachine.TestCase
for _case in (
    TestStandardQueue, TestFifoQueue, TestPriorityQueue, TestDroppingQueue, TestRefusingQueue, TestExpiringQueue,
    TestLetterQueue,
):  # fmt: skip
    _case.settings = _settings
del _case
