"""`penstock queues`: list, create, watch, send to, receive from, look into, empty and redrive queues."""

from __future__ import annotations

import base64
import dataclasses
import sys
import time
from typing import Annotated, Any

import typer

import penstock
from penstock.cli.exchanges import pair_of
from penstock.cli.options import DATA_DEFAULT, Data, Json, existing
from penstock.cli.output import print_json, print_table, say

Name = Annotated[str, typer.Argument(metavar="QUEUE", help="The queue.")]
Count = Annotated[int, typer.Option("--max", "-n", min=1, help="At most so many messages.")]
app = typer.Typer(no_args_is_help=True, help="List, create, use, look into, empty and redrive queues.")


@app.command("list")
def list_queues(data: Data = DATA_DEFAULT, json: Json = False) -> None:
    """The queues, and how many messages are in which state."""
    with penstock.open(existing(data)) as broker:
        found = [broker.queue(name).stats() for name in broker.queues()]
    if json:
        print_json([dataclasses.asdict(stats) for stats in found])
    elif found:
        _print_stats(found)
    else:
        say("no queues")


@app.command("stats")
def stats(
    name: Name,
    data: Data = DATA_DEFAULT,
    json: Json = False,
    seconds: Annotated[
        float, typer.Option("--rates", metavar="SECONDS", min=0, max=3600, help="Measure rates for so long.")
    ] = 0.0,
) -> None:
    """One queue's counts, rates and configuration."""
    with penstock.open(existing(data)) as broker:
        queue = _open(broker, name)
        found, config = queue.stats(), queue.config.to_dict()
        if seconds:
            time.sleep(seconds)
            found = queue.stats()
    if json:
        print_json({**dataclasses.asdict(found), "config": config})
        return
    _print_stats([found])
    if seconds:
        rates = (found.sent_per_s, found.received_per_s, found.acknowledged_per_s)
        print_table(
            ("SENT/S", "RECEIVED/S", "ACKNOWLEDGED/S"), [tuple(f"{one:,.1f}" for one in rates)], numbers=(0, 1, 2)
        )
    print_table(("OPTION", "VALUE"), sorted(config.items()))


@app.command("create")
def create(
    name: Name,
    data: Data = DATA_DEFAULT,
    option: Annotated[
        list[str] | None,
        typer.Option("--option", "-o", metavar="NAME=VALUE", help="An option of QueueConfig; repeatable."),
    ] = None,
) -> None:
    """Make a queue, or change one: -o visibility_timeout=60 -o fifo=true -o dead_letter=emails-dead."""
    with penstock.open(data) as broker:
        broker.queue(name, **dict(_parse_option(text) for text in option or []))
    say(f"queue {name} is there")


@app.command("send")
def send(
    name: Name,
    body: Annotated[str | None, typer.Argument(metavar="BODY", help="The body; default: each line of stdin.")] = None,
    data: Data = DATA_DEFAULT,
    delay: Annotated[float | None, typer.Option("--delay", min=0, help="Seconds until it is visible.")] = None,
    priority: Annotated[int, typer.Option("--priority", min=0, max=255)] = 0,
    group_id: Annotated[str | None, typer.Option("--group-id", help="Its message group.")] = None,
    deduplication_id: Annotated[str | None, typer.Option("--deduplication-id")] = None,
    ttl: Annotated[float | None, typer.Option("--ttl", min=0, help="Seconds after which it is not delivered.")] = None,
    header: Annotated[list[str] | None, typer.Option("--header", metavar="NAME=VALUE", help="Repeatable.")] = None,
) -> None:
    """Send a message, or one for each line of stdin."""
    options: dict[str, Any] = {
        "delay": delay, "priority": priority, "group_id": group_id, "deduplication_id": deduplication_id, "ttl": ttl,
        "headers": [(one, value.encode()) for one, value in map(pair_of, header or [])],
    }  # fmt: skip
    bodies = [body.encode()] if body is not None else [line.rstrip(b"\n") for line in sys.stdin.buffer]
    with penstock.open(existing(data)) as broker:
        queue = _open(broker, name)
        names = [queue.send(one, **options) for one in bodies]
    say(names[0] if len(names) == 1 else f"sent {len(names):,} messages")


@app.command("receive")
def receive(
    name: Name,
    data: Data = DATA_DEFAULT,
    max_messages: Count = 1,
    wait: Annotated[float, typer.Option("--wait", min=0, help="Seconds to wait for the first one.")] = 0.0,
    keep: Annotated[bool, typer.Option("--keep", help="Do not acknowledge: they come back at the time-out.")] = False,
    json: Json = False,
) -> None:
    """Receive messages, print them, and acknowledge what was printed."""
    with penstock.open(existing(data)) as broker:
        queue = _open(broker, name)
        messages = queue.receive(max_messages, wait=wait)
        _print_messages(messages, json)
        sys.stdout.flush()
        if not keep:
            queue.ack_many(messages)


