"""The screens that `penstock top` opens over its tables: details, messages, help."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, ClassVar

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Label, Static

import penstock
from penstock.cli.output import shown, time_text
from penstock.cli.top_rows import count, duration, queues_of
from penstock.errors import PenstockError
from penstock.metrics import Histogram, Metrics
from penstock.observe.peek import newest_records

STATES = ("ready", "in_flight", "delayed", "dead")
PEEKED = 20
_WIDEST = 160
KEYS = (
    ("1 2 3, tab", "topics, groups, queues"),
    ("up, down", "choose a row"),
    ("enter", "details of it: partitions, latencies"),
    ("m", "look at its messages, without taking them"),
    ("s, S", "sort by the next, the previous column"),
    ("r", "turn the order round"),
    ("/", "show only names that contain a text; escape ends it"),
    ("space", "hold everything as it is; again: go on"),
    ("q", "end"),
)


class Panel(ModalScreen[None]):
    """A box of text that escape closes."""

    BINDINGS: ClassVar[list[BindingType]] = [("escape,q", "dismiss", "Close")]

    def __init__(self, title: str, content: Callable[[], RenderableType]) -> None:
        super().__init__()
        self._title, self._content = title, content

    def compose(self) -> ComposeResult:
        """A title over what scrolls."""
        with VerticalScroll(id="panel"):
            yield Label(self._title, id="panel-title")
            yield Static(self._content(), id="panel-body")


def _grid(columns: Iterable[str], numbers: Iterable[int] = ()) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold dim", padding=(0, 2, 0, 0))
    right = set(numbers)
    for place, column in enumerate(columns):
        table.add_column(column, justify="right" if place in right else "left", no_wrap=True)
    return table


class Help(Panel):
    """The keys."""

    def __init__(self) -> None:
        super().__init__("Keys", self.content)

    def content(self) -> Table:
        """Keys and what they do."""
        table = _grid(("KEY", "WHAT IT DOES"))
        for key, what in KEYS:
            table.add_row(Text(key, style="bold"), what)
        return table


class Details(Panel):
    """A topic's partitions, a group's partitions, or a queue's counters; with latencies."""

    def __init__(self, kind: str, key: str, metrics: Metrics) -> None:
        super().__init__(f"{kind[:-1]} {key}", self.content)
        self._kind, self._key, self._metrics = kind, key, metrics

    def content(self) -> Table:
        """What belongs to the row."""
        outer = Table.grid(padding=(1, 0))
        for part in {"Topics": self._topic, "Groups": self._group, "Queues": self._queue}[self._kind]():
            outer.add_row(part)
        return outer

    def _topic(self) -> Iterable[Table]:
        topic = self._metrics.topics[self._key]
        yield _latencies(append=topic.append_latency, poll=topic.poll_latency, fsync=topic.fsync_latency)
        columns = ("PARTITION", "START", "END", "RECORDS", "BYTES", "APPENDED", "READ", "BATCHES", "FSYNCS", "ERRORS")
        table = _grid(columns, range(1, 10))
        for one in topic.partitions:
            records = one.log_end_offset - one.log_start_offset
            numbers = (
                one.log_start_offset, one.log_end_offset, records, one.size_bytes, one.records_appended,
                one.records_read, one.batches_appended, one.syncs, one.failed,
            )  # fmt: skip
            table.add_row(str(one.partition), *(f"{number:,}" for number in numbers))
        yield table

    def _group(self) -> Iterable[Table]:
        table = _grid(("TOPIC", "PARTITION", "COMMITTED", "END", "LAG", "BEHIND", "MEMBER"), range(1, 6))
        for one in sorted(self._metrics.groups[self._key].partitions, key=lambda row: -row.lag):
            committed = "-" if one.committed is None else f"{one.committed:,}"
            behind = "?" if one.lag_s is None else duration(one.lag_s) if one.lag else "·"
            table.add_row(
                one.topic, str(one.partition), committed, f"{one.log_end_offset:,}",
                Text(f"{one.lag:,}", style="yellow" if one.lag else "dim"), behind, one.member_id or "-",
            )  # fmt: skip
        yield table

    def _queue(self) -> Iterable[Table]:
        queue = queues_of(self._metrics)[self._key]
        yield _latencies(wait=queue.wait, work=queue.processing)
        table = _grid(("COUNTED SO FAR", "MESSAGES"), (1,))
        names = (
            "sent", "received", "redelivered", "acknowledged", "nacked", "released", "timed_out", "dead_lettered",
            "expired", "dropped", "extended", "stale",
        )  # fmt: skip
        for name in names:
            value = getattr(queue, name)
            table.add_row(name.replace("_", " "), Text(f"{value:,}", style="" if value else "dim"))
        yield table


def _latencies(**histograms: Histogram) -> Table:
    table = _grid(("LATENCY", "COUNT", "MEAN", "p50", "p90", "p99", "p99.9", "MAX"), range(1, 8))
    for name, found in histograms.items():
        if found.count:
            values = (found.mean, *(found.percentile(percent) for percent in (50, 90, 99, 99.9)), found.maximum)
            table.add_row(name, count(found.count), *(duration(value) for value in values))
        else:
            table.add_row(name, *(Text("·", style="dim") for _ in range(7)))
    return table


class Messages(Panel):
    """The newest records of a topic, or the messages of a queue in one state; nothing is taken."""

    BINDINGS: ClassVar[list[BindingType]] = [
        ("left", "state(-1)", "Earlier state"),
        ("right", "state(1)", "Next state"),
    ]

    def __init__(self, broker: penstock.Broker, key: str, is_queue: bool) -> None:
        super().__init__(f"Messages of {key}", self.content)
        self._broker, self._key, self._is_queue = broker, key, is_queue
        self.state = STATES[0]

    def action_state(self, step: int) -> None:
        """Show another state of a queue's messages."""
        if self._is_queue:
            self.state = STATES[(STATES.index(self.state) + step) % len(STATES)]
            self.query_one("#panel-body", Static).update(self.content())

    def content(self) -> RenderableType:
        """A line for each."""
        try:
            if self._is_queue and self._key not in self._broker.queues():  # `queue` would make it again
                raise penstock.UnknownQueueError(f"queue {self._key!r} does not exist any more")
            if self._is_queue:
                found: list[Any] = list(self._broker.queue(self._key).peek(self.state, PEEKED))
            else:
                found = list(newest_records(self._broker, self._key, PEEKED))
        except PenstockError as error:
            return Text(str(error), style="bold red")
        outer = Table.grid(padding=(1, 0))
        if self._is_queue:
            states = [
                Text(state.replace("_", " "), style="reverse" if state == self.state else "dim") for state in STATES
            ]
            outer.add_row(Text("  ").join([*states, Text("(left, right)", style="dim")]))
        outer.add_row(self._lines(found) if found else Text("none", style="dim"))
        return outer

    def _lines(self, found: list[Any]) -> Table:
        table = _grid(("ID", "TIME", "KEY", "TRIES" if self._is_queue else "", "BODY"))
        for one in found:
            identity = one.id if self._is_queue else f"{one.topic}-{one.partition}-{one.offset}"
            body = shown(one.value)
            table.add_row(
                Text(identity, style="bold"), Text(time_text(one.timestamp_ms), style="dim"),
                "" if one.key is None else shown(one.key), str(one.delivery_count) if self._is_queue else "",
                body if len(body) <= _WIDEST else f"{body[:_WIDEST]}…",
            )  # fmt: skip
        return table
