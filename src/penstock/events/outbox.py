"""The outbox: events written in the user's own SQL transaction, and carried to a topic afterwards, each once.

`add` writes a row; a relay stores the rows in their order in a topic and deletes them. Crash policy: the relay is a
named producer, so that a former relay that still lives is fenced; a new one reads what was stored in the topic since
the place that was noted with the last deletion, and does not send again what is there. So each event is stored once,
whoever dies when. Process safety: any number of writers; one relay at a time holds the lease in the outbox's table,
others stand by. A wall clock that jumps holds nobody up for longer than two leases, and at worst has a relay fenced.
"""

from __future__ import annotations

import logging
import math
import os
import socket
from typing import Any, Self

from penstock import Broker, FencedError, Producer, TopicPartition, UnknownTopicError
from penstock.clock import Clock, SystemClock
from penstock.errors import InvalidArgumentError, InvalidTypeError
from penstock.events import sql as sql_module
from penstock.events.at_the_end import after, at_the_end
from penstock.events.bus import EventBus
from penstock.events.checks import check_unicode, checked_clock, checked_text
from penstock.events.envelope import Envelope
from penstock.events.errors import InvalidEventError
from penstock.events.event import Event
from penstock.events.guard import checked_number
from penstock.events.message_id import new_message_id
from penstock.events.sql import Sql
from penstock.stopping import StopFlag, stopped_by_signals
from penstock.storage.forks import closes_in_child
from penstock.storage.topic_config import check_topic_name

_log = logging.getLogger("penstock.outbox")
_LOOK_S = 0.02
_RENEWALS = 3  # of a lease, in its time


