"""`penstock repair`: make a damaged data directory usable again."""

from __future__ import annotations

from typing import Annotated

import typer

import penstock
from penstock.cli.options import DATA_DEFAULT, Data, Json, existing
from penstock.cli.output import print_json, say


def repair(
    topic: Annotated[str | None, typer.Argument(metavar="TOPIC", help="Only this topic.")] = None,
    data: Data = DATA_DEFAULT,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
    json: Json = False,
) -> None:
    """Repair what `penstock verify` finds. No process may have the directory open."""
    report = penstock.repair(existing(data), topic=topic, dry_run=dry_run)
    if json:
        actions = [{"path": str(a.path), "kind": str(a.kind), "message": a.message} for a in report.actions]
        print_json({"ok": report.ok, "dry_run": dry_run, "actions": actions})
    else:
        for action in report.actions:
            say(f"{action.path}: {action.kind}: {action.message}")
        done = "would be done" if dry_run else "done"
        say(f"{len(report.actions)} repairs {done}" if report.actions else "nothing to repair", style="bold")
        if not report.ok:
            say("problems are left that need a decision; see `penstock verify`", style="bold red")
    if not report.ok:
        raise typer.Exit(1)
