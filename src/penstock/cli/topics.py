"""`penstock topics`: list, create, describe, alter and delete topics."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

import penstock
from penstock.cli.options import DATA_DEFAULT, Config, Data, Json, existing, parse_config
from penstock.cli.output import bytes_text, print_json, print_table, say

Name = Annotated[str, typer.Argument(metavar="NAME", help="The topic.")]
app = typer.Typer(no_args_is_help=True, help="List, create, describe, alter and delete topics.")


@app.command("list")
def list_topics(data: Data = DATA_DEFAULT, json: Json = False) -> None:
    """The topics, with their partitions, records and size."""
    with penstock.open(existing(data)) as broker:
        documents = [_document(broker.topic(name).describe()) for name in broker.topics()]
    if json:
        print_json([{name: value for name, value in document.items() if name != "config"} for document in documents])
    elif documents:
        rows = [(d["name"], len(d["partitions"]), f"{d['records']:,}", bytes_text(d["size_bytes"])) for d in documents]
        print_table(("TOPIC", "PARTITIONS", "RECORDS", "SIZE"), rows, numbers=(1, 2, 3))
    else:
        say("no topics")


@app.command("create")
def create(
    name: Name,
    data: Data = DATA_DEFAULT,
    partitions: Annotated[int, typer.Option("--partitions", help="Number of partitions.")] = 1,
    config: Config = None,
) -> None:
    """Make a topic."""
    settings = parse_config(config)
    with penstock.open(data) as broker:
        broker.create_topic(name, partitions=partitions, **settings)
    say(f"created topic {name} with {partitions} partition{'s' * (partitions != 1)}")


@app.command("describe")
def describe(name: Name, data: Data = DATA_DEFAULT, json: Json = False) -> None:
    """A topic's partitions, offsets and configuration."""
    with penstock.open(existing(data)) as broker:
        document = _document(broker.topic(name).describe())
    if json:
        print_json(document)
        return
    say(f"{name}: {document['records']:,} records, {bytes_text(document['size_bytes'])}", style="bold")
    columns = ("partition", "log_start_offset", "log_end_offset", "size_bytes", "segments")
    rows = [[f"{entry[column]:,}" for column in columns] for entry in document["partitions"]]
    print_table([column.upper() for column in columns], rows, numbers=range(len(columns)))
    print_table(("CONFIG", "VALUE"), sorted((key, repr(value)) for key, value in document["config"].items()))


@app.command("alter")
def alter(
    name: Name,
    data: Data = DATA_DEFAULT,
    partitions: Annotated[
        int | None, typer.Option("--partitions", help="New number of partitions; it only grows.")
    ] = None,
    config: Config = None,
) -> None:
    """Add partitions to a topic, or change its configuration."""
    settings = parse_config(config)
    if partitions is None and not settings:
        raise typer.BadParameter("give --partitions or --config NAME=VALUE")
    with penstock.open(existing(data)) as broker:
        broker.alter_topic(name, partitions=partitions, **settings)
    say(f"altered topic {name}")


@app.command("delete")
def delete(
    name: Name,
    data: Data = DATA_DEFAULT,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Delete a topic with all its records. Asks first on a terminal."""
    with penstock.open(existing(data)) as broker:
        records = _document(broker.topic(name).describe())["records"]
        if not yes and sys.stdin.isatty():
            typer.confirm(f"Delete topic {name} with {records:,} records?", abort=True)
        broker.delete_topic(name)
    say(f"deleted topic {name} with {records:,} records")


def _document(description: Any) -> dict[str, Any]:
    """A `TopicDescription` as a JSON object with totals."""
    partitions = [
        {
            "partition": entry.partition,
            "log_start_offset": entry.log_start_offset,
            "log_end_offset": entry.log_end_offset,
            "size_bytes": entry.size_bytes,
            "segments": entry.segments,
        }
        for entry in description.partitions
    ]
    return {
        "name": description.name,
        "records": sum(entry["log_end_offset"] - entry["log_start_offset"] for entry in partitions),
        "size_bytes": sum(entry["size_bytes"] for entry in partitions),
        "partitions": partitions,
        "config": dict(description.config),
    }