@app.command("peek")
def peek(
    name: Name,
    data: Data = DATA_DEFAULT,
    state: Annotated[str, typer.Option("--state", help="ready, in_flight, delayed or dead.")] = "ready",
    max_messages: Count = 10,
    contains: Annotated[str | None, typer.Option("--contains", help="Only bodies that contain this text.")] = None,
    json: Json = False,
) -> None:
    """Look at messages without receiving them."""
    with penstock.open(existing(data)) as broker:
        _print_messages(_open(broker, name).peek(state, max_messages, _filter(contains)), json)


@app.command("purge")
def purge(
    name: Name,
    data: Data = DATA_DEFAULT,
    dead: Annotated[bool, typer.Option("--dead", help="The dead messages instead of the ready and delayed.")] = False,
) -> None:
    """Drop every ready and delayed message."""
    with penstock.open(existing(data)) as broker:
        dropped = _open(broker, name).purge("dead" if dead else "unsettled")
    say(f"dropped {dropped:,} messages")


@app.command("redrive")
def redrive(
    name: Name,
    data: Data = DATA_DEFAULT,
    to: Annotated[str | None, typer.Option("--to", metavar="QUEUE", help="Default: where they came from.")] = None,
    contains: Annotated[str | None, typer.Option("--contains", help="Only bodies that contain this text.")] = None,
    max_messages: Annotated[int | None, typer.Option("--max", "-n", min=1, help="At most so many.")] = None,
    rate: Annotated[float | None, typer.Option("--rate", help="Messages per second.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be moved.")] = False,
    json: Json = False,
) -> None:
    """Give dead messages another try."""
    with penstock.open(existing(data)) as broker:
        report = _open(broker, name).redrive(_filter(contains), None, to, max_messages, rate, dry_run)
    if json:
        print_json(dataclasses.asdict(report))
    else:
        would = "would move" if dry_run else "moved"
        say(f"{would} {report.moved:,} messages, left {report.skipped:,}")


@app.command("delete")
def delete(name: Name, data: Data = DATA_DEFAULT) -> None:
    """Delete a queue with its messages."""
    with penstock.open(existing(data)) as broker:
        broker.delete_queue(name)
    say(f"deleted queue {name}")


def _open(broker: penstock.Broker, name: str) -> penstock.Queue:
    if name not in broker.queues():
        raise penstock.UnknownQueueError(f"queue {name!r} does not exist")
    return broker.queue(name)


def _parse_option(text: str) -> tuple[str, Any]:
    name, value = pair_of(text)
    named: dict[str, Any] = {"true": True, "false": False, "none": None}
    if value.lower() in named:
        return name, named[value.lower()]
    if name == "redrive_allow_policy" and value not in ("allowAll", "denyAll"):
        return name, value.split(",")
    for kind in (int, float):
        try:
            return name, kind(value)
        except ValueError:
            continue
    return name, value


def _filter(contains: str | None) -> Any:
    if contains is None:
        return None
    wanted = contains.encode()
    return lambda message: wanted in (message.value or b"")


def _print_stats(found: list[penstock.QueueStats]) -> None:
    print_table(
        ("QUEUE", "READY", "IN FLIGHT", "DELAYED", "DEAD", "OLDEST", "SENT", "ACKNOWLEDGED"),
        [
            (
                one.name,
                *(f"{count:,}" for count in (one.ready, one.in_flight, one.delayed, one.dead)),
                f"{one.age_of_oldest_s:,.1f} s",
                f"{one.sent:,}",
                f"{one.acknowledged:,}",
            )
            for one in found
        ],
        numbers=(1, 2, 3, 4, 5, 6, 7),
    )


def _print_messages(messages: list[penstock.Message], json: bool) -> None:
    if not json:
        for message in messages:
            sys.stdout.write((message.value or b"").decode("utf-8", "backslashreplace") + "\n")
        return
    print_json(
        [
            {
                "id": message.id,
                "body": _text(message.value),
                "headers": [[name, None if value is None else _text(value)] for name, value in message.headers],
                "timestamp_ms": message.timestamp_ms,
                "delivery_count": message.delivery_count,
                "group_id": message.group_id,
                "priority": message.priority,
                "receipt_handle": message.receipt_handle,
            }
            for message in messages
        ]
    )


def _text(value: bytes) -> Any:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(value).decode()}
