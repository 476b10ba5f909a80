"""`penstock top`: a live view of topics, groups and queues."""

from __future__ import annotations

from typing import Annotated

import typer

import penstock
from penstock.cli.options import DATA_DEFAULT, Data, existing


def top(
    data: Data = DATA_DEFAULT,
    interval: Annotated[float, typer.Option("--interval", min=0.1, help="Seconds between two looks.")] = 1.0,
) -> None:
    """Watch topics, groups and queues live; `?` in it shows the keys. Disturbs nothing."""
    try:
        from penstock.cli.top_app import TopApp
    except ImportError as error:
        raise typer.BadParameter("the live view needs the extra: pip install 'penstock[top]'") from error
    with penstock.open(existing(data)) as broker:
        TopApp(broker, interval).run()
