"""`penstock transactions`: list transactional producers, abort a transaction that hangs."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import typer

import penstock
from penstock.cli.options import DATA_DEFAULT, Data, Json, existing
from penstock.cli.output import print_json, print_table, say

app = typer.Typer(no_args_is_help=True, help="List transactions, and abort one that hangs.")


@app.command("list")
def list_transactions(data: Data = DATA_DEFAULT, json: Json = False) -> None:
    """The transactional producers, and what their open transactions touch."""
    with penstock.open(existing(data)) as broker:
        found = broker.transactions()
    if json:
        print_json([dataclasses.asdict(entry) for entry in found])
    elif found:
        print_table(
            ("TRANSACTIONAL ID", "PRODUCER ID", "EPOCH", "STATE", "SECONDS", "PARTITIONS"),
            [
                (entry.transactional_id, entry.producer_id, entry.epoch, entry.state, f"{entry.age_ms / 1000:,.1f}",
                 " ".join(map(str, entry.partitions)) or "-")
                for entry in found
            ],
            numbers=(1, 2, 4),
        )  # fmt: skip
    else:
        say("no transactional producers")


@app.command("abort")
def abort(
    transactional_id: Annotated[str, typer.Argument(metavar="ID", help="The transactional id.")],
    data: Data = DATA_DEFAULT,
) -> None:
    """Abort the open transaction of ID, and fence its producer. What is decided already is carried out instead."""
    with penstock.open(existing(data)) as broker:
        done = broker.abort_transaction(transactional_id)
    say(f"the transaction of {transactional_id} is over" if done else f"no transaction of {transactional_id} is open")