class Outbox:
    """An outbox in a SQL database.

        outbox = Outbox(connection, source="order-service")
        connection.execute("INSERT INTO orders ...")
        outbox.add(OrderPlaced("o-1", 4200), key="o-1")
        connection.commit()                                 # both, or neither

    `database`: a `sqlite3` connection, another DB-API connection, or a path (as the relay's process has it). `topic`:
    where events go unless `add` says otherwise (default "events"). `source`: of their envelopes. `name`: tells apart
    the outboxes of several databases that are relayed to one broker. `clock`: default the machine's; the relay uses the
    broker's. Makes its tables when they do not exist.
    """

    def __init__(
        self,
        database: Any,
        topic: str = "events",
        source: str = "penstock",
        name: str = "outbox",
        clock: Clock | None = None,
    ) -> None:
        topic = check_topic_name(checked_text("topic", topic))
        source, name = checked_text("source", source), checked_text("name", name)
        checked_clock(clock)
        self._sql = Sql(database)
        self.topic = topic
        self.source = source
        self.name = name
        self._clock = clock or SystemClock()
        self._owner = _new_owner()
        self._stopped = StopFlag()
        self._relay: _Relay | None = None
        self._make_tables()
        closes_in_child(self)

    def leave_parent(self, idle: bool) -> None:
        """In the child of a fork: the lease and the relay are the parent's."""
        self._owner = _new_owner()
        self._stopped = StopFlag()
        self._relay = None

    @property
    def connection(self) -> Any:
        """The database connection."""
        return self._sql.connection

    # --- writing ---------------------------------------------------------------------------------------------------

    def add(
        self, event: Event | Envelope, key: str | None = None, topic: str | None = None, **options: Any
    ) -> Envelope:
        """Write an event into the outbox as a part of the connection's transaction; returns its envelope.

        `key`: events of one key stay in their order (default: the message id). `options`: those of `Envelope.wrap`.
        Commits nothing. Raises `InvalidTypeError`, `InvalidArgumentError`, `InvalidNameError` (no broker can have this
        topic, and the row would hold up all others), and what the database raises.
        """
        self._sql.check_open()
        if isinstance(event, Envelope):
            if options:
                raise InvalidArgumentError(f"{', '.join(options)} given with an Envelope, which has its own")
            envelope = event
        else:
            envelope = Envelope.wrap(event, **{"source": self.source, "clock": self._clock, **options})
        if key is not None and not isinstance(key, str):
            raise InvalidTypeError(f"key is {key!r}; a str or None is needed")
        if topic is not None:
            topic = check_topic_name(checked_text("topic", topic))
        if key:
            check_unicode("key", key)
        row = (envelope.message_id, topic or self.topic, key or envelope.message_id, envelope.to_json().decode())
        insert = "INSERT INTO penstock_outbox (message_id, topic, message_key, body) VALUES (?, ?, ?, ?)"
        with self._sql.lock:
            self._sql.run(insert, *row)
        return envelope

    def pending(self) -> int:
        """How many rows wait for a relay."""
        with self._sql.lock, self._sql.transaction(nested=True):
            return int((self._sql.one("SELECT COUNT(*) FROM penstock_outbox") or (0,))[0])

    # --- relaying --------------------------------------------------------------------------------------------------

    def relay(self, target: Broker | EventBus, batch_size: int = 500, lease: float = 10.0) -> int:
        """Carry every committed row to its topic, in order; how many. 0 while another relay holds the lease.

        `target`: a broker or a bus of it. `lease`: seconds for which a relay that died keeps others from taking over.
        Raises `UnknownTopicError`, `DiskFullError`, ...: the rows stay.
        """
        relay = self._relay_to(target, batch_size, lease)
        if not relay.take_lease():
            return 0
        done = 0
        with at_the_end(drop_lease=relay.drop_lease):
            try:
                while relay.take_lease() and (count := relay.step()):
                    done += count
            except FencedError:
                self._end_relay()
                raise
        return done

    def run(
        self, target: Broker | EventBus, poll_interval: float = 0.1, batch_size: int = 500, lease: float = 10.0
    ) -> None:
        """Relay until `stop`; in the main thread also until SIGTERM or SIGINT. Looks for rows each `poll_interval`
        seconds; stands by while another relay holds the lease.
        """
        self._stopped.clear()
        with (
            stopped_by_signals(self._stopped.set),
            at_the_end(drop_lease=self._drop_lease, end_relay=self._end_relay),
        ):
            self._relay_until_stopped(target, poll_interval, batch_size, lease)

    def _relay_until_stopped(
        self, target: Broker | EventBus, poll_interval: float, batch_size: int, lease: float
    ) -> None:
        while not self._stopped.is_set():
            try:
                relay = self._relay_to(target, batch_size, lease)
                if relay.take_lease() and relay.step():
                    continue
            except FencedError:
                _log.warning("another relay of outbox %s took over", self.name)
                self._end_relay()
            self._stopped.wait(max(_LOOK_S, poll_interval))

    def stop(self) -> None:
        """End `run` after the batch in hand."""
        self._stopped.set()

    def _relay_to(self, target: Broker | EventBus, batch_size: int, lease: float) -> _Relay:
        self._sql.check_open()
        broker = target.broker if isinstance(target, EventBus) else target
        if not isinstance(broker, Broker):
            raise InvalidTypeError(f"target is {target!r}; a Broker or an EventBus is needed")
        checked_number("batch_size", batch_size, 1, 100_000, whole=True)
        checked_number("lease", lease, 0.05, 86_400)
        if self._relay is None or self._relay.broker is not broker:
            self._end_relay()
            self._relay = _Relay(self, broker)
        self._relay.batch_size, self._relay.lease_ms = batch_size, round(lease * 1000)
        return self._relay

    def _drop_lease(self) -> None:
        if self._relay is not None:
            self._relay.drop_lease()

    def _end_relay(self) -> None:
        relay, self._relay = self._relay, None
        if relay is not None:
            relay.close()

    # --- state -----------------------------------------------------------------------------------------------------

    def _make_tables(self) -> None:
        sql = self._sql
        number = "INTEGER PRIMARY KEY AUTOINCREMENT" if sql.is_sqlite else sql.serial_key
        sql.make_tables(
            f"CREATE TABLE IF NOT EXISTS penstock_outbox (seq {number}, message_id VARCHAR(128) NOT NULL UNIQUE, "
            "topic VARCHAR(249) NOT NULL, message_key VARCHAR(1000) NOT NULL, body TEXT NOT NULL)",
            "CREATE TABLE IF NOT EXISTS penstock_outbox_lease "
            "(id INTEGER PRIMARY KEY, owner VARCHAR(200) NOT NULL, until_ms BIGINT NOT NULL)",
            "CREATE TABLE IF NOT EXISTS penstock_outbox_sent (topic VARCHAR(249) NOT NULL, part INTEGER NOT NULL, "
            "next_offset BIGINT NOT NULL, PRIMARY KEY (topic, part))",
            "INSERT INTO penstock_outbox_lease SELECT 1, '', 0 "
            "WHERE NOT EXISTS (SELECT 1 FROM penstock_outbox_lease WHERE id = 1)",
        )

    def close(self) -> None:
        """End the relay, and close the database if the outbox opened it; every other call raises `ClosedError` then.
        May be repeated."""
        self.stop()
        with at_the_end(close=self._sql.close):
            self._end_relay()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Outbox {self.name!r}>"


