"""Opening the partitions of a topic for writing."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from penstock._native.lane import TopicLanes
from penstock.storage import compression

if TYPE_CHECKING:
    from penstock.streams.broker import Broker


def open_lanes(broker: Broker, name: str, codec: int | None) -> TopicLanes:
    """The lanes of a topic. `codec`: the producer's choice, which holds unless the topic names a codec of its own."""
    config = broker._topic_config(name)
    if config.compression_type != "producer":
        codec = compression.codec_id(config.compression_type)
        compression.require(codec)
    logs = [broker._log(name, number) for number in range(config.partitions)]
    return TopicLanes(name, config, logs, codec or 0, random.getrandbits(63))
