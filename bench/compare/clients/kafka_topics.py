"""Making and removing topics of a Kafka cluster, for clients that leave that to others."""

from __future__ import annotations

from typing import Any

TIMEOUT_S = 30.0


class Topics:
    """By confluent-kafka's admin client."""

    def __init__(self, bootstrap: str) -> None:
        from confluent_kafka.admin import AdminClient

        self._admin: Any = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})

    def create(self, topic: str, partitions: int, lz4: bool) -> None:
        """And wait until it is there. Raises what the broker says."""
        from confluent_kafka.admin import NewTopic

        config = {"compression.type": "lz4"} if lz4 else {}
        made = self._admin.create_topics([NewTopic(topic, partitions, 1, config=config)], operation_timeout=TIMEOUT_S)
        made[topic].result(TIMEOUT_S)

    def drop(self, topic: str) -> None:
        """And wait until it is gone."""
        self._admin.delete_topics([topic], operation_timeout=TIMEOUT_S)[topic].result(TIMEOUT_S)

    def share_from_beginning(self, group: str) -> None:
        """Let a share group begin with the oldest record; the default is what comes next."""
        from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

        entry = ConfigEntry("share.auto.offset.reset", "earliest", incremental_operation=AlterConfigOpType.SET)
        resource = ConfigResource(ResourceType.GROUP, group, incremental_configs=[entry])
        self._admin.incremental_alter_configs([resource])[resource].result(TIMEOUT_S)
