"""Penstock itself: a library, one file of a client away."""

from __future__ import annotations

from bench.compare.model import CACHE, Side
from bench.compare.systems.base import Library

CLIENT = "penstock:Penstock"
IN = "in process"


class Penstock(Library):
    """`fsync="never"` (what is stored survives the process), or "always" where the workload says so."""

    name = package = "penstock"
    sides = (
        Side(
            "penstock",
            "Penstock",
            CLIENT,
            "Python",
            IN,
            "send_many of lists, batches of 128 KiB; Record objects by iteration; queue: receive(1000), ack_many",
            CACHE,
        ),
        Side(
            "penstock-values",
            "Penstock, values of batches",
            CLIENT,
            "Python",
            IN,
            "poll_batches, values() as bytes objects",
            CACHE,
            {"read": "values"},
            workloads=("consume", "consume-group", "footprint"),
        ),
        Side(
            "penstock-columns",
            "Penstock, arrays and columns",
            CLIENT,
            "Python",
            IN,
            "send_array of a (n, width) array; poll_batches, value_starts and value_lengths without copies",
            CACHE,
            {"how": "array", "read": "columns"},
            workloads=("produce-100", "produce-1k", "consume", "consume-group", "replay", "footprint"),
        ),
        Side(
            "penstock-send",
            "Penstock, one call a message",
            CLIENT,
            "Python",
            IN,
            "producer.send for each value, buffered for 5 ms",
            CACHE,
            {"how": "send"},
            workloads=("produce-100", "footprint"),
        ),
    )
