"""A queue's configuration: names and limits of SQS and RabbitMQ, checked in one place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from penstock.errors import InvalidConfigError
from penstock.storage.topic_config import GIB, RETENTION_POLICIES, check_topic_name

VISIBILITY_MAX_S = 43_200
DELAY_MAX_S = 10 * 365 * 86_400
OVERFLOWS = ("drop-head", "reject-publish")
SCOPES = ("queue", "messageGroup")

# name: (least, most, whether None is allowed, whether a float is)
_NUMBERS: dict[str, tuple[float, float, bool, bool]] = {
    "visibility_timeout": (0, VISIBILITY_MAX_S, False, True),
    "max_receives": (1, 1000, True, False),
    "max_priority": (0, 255, False, False),
    "delay": (0, DELAY_MAX_S, False, True),
    "message_ttl": (0, DELAY_MAX_S, True, True),
    "max_length": (0, 2**53, True, False),
    "max_length_bytes": (0, 2**53, True, False),
    "max_in_flight": (1, 2**53, True, False),
    "max_message_bytes": (1, GIB, False, False),
    "retention": (60, DELAY_MAX_S, True, True),
    "deduplication_window": (0, 86_400, False, True),
    "expires": (0.001, DELAY_MAX_S, True, True),
    "retry_delay": (0, VISIBILITY_MAX_S, False, True),
    "retry_delay_max": (0, VISIBILITY_MAX_S, False, True),
}
_FLAGS = (
    "fifo", "fair", "content_based_deduplication", "keep_acknowledged", "single_active_consumer", "auto_delete",
    "exclusive", "durable",
)  # fmt: skip
_FIXED = ("fifo", "fair", "max_priority", "exclusive", "durable")
FAIR_LANES = 16


@dataclass(frozen=True, slots=True)
class QueueConfig:
    """Configuration of a queue. Times are seconds."""

    visibility_timeout: float = 30.0
    """How long a received message is kept from other receivers; 0 to 43,200 (SQS)."""
    max_receives: int | None = 5
    """A message that failed (nack, or time-out) so often is dead-lettered; None: tried for ever."""
    dead_letter: str | None = None
    """Queue that dead letters go to. Without one (and without an exchange) they stay here, in the state "dead"."""
    dead_letter_exchange: str | None = None
    """Exchange that dead letters are published to, instead of a queue (RabbitMQ)."""
    dead_letter_routing_key: str | None = None
    """Routing key of dead letters; default: the one they were published with."""
    redrive_allow_policy: str | tuple[str, ...] = "allowAll"
    """Which queues may name this one as their `dead_letter`: "allowAll", "denyAll", or their names (SQS's byQueue)."""
    fifo: bool = False
    """Strict order in each message group (`group_id`): nothing more of a group is given out while one is in flight."""
    fair: bool = False
    """Message groups of a standard queue are spread over 16 lanes that receivers take from in turn, so that a noisy
    group delays at most those that share its lane (SQS's fair queues)."""
    max_priority: int = 0
    """Messages may have a priority of 0 to this (at most 255); higher ones first, in order inside one priority."""
    delay: float = 0.0
    """Messages become visible so long after they were sent, unless `send` says otherwise."""
    message_ttl: float | None = None
    """Messages older than this are never delivered; a message's own `ttl` counts when it is lower."""
    max_length: int | None = None
    """Most ready messages; see `overflow`."""
    max_length_bytes: int | None = None
    """Most bytes of ready messages' bodies; see `overflow`."""
    overflow: str = "drop-head"
    """At a limit: "drop-head" dead-letters the oldest, "reject-publish" refuses the new with `QueueFullError`."""
    max_in_flight: int | None = None
    """Most messages received and not settled: more raise `OverLimitError` (SQS: 120,000)."""
    max_message_bytes: int = 1 << 20
    """Largest message (body + key + headers)."""
    retention: float | None = 345_600.0
    """Messages, settled or not, are deleted after this long (SQS: 4 days); None: never by age."""
    keep_acknowledged: bool = True
    """Whether settled messages can be read and replayed by consumers while retention keeps them; if not, they are
    deleted as soon as everything before them is settled too."""
    retention_policy: str = "limits"
    """NATS's: "limits" (as `retention` says), "work-queue" (messages are also deleted once they and all before them are
    settled; `keep_acknowledged=False` is the same), "interest" (once every share group and consumer group of the
    queue's topic is done with them)."""
    deduplication_window: float = 300.0
    """For how long a `deduplication_id` is remembered."""
    content_based_deduplication: bool = False
    """Messages without a `deduplication_id` get the SHA-256 of their body."""
    deduplication_scope: str = "queue"
    """"queue", or "messageGroup": the same id in another group is another message."""
    single_active_consumer: bool = False
    """Only one consumer at a time receives; when it goes away, the next one takes over."""
    expires: float | None = None
    """The queue is deleted when it was not used for so long."""
    auto_delete: bool = False
    """The queue is deleted when its last consumer (`consume`, iteration) goes away."""
    exclusive: bool = False
    """Only the broker that declares the queue may use it (others may publish to it by an exchange), and it is deleted
    when that broker is closed or its process dies."""
    durable: bool = True
    """If not, the queue is deleted when the directory is opened after nobody had it open (a restart)."""
    retry_delay: float = 0.0
    """A failed message comes back after this times its failures, at most `retry_delay_max` (KIP-932's delayed
    retry)."""
    retry_delay_max: float = 600.0
    """Most of `retry_delay` times failures."""

    @property
    def partitions(self) -> int:
        """Partitions of its topic: one for each priority, or lane."""
        return FAIR_LANES if self.fair else self.max_priority + 1

    @property
    def needs_upkeep(self) -> bool:
        """Whether maintenance has something to do, also for a queue that its process does not use."""
        lives_forever = self.expires is None and self.message_ttl is None
        return self.auto_delete or self.effective_retention_policy != "limits" or not lives_forever

    @property
    def effective_retention_policy(self) -> str:
        """`retention_policy`, and what `keep_acknowledged` means for it."""
        return (
            "work-queue" if not self.keep_acknowledged and self.retention_policy == "limits" else self.retention_policy
        )

    def altered(self, changes: Mapping[str, Any]) -> QueueConfig:
        """This configuration with `changes`. Raises `InvalidConfigError` naming what was given and what is allowed."""
        known = {field.name for field in fields(QueueConfig)}
        for name, value in changes.items():
            if name not in known:
                raise InvalidConfigError(f"unknown queue option {name!r}; known are {', '.join(sorted(known))}")
            _check(name, value)
        new = replace(self, **_tuples(changes))
        if new.dead_letter is not None and new.dead_letter_exchange is not None:
            raise InvalidConfigError(
                f"dead_letter is {new.dead_letter!r} and dead_letter_exchange is {new.dead_letter_exchange!r}; give one"
            )
        if new.fair and (new.fifo or new.max_priority):
            raise InvalidConfigError("fair is True; a fair queue is neither fifo nor has priorities")
        if new.fifo and new.max_priority:
            raise InvalidConfigError(
                "fifo is True and max_priority is not 0: the order of a fifo queue is that of its groups"
            )
        return new

    def check_change(self, name: str, changes: Mapping[str, Any]) -> None:
        """Refuse (`InvalidConfigError`) to change what a queue is for its whole life."""
        for key in _FIXED:
            if key in changes and changes[key] != getattr(self, key):
                raise InvalidConfigError(
                    f"{key} is {changes[key]!r}; queue {name!r} was made with {getattr(self, key)!r}, which stays"
                )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for storing and showing."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> QueueConfig:
        """What `to_dict` gave."""
        return cls(**_tuples(values))


def _tuples(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}


def _check(name: str, value: Any) -> None:
    if name in _NUMBERS:
        least, most, none, fraction = _NUMBERS[name]
        kind = (int, float) if fraction else int
        if none and value is None:
            return
        if isinstance(value, bool) or not isinstance(value, kind) or not least <= value <= most:
            what = "a number" if fraction else "an int"
            raise InvalidConfigError(
                f"{name} is {value!r}; allowed is {what} from {least} to {most}{' or None' if none else ''}"
            )
    elif name in _FLAGS:
        if not isinstance(value, bool):
            raise InvalidConfigError(f"{name} is {value!r}; allowed is True or False")
    elif name in ("dead_letter", "dead_letter_exchange"):
        if value is not None:
            check_topic_name(value)
    elif name == "dead_letter_routing_key":
        if value is not None and not isinstance(value, str):
            raise InvalidConfigError(f"{name} is {value!r}; allowed is a str or None")
    elif name == "overflow":
        _choice(name, value, OVERFLOWS)
    elif name == "retention_policy":
        _choice(name, value, RETENTION_POLICIES)
    elif name == "deduplication_scope":
        _choice(name, value, SCOPES)
    elif name == "redrive_allow_policy":
        if isinstance(value, (list, tuple)):
            for item in value:
                check_topic_name(item)
        else:
            _choice(name, value, ("allowAll", "denyAll"))


def _choice(name: str, value: Any, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise InvalidConfigError(f"{name} is {value!r}; allowed are {', '.join(map(repr, allowed))}")
