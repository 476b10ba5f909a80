"""What a log record tells of a message beside its text: the `extra` of the `penstock.*` loggers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from penstock._native.message import Message


def message_fields(message: Message, group: str, **more: Any) -> dict[str, Any]:
    """`message_id topic partition offset group delivery_count trace_id` (None without a trace), and `more`."""
    trace_id = None
    for name, value in message.all_headers:
        if name == "traceparent" and value is not None and value.count(b"-") == 3:
            trace_id = value.split(b"-")[1].decode("ascii", "replace")
    return {
        "message_id": message.id,
        "topic": message.topic,
        "partition": message.partition,
        "offset": message.offset,
        "group": group,
        "delivery_count": message.delivery_count,
        "trace_id": trace_id,
        **more,
    }
