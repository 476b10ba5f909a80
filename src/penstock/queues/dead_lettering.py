"""Storing dead letters, once each: of one share group's messages, in a queue or by an exchange.

Crash policy: the message is marked (its holder is about to dead-letter it, and why), then its letters are stored, then
it is settled. After a death in between, whoever receives it next finds the mark and looks, in each place that a letter
goes to, whether it is there already.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from penstock._native.delivery_states import EXPIRED, MISSING, MOVED
from penstock._native.message import Message
from penstock._native.metrics import SHARE, WORDS
from penstock.errors import RecordTooLargeError, UnknownExchangeError
from penstock.queues.dead_letter import (
    EXCHANGE,
    REASONS,
    ROUTING_KEY,
    Headers,
    cycles,
    dead_letter_headers,
    header,
    same_source,
)
from penstock.queues.queue_config import VISIBILITY_MAX_S
from penstock.streams.topic_partition import TopicPartition

if TYPE_CHECKING:
    from penstock._native.delivery import Delivery
    from penstock.queues.broker import Broker
    from penstock.queues.share_group import ShareGroup

_log = logging.getLogger("penstock.queues")
REJECT, BURY = 3, 7  # see delivery.h
DISCARDED = MISSING  # archived, and not to be looked at any more
_COUNTERS = {"expired": "expired", "maxlen": "dropped"}  # for reasons; every other one: dead


class DeadLettering:
    """What becomes of the messages of a share group that can not be dealt with; any thread."""

    def __init__(self, group: ShareGroup) -> None:
        self._group = group
        self._broker = group._broker

    def bury(self, message: Message, reason: str, error: str | None, ran_out_ms: int | None) -> None:
        """Dead-letter a message that this process holds, or keep it as dead, or drop it, as the configuration says.

        `ran_out_ms`: when the lock of a holder ended who died doing this; None: nobody tried before. A stale receipt is
        found out before anything is stored.
        """
        config = self._group._config
        delivery = self._group._delivery_of(message.partition)
        code = REASONS[reason]
        if config.dead_letter is None and config.dead_letter_exchange is None:
            delivery.settle(message.offset, message.delivery_count, REJECT, code if code < EXPIRED else DISCARDED)
            _count(delivery, reason)
            return
        delivery.settle(message.offset, message.delivery_count, BURY, code)
        try:
            self.store(message, reason, error, ran_out_ms, self._group._clock.time_ms())
        except RecordTooLargeError as too_large:  # it would be so each time
            _log.error("%s stays where it is, as dead: %s", message.id, too_large)
            delivery.settle(message.offset, message.delivery_count, REJECT, code if code < EXPIRED else DISCARDED)
        else:
            delivery.settle(message.offset, message.delivery_count, REJECT, MOVED)
        _count(delivery, reason)

    def store(self, message: Message, reason: str, error: str | None, ran_out_ms: int | None, now_ms: int) -> None:
        """Store the letters of a message, but for those that are there."""
        headers = dead_letter_headers(message, self._group.group, reason, error, now_ms)
        config = self._group._config
        if config.dead_letter is None:
            self._publish(message, reason, headers, ran_out_ms)
            return
        if cycles(message, config.dead_letter, reason):
            return
        letters = self._broker._dead_letter_queue(config.dead_letter, config, source_topic=message.topic)
        if ran_out_ms is None or not self._is_stored(letters.name, message, ran_out_ms):
            letters._store_letter(message, headers)

    def _publish(self, message: Message, reason: str, headers: Headers, ran_out_ms: int | None) -> None:
        config = self._group._config
        exchange = str(config.dead_letter_exchange)
        if exchange not in self._broker.exchanges():
            raise UnknownExchangeError(f"dead_letter_exchange is {exchange!r}, which does not exist")
        key = config.dead_letter_routing_key
        if key is None:
            key = header(headers, ROUTING_KEY) or message.topic
        kept = [pair for pair in headers if pair[0] not in (ROUTING_KEY, EXCHANGE)]
        kept += [(EXCHANGE, exchange.encode()), (ROUTING_KEY, key.encode("utf-8", "surrogateescape"))]
        for kind, name in self._broker._router().route(exchange, key, dict(kept)):
            if kind == "queue" and cycles(message, name, reason):
                continue
            if ran_out_ms is not None and self._is_stored(name, message, ran_out_ms):
                continue
            if kind == "queue":
                self._broker._opened_queue(name)._store_letter(message, kept)
            else:
                self._broker.topic(name).append(message.value, message.key, kept)

    def _is_stored(self, topic: str, message: Message, since_ms: int) -> bool:
        """Whether a letter of this message was stored in a topic since the message's last lock began."""
        return letter_stored(self._broker, topic, message, self._group.group, since_ms)


def _count(delivery: Delivery, reason: str, messages: int = 1) -> None:
    """Count messages that were taken out of the group's hands."""
    if delivery.counters is not None:
        delivery.counters.add(WORDS[SHARE][_COUNTERS.get(reason, "dead")], messages)


def letter_stored(broker: Broker, topic: str, message: Message, group: str, ran_out_ms: int) -> bool:
    """Whether a dead letter of this message of this group is in a topic, from before `ran_out_ms` by the longest lock
    on."""
    begin = max(0, ran_out_ms - VISIBILITY_MAX_S * 1000)
    for number in range(broker._topic_config(topic).partitions):
        found = broker._log(topic, number).offset_for_timestamp(begin)
        if found is None:
            continue
        place = TopicPartition(topic, number)
        with broker.consumer() as consumer:
            consumer.assign([place])
            consumer.seek(place, found[0])
            while records := consumer.poll(timeout=0):
                if any(same_source(record.headers, message, group) for record in records):
                    return True
    return False
