"""The command tree, and how a command ends: its exit code and its one line of error."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import penstock
from penstock.cli import (
    bench,
    compact,
    consume,
    demo,
    dump,
    exchanges,
    groups,
    metrics,
    produce,
    queues,
    repair,
    top,
    topics,
    transactions,
    verify,
)
from penstock.cli.output import discard_stdout, print_error


class _Commands(TyperGroup):
    """Turns what a command raises into an exit code: 1 with one red line on stderr, or 130 after Ctrl-C."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            raise typer.Exit(130) from error
        except BrokenPipeError as error:  # the reader of our output had enough, as in `penstock consume orders | head`
            discard_stdout()
            raise typer.Exit(0) from error
        except (penstock.PenstockError, OSError) as error:
            print_error(str(error))
            raise typer.Exit(1) from error


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Penstock: an embedded message log and queue engine. Begin with `penstock demo`.",
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(penstock.__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Penstock: an embedded message log and queue engine. Begin with `penstock demo`."""


app.command("demo")(demo.demo)
app.command("produce")(produce.produce)
app.command("consume")(consume.consume)
app.add_typer(topics.app, name="topics")
app.add_typer(groups.app, name="groups")
app.add_typer(queues.app, name="queues")
app.add_typer(exchanges.app, name="exchanges")
app.add_typer(transactions.app, name="transactions")
app.command("metrics")(metrics.metrics)
app.command("top")(top.top)
app.command("compact")(compact.compact)
app.command("dump")(dump.dump)
app.command("verify")(verify.verify)
app.command("repair")(repair.repair)
app.command("bench")(bench.bench)
