"""`penstock compact`: compact a topic now."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import typer

import penstock
from penstock.cli.options import DATA_DEFAULT, Data, Json, existing
from penstock.cli.output import bytes_text, print_json, print_table, say


def compact(
    topic: Annotated[str, typer.Argument(metavar="TOPIC", help="The topic; its cleanup_policy has compact in it.")],
    data: Data = DATA_DEFAULT,
    partition: Annotated[int | None, typer.Option("--partition", min=0, help="Only this partition.")] = None,
    json: Json = False,
) -> None:
    """Keep only the newest record of each key of TOPIC. Offsets never change."""
    with penstock.open(existing(data)) as broker:
        done = broker.compact(topic, partition)
    if json:
        print_json([{"partition": place.partition, **dataclasses.asdict(found)} for place, found in done.items()])
    elif done:
        print_table(
            ("PARTITION", "KEPT", "REMOVED", "BEFORE", "AFTER"),
            [
                (place.partition, f"{found.records_kept:,}", f"{found.records_removed:,}",
                 bytes_text(found.bytes_before), bytes_text(found.bytes_after))
                for place, found in done.items()
            ],
            numbers=range(5),
        )  # fmt: skip
    else:
        say("nothing to compact")
