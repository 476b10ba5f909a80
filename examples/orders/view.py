"""The live view and the summary: a table that is drawn again and again, or lines where there is no terminal."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any

from examples.orders.balance import Balance

STATES = ("placed", "reserved", "paid", "declined", "shipped", "completed", "cancelled", "rejected")
_LINE_EVERY_S = 2.0


class View:
    """How far it is. `plain`: lines only; else `rich`, where it is installed and there is a terminal."""

    def __init__(self, title: str, total: int, plain: bool) -> None:
        self._title, self._total = title, total
        self._began = self._printed = time.monotonic()
        self._live: Any = None if plain else _live()

    def __enter__(self) -> View:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, states: dict[str, int], killed: int, workers: list[int]) -> None:
        """Draw it as it is now."""
        seconds = time.monotonic() - self._began
        final = sum(states.get(state, 0) for state in STATES[-3:])
        if self._live is not None:
            self._live.update(_table(self._title, self._total, states, final, seconds, killed, workers))
        elif time.monotonic() - self._printed > _LINE_EVERY_S:
            self._printed = time.monotonic()
            print(
                f"{self._title}: {final:,} of {self._total:,} final after {seconds:.1f} s, {killed} killed", flush=True
            )


def _live() -> Any:
    try:
        from rich.console import Console
        from rich.live import Live
    except ImportError:
        return None
    console = Console()
    return Live(console=console, refresh_per_second=8, transient=True) if console.is_terminal else None


def _table(
    title: str, total: int, states: dict[str, int], final: int, seconds: float, killed: int, workers: list[int]
) -> Any:
    from rich.progress_bar import ProgressBar
    from rich.table import Table

    table = Table(title=f"{title}: {final:,} of {total:,} orders, {seconds:.1f} s", title_justify="left", box=None)
    table.add_column("state")
    table.add_column("orders", justify="right")
    table.add_column("", width=40)
    for state in STATES:
        count = states.get(state, 0)
        table.add_row(state, f"{count:,}", ProgressBar(total=max(1, total), completed=count, width=40))
    table.add_row("", "", f"workers {' '.join(map(str, workers))}; killed so far: {killed}")
    return table


def summary(how: str, source: str, balance: Balance, facts: dict[str, Any]) -> str:
    """The end of one way, in lines."""
    states = ", ".join(f"{count:,} {state}" for state, count in sorted(balance.states.items()))
    lines = [
        f"{how}: {facts['orders']:,} orders ({source}) in {facts['seconds']:.1f} s"
        f" = {facts['orders'] / facts['seconds']:,.0f} orders/s",
        f"  faults: {facts['killed']} processes killed, {facts['duplicates']:,} duplicates,"
        f" {facts['poison']} poison messages ({facts['buried']})",
        f"  orders: {states}",
        f"  money: ordered {balance.ordered_cents / 100:,.2f}, paid {balance.paid_cents / 100:,.2f},"
        f" of completed orders {balance.completed_cents / 100:,.2f}",
        f"  stock: {balance.units_before:,} before, {balance.units_sold:,} sold, {balance.units_left:,} left",
        f"  {'BALANCED' if balance.balanced else 'NOT BALANCED: ' + str(len(balance.problems)) + ' problems'}",
    ]
    return "\n".join([*lines, *(f"    {problem}" for problem in balance.problems[:10])])
