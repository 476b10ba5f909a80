"""`penstock groups`: list, describe, reset and delete consumer groups."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

import penstock
from penstock.cli.options import DATA_DEFAULT, Data, Json, existing, parse_start
from penstock.cli.output import print_json, print_table, say

Name = Annotated[str, typer.Argument(metavar="GROUP", help="The consumer group.")]
app = typer.Typer(no_args_is_help=True, help="List, describe, reset and delete consumer groups.")


@app.command("list")
def list_groups(data: Data = DATA_DEFAULT, json: Json = False) -> None:
    """The groups, with their members and lag."""
    with penstock.open(existing(data)) as broker:
        found = [broker.describe_group(name) for name in broker.groups()]
    rows = [(group.name, group.state, len(group.members), group.lag) for group in found]
    if json:
        print_json([dict(zip(("name", "state", "members", "lag"), row, strict=True)) for row in rows])
    elif rows:
        print_table(("GROUP", "STATE", "MEMBERS", "LAG"), [(*row[:3], f"{row[3]:,}") for row in rows], numbers=(2, 3))
    else:
        say("no groups")


@app.command("describe")
def describe(name: Name, data: Data = DATA_DEFAULT, json: Json = False) -> None:
    """A group's members, and for each partition its offsets, its lag and who reads it."""
    with penstock.open(existing(data)) as broker:
        found = broker.describe_group(name)
    if json:
        print_json({**dataclasses.asdict(found), "lag": found.lag})
        return
    say(f"{name}: {found.state}, generation {found.generation}, lag {found.lag:,}", style="bold")
    print_table(
        ("TOPIC", "PARTITION", "COMMITTED", "LOG END", "LAG", "LAG SECONDS", "MEMBER"),
        [
            (
                entry.topic,
                entry.partition,
                "-" if entry.committed is None else f"{entry.committed:,}",
                f"{entry.log_end_offset:,}",
                f"{entry.lag:,}",
                f"{entry.lag_ms / 1000:,.1f}",
                entry.member_id or "-",
            )
            for entry in found.partitions
        ],
        numbers=(1, 2, 3, 4, 5),
    )
    if found.members:
        print_table(
            ("MEMBER", "CLIENT", "INSTANCE", "PID", "PARTITIONS"),
            [
                (member.member_id, member.client_id, member.group_instance_id or "-", member.pid or "-",
                 " ".join(map(str, member.partitions)) or "-")
                for member in found.members
            ],
            numbers=(3,),
        )  # fmt: skip


@app.command("reset")
def reset(
    name: Name,
    topic: Annotated[str, typer.Option("--topic", metavar="TOPIC", help="The topic.")],
    data: Data = DATA_DEFAULT,
    to: Annotated[
        str | None,
        typer.Option(
            "--to",
            metavar="WHERE",
            help="earliest, latest, OFFSET, @MILLISECONDS, a time (ISO 8601) or by_duration:PT1H.",
        ),
    ] = None,
    shift_by: Annotated[
        int | None, typer.Option("--shift-by", metavar="N", help="So many records on, or back when negative.")
    ] = None,
    partition: Annotated[list[int] | None, typer.Option("--partition", min=0, help="Only these; repeatable.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be set.")] = False,
    json: Json = False,
) -> None:
    """Set where a group goes on in a topic. The group may be reading."""
    if (to is None) == (shift_by is None):
        raise typer.BadParameter("give one of --to and --shift-by")
    with penstock.open(existing(data)) as broker:
        offsets = broker.reset_offsets(
            name, topic, None if to is None else _target(to), shift_by=shift_by, partitions=partition, dry_run=dry_run
        )
    if json:
        print_json([{"topic": p.topic, "partition": p.partition, "offset": offset} for p, offset in offsets.items()])
        return
    print_table(("TOPIC", "PARTITION", "OFFSET"), [(*place, f"{o:,}") for place, o in offsets.items()], numbers=(1, 2))
    say("nothing was changed (--dry-run)" if dry_run else f"group {name} goes on there")


@app.command("delete")
def delete(name: Name, data: Data = DATA_DEFAULT) -> None:
    """Delete a group without members, with its offsets."""
    with penstock.open(existing(data)) as broker:
        broker.delete_group(name)
    say(f"deleted group {name}")


def _target(text: str) -> Any:
    if text.startswith("by_duration:"):
        return text
    start = parse_start(text)
    if start.kind == "timestamp":
        return datetime.fromtimestamp(start.value / 1000, UTC)
    return start.value if start.kind == "offset" else start.kind