def _new_owner() -> str:
    """A name in the lease that nobody else has."""
    return f"{socket.gethostname()}:{os.getpid()}:{new_message_id()}"


def _is_held(owner: str, until_ms: int, now_ms: int) -> bool:
    """Whether a lease runs. `owner` ends with the milliseconds for which its holder takes it: one that would run for
    longer than twice that was taken before the wall clock went back."""
    length = owner.rpartition(" ")[2]
    return length.isdecimal() and now_ms < until_ms <= now_ms + 2 * int(length)


class _Relay:
    """One process's relaying of an outbox to a broker."""

    batch_size = 500
    lease_ms = 10_000

    def __init__(self, outbox: Outbox, broker: Broker) -> None:
        self.broker = broker
        self._outbox = outbox
        self._sql = outbox._sql
        self._clock = broker.clock
        self._producer: Producer | None = None
        self._taken = -math.inf  # when the lease was taken last, by the clock that never goes back
        self._lease = ""  # as it was written then
        self._stored: set[str] = set()  # ids that a former relay stored and did not delete
        self._known: set[str] = set()  # topics that were looked into for them

    def take_lease(self) -> bool:
        """Whether this relay may go on: the lease was free, or its own, or ran out."""
        elapsed = self._clock.monotonic() - self._taken
        if self._producer is not None and 0 <= elapsed * 1000 * _RENEWALS < self.lease_ms:
            return True
        now = self._clock.time_ms()
        owner = f"{self._outbox._owner} {self.lease_ms}"
        with self._sql.lock, self._sql.transaction(nested=False):
            row = self._sql.one("SELECT owner, until_ms FROM penstock_outbox_lease WHERE id = 1")
            assert row is not None
            mine = row[0].startswith(self._outbox._owner)
            if not mine and _is_held(row[0], row[1], now):
                return False
            taken = self._sql.run(
                "UPDATE penstock_outbox_lease SET owner = ?, until_ms = ? WHERE id = 1 AND owner = ? AND until_ms = ?",
                owner, now + self.lease_ms, row[0], row[1],
            )  # fmt: skip
        if not taken:
            return False
        self._taken, self._lease = self._clock.monotonic(), owner
        if not mine or self._producer is None:
            self._begin()
        return True

    def drop_lease(self) -> None:
        """Let another relay begin at once."""
        self._taken = -math.inf
        with self._sql.lock, self._sql.transaction(nested=False):
            self._sql.run(
                "UPDATE penstock_outbox_lease SET owner = '', until_ms = 0 WHERE id = 1 AND owner = ?", self._lease
            )

    def _begin(self) -> None:
        """Fence whoever relayed before: from here on nobody else stores, so that what is stored can be looked at."""
        self.close()
        self._producer = self.broker.producer(name=f"penstock-outbox-{self._outbox.name}", linger_ms=3_600_000)
        self._stored.clear()
        self._known.clear()

    def step(self) -> int:
        """Carry one batch; how many rows."""
        with self._sql.lock, self._sql.transaction(nested=False):
            rows = self._sql.all(
                "SELECT seq, message_id, topic, message_key, body FROM penstock_outbox ORDER BY seq "
                f"LIMIT {int(self.batch_size)}"
            )
        if not rows:
            return 0
        topics = {str(row[2]) for row in rows}
        for topic in topics - self._known:
            self._look_into(topic)
        try:
            self._send([row for row in rows if row[1] not in self._stored])
            sql_module.fault("sent")
            with self._sql.lock, self._sql.transaction(nested=False):
                self._sql.run_many("DELETE FROM penstock_outbox WHERE seq = ?", [(row[0],) for row in rows])
                for topic in topics:
                    self._note(topic, self._ends(topic))
        except BaseException as error:
            after(error, "closing the producer", self.close)  # begin anew: what is stored and not deleted is looked for
            raise
        self._stored.difference_update([row[1] for row in rows])
        return len(rows)

    def _send(self, rows: list[tuple[Any, ...]]) -> None:
        producer = self._producer
        assert producer is not None
        first = 0
        while first < len(rows):
            topic, last = rows[first][2], first
            while last < len(rows) and rows[last][2] == topic:
                last += 1
            part = rows[first:last]
            producer.send_many(topic, [row[4].encode() for row in part], [row[3].encode() for row in part])
            first = last
        producer.flush()

    def _places(self, topic: str) -> list[TopicPartition]:
        if topic not in self.broker.topics():
            raise UnknownTopicError(f"topic {topic!r} of rows in outbox {self._outbox.name!r} does not exist")
        return [TopicPartition(topic, number) for number in range(self.broker.topic(topic).partitions)]

    def _ends(self, topic: str) -> dict[TopicPartition, int]:
        with self.broker.consumer() as consumer:
            return consumer.end_offsets(self._places(topic))

    def _note(self, topic: str, ends: dict[TopicPartition, int]) -> None:
        self._sql.run("DELETE FROM penstock_outbox_sent WHERE topic = ?", topic)
        self._sql.run_many(
            "INSERT INTO penstock_outbox_sent (topic, part, next_offset) VALUES (?, ?, ?)",
            [(topic, place.partition, end) for place, end in ends.items()],
        )

    def _look_into(self, topic: str) -> None:
        """Find what was stored since the ends that were noted; the first time, note them."""
        places = self._places(topic)
        with self._sql.lock, self._sql.transaction(nested=False):
            noted = dict(self._sql.all("SELECT part, next_offset FROM penstock_outbox_sent WHERE topic = ?", topic))
            if not noted:
                self._note(topic, self._ends(topic))
        if noted:
            with self.broker.consumer() as consumer:
                ends = consumer.end_offsets(places)
                begins = consumer.beginning_offsets(places)
                consumer.assign(places)
                for place in places:
                    consumer.seek(place, min(ends[place], max(begins[place], noted.get(place.partition, 0))))
                while any(consumer.position(place) < ends[place] for place in places):
                    for record in consumer.poll(timeout=0):
                        self._remember(record.value or b"")
        self._known.add(topic)

    def _remember(self, value: bytes) -> None:
        try:
            self._stored.add(Envelope.from_json(value).message_id)
        except InvalidEventError:
            _log.debug("a record beside the outbox's is no event")

    def close(self) -> None:
        """End the producer. Unsent rows stay in the outbox."""
        producer, self._producer = self._producer, None
        if producer is not None and not producer.closed:
            producer.purge()
            producer.close()
