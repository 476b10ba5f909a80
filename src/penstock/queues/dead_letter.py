"""What a dead letter carries: where it came from, why, and RabbitMQ's `x-death` history.

Headers (text, UTF-8): `dead-letter-topic`, `-partition`, `-offset`, `-group`, `-delivery-count`, `-reason`, and
`-error` when there is one (as KIP-1191 asks for); `x-death`, JSON, a list of {queue, reason, count, exchange,
routing-keys, time}, newest first, one entry for each queue and reason; `x-first-death-queue`, `-reason`, `-exchange`,
which never change.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from penstock._native.delivery_states import DELIVERY_LIMIT, EXPIRED, MAXLEN, REJECTED
from penstock._native.message import Message

Headers = list[tuple[str, bytes | None]]
PREFIX = "dead-letter-"
ROUTING_KEY = "x-routing-key"
EXCHANGE = "x-exchange"
REASONS = {"delivery_limit": DELIVERY_LIMIT, "rejected": REJECTED, "expired": EXPIRED, "maxlen": MAXLEN}
HEADERS_BYTES_MAX = 128 << 10
"""Room for them: queues of dead letters that are made by themselves take so much more than what the letters are of."""
_NAMES = {code: name for name, code in REASONS.items()}


def reason_of(code: int) -> str:
    """The name of a reason; an unknown one is the limit of deliveries."""
    return _NAMES.get(code, "delivery_limit")


def header(headers: Iterable[tuple[str, bytes | None]], name: str) -> str | None:
    """The text of a header, or None."""
    for key, value in headers:
        if key == name:
            return None if value is None else value.decode("utf-8", "replace")
    return None


def deaths(headers: Iterable[tuple[str, bytes | None]]) -> list[dict[str, Any]]:
    """The `x-death` history, newest first; [] when there is none (or somebody else's that is not JSON)."""
    raw = header(headers, "x-death")
    try:
        found = json.loads(raw) if raw else []
    except ValueError:
        return []
    return found if isinstance(found, list) and all(isinstance(entry, dict) for entry in found) else []


def cycles(message: Message, queue: str, reason: str) -> bool:
    """Whether sending the message to `queue` closes a circle in which nobody rejected it: such a letter is dropped."""
    if reason == "rejected" or queue == message.topic:
        return queue == message.topic and reason != "rejected"
    seen = deaths(message.all_headers)
    for number, entry in enumerate(seen):
        if entry.get("queue") == queue:
            return all(between.get("reason") != "rejected" for between in seen[: number + 1])
    return False


def dead_letter_headers(message: Message, group: str, reason: str, error: str | None, now_ms: int) -> Headers:
    """The headers of the dead letter that a message becomes."""
    kept: Headers = [
        (name, value) for name, value in message.headers if not name.startswith(PREFIX) and name != "x-death"
    ]
    found = [
        ("topic", message.topic),
        ("partition", str(message.partition)),
        ("offset", str(message.offset)),
        ("group", group),
        ("delivery-count", str(message.delivery_count)),
        ("reason", reason),
    ]
    if error:
        found.append(("error", error))
    exchange, routing_key = header(kept, EXCHANGE) or "", header(kept, ROUTING_KEY) or message.topic
    history = deaths(message.all_headers)
    entry = next((one for one in history if one.get("queue") == message.topic and one.get("reason") == reason), None)
    if entry is None:
        entry = {
            "queue": message.topic, "reason": reason, "count": 0, "exchange": exchange,
            "routing-keys": [routing_key], "time": now_ms // 1000,
        }  # fmt: skip
    else:
        history.remove(entry)
    count = entry.get("count", 0)
    entry["count"] = (count if isinstance(count, int) else 0) + 1
    kept += [(PREFIX + name, text.encode("utf-8", "backslashreplace")) for name, text in found]
    kept.append(("x-death", json.dumps([entry, *history]).encode()))
    if header(kept, "x-first-death-queue") is None:
        kept += [
            ("x-first-death-queue", message.topic.encode()),
            ("x-first-death-reason", reason.encode()),
            ("x-first-death-exchange", exchange.encode()),
        ]
    return kept


def source_of(headers: Iterable[tuple[str, bytes | None]]) -> str | None:
    """The topic a dead letter came from."""
    return header(headers, PREFIX + "topic")


def same_source(headers: Iterable[tuple[str, bytes | None]], message: Message, group: str) -> bool:
    """Whether a dead letter was made of this message of this group."""
    found = list(headers)
    return (
        source_of(found) == message.topic
        and header(found, PREFIX + "partition") == str(message.partition)
        and header(found, PREFIX + "offset") == str(message.offset)
        and header(found, PREFIX + "group") == group
    )


def without_death(headers: Headers) -> Headers:
    """The headers of a message that goes back to where it came from."""
    return [(name, value) for name, value in headers if not name.startswith(PREFIX)]
