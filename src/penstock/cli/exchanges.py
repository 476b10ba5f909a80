"""`penstock exchanges`: list, create, bind, unbind, delete, and publish."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import typer

import penstock
from penstock.cli.options import DATA_DEFAULT, Data, Json, existing
from penstock.cli.output import print_json, print_table, say

Name = Annotated[str, typer.Argument(metavar="EXCHANGE", help="The exchange.")]
Key = Annotated[str, typer.Option("--key", "-k", metavar="KEY", help="The routing key.")]
Arguments = Annotated[
    list[str] | None, typer.Option("--argument", "-a", metavar="NAME=VALUE", help="For headers exchanges; repeatable.")
]
app = typer.Typer(no_args_is_help=True, help="List, create, bind exchanges, and publish to them.")


@app.command("list")
def list_exchanges(data: Data = DATA_DEFAULT, json: Json = False) -> None:
    """The exchanges and their bindings."""
    with penstock.open(existing(data)) as broker:
        found = {name: (kind, broker.exchange(name).bindings()) for name, kind in broker.exchanges().items()}
    if json:
        print_json(
            [
                {"name": name, "type": kind, "bindings": [dataclasses.asdict(binding) for binding in bindings]}
                for name, (kind, bindings) in found.items()
            ]
        )
        return
    rows: list[tuple[str, ...]] = []
    for name, (kind, bindings) in found.items():
        rows.append((name, kind, "", "", ""))
        rows += [("", "", f"{one.kind} {one.target}", one.routing_key, _shown(dict(one.arguments))) for one in bindings]
    if rows:
        print_table(("EXCHANGE", "TYPE", "TO", "KEY", "ARGUMENTS"), rows)
    else:
        say("no exchanges")


@app.command("create")
def create(
    name: Name,
    kind: Annotated[str, typer.Option("--type", help="direct, fanout, topic, headers or consistent-hash.")] = "direct",
    alternate: Annotated[str | None, typer.Option("--alternate", help="Exchange for what matches nothing.")] = None,
    data: Data = DATA_DEFAULT,
) -> None:
    """Make an exchange."""
    with penstock.open(data) as broker:
        broker.exchange(name, type=kind, alternate=alternate)
    say(f"exchange {name} is there")


@app.command("bind")
def bind(
    name: Name,
    target: Annotated[str, typer.Argument(metavar="QUEUE", help="A queue (or, with --exchange, an exchange).")],
    key: Key = "",
    argument: Arguments = None,
    exchange: Annotated[bool, typer.Option("--exchange", help="The target is an exchange.")] = False,
    topic: Annotated[bool, typer.Option("--topic", help="The target is a topic.")] = False,
    remove: Annotated[bool, typer.Option("--remove", help="Take the binding back.")] = False,
    data: Data = DATA_DEFAULT,
) -> None:
    """Bind a queue, exchange or topic to an exchange, or take that back."""
    with penstock.open(existing(data)) as broker:
        source = broker.exchange(name)
        where = broker.exchange(target) if exchange else broker.topic(target) if topic else target
        given = dict(pair_of(text) for text in argument or [])
        if not remove:
            source.bind(where, key, given)
        elif not source.unbind(where, key, given):
            raise penstock.InvalidArgumentError(f"exchange {name!r} has no such binding to {target!r}")
    say("the binding is gone" if remove else f"{name} is bound to {target}")


@app.command("publish")
def publish(
    name: Name,
    body: Annotated[str, typer.Argument(metavar="BODY", help="The body.")],
    key: Key = "",
    header: Annotated[list[str] | None, typer.Option("--header", metavar="NAME=VALUE", help="Repeatable.")] = None,
    mandatory: Annotated[bool, typer.Option("--mandatory", help="Fail when it matches nothing.")] = False,
    data: Data = DATA_DEFAULT,
) -> None:
    """Publish a message; prints where it was stored."""
    with penstock.open(existing(data)) as broker:
        headers = [(one, value.encode()) for one, value in map(pair_of, header or [])]
        stored = broker.exchange(name).publish(body.encode(), key, headers, mandatory)
    for one in stored:
        say(one)
    if not stored:
        say("it matched nothing and was dropped")


@app.command("delete")
def delete(name: Name, data: Data = DATA_DEFAULT) -> None:
    """Delete an exchange with its bindings."""
    with penstock.open(existing(data)) as broker:
        broker.delete_exchange(name)
    say(f"deleted exchange {name}")


def pair_of(text: str) -> tuple[str, str]:
    """NAME=VALUE, taken apart."""
    name, separator, value = text.partition("=")
    if not separator:
        raise typer.BadParameter(f"{text!r} is not NAME=VALUE")
    return name, value


def _shown(arguments: dict[str, object]) -> str:
    return " ".join(f"{name}={value}" for name, value in arguments.items())
