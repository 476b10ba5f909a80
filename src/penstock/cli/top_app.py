"""The live view: three tables, sorted and filtered, refreshed from snapshots taken beside the terminal's loop."""

from __future__ import annotations

import asyncio
from typing import ClassVar

from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import DataTable, Footer, Input, Static, TabbedContent, TabPane

import penstock
from penstock.cli.output import bytes_text
from penstock.cli.top_rows import ROWS, TABLES, History, Row, Table, rate, sparkline
from penstock.cli.top_screens import Details, Help, Messages
from penstock.errors import ClosedError, PenstockError
from penstock.metrics import Metrics, Rates

_TEXT_COLUMNS = ("TOPIC", "GROUP", "QUEUE", "TREND", "SLOWEST")


class TopApp(App[None]):
    """`TopApp(broker, interval).run()`."""

    TITLE = "penstock top"
    ENABLE_COMMAND_PALETTE = False
    CSS = """
    Screen { layout: vertical; overflow: hidden; }
    #tabs { height: 1fr; }
    ContentSwitcher { height: 1fr; }
    #summary { height: 3; padding: 0 1; background: $panel; content-align: left middle; }
    #filter { display: none; height: 3; }
    #filter.shown { display: block; }
    TabPane { padding: 0; height: 1fr; }
    DataTable { height: 1fr; }
    Panel { align: center middle; background: $background 60%; }
    #panel { width: 92%; height: auto; max-height: 90%; padding: 1 2; border: round $accent; background: $surface; }
    #panel-title { text-style: bold; color: $accent; margin-bottom: 1; }
    #panel-body { width: auto; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("1", "tab('Topics')", "Topics", show=False),
        Binding("2", "tab('Groups')", "Groups", show=False),
        Binding("3", "tab('Queues')", "Queues", show=False),
        Binding("m", "messages", "Messages"),
        Binding("s", "sort(1)", "Sort"),
        Binding("S", "sort(-1)", "Sort back", show=False),
        Binding("r", "reverse", "Reverse"),
        Binding("slash", "filter", "Filter"),
        Binding("space", "pause", "Hold"),
        Binding("question_mark", "help", "Help"),
        Binding("escape", "unfilter", "No filter", show=False),
        Binding("q", "quit", "Quit"),
    ]

    def __init__(self, broker: penstock.Broker, interval: float = 1.0) -> None:
        super().__init__()
        self._broker = broker
        self._interval = interval
        self._metrics: Metrics | None = None
        self._rates: Rates | None = None
        self._history = History()
        self._in_per_s: list[float] = []
        self._order = {table.name: (table.sort, True) for table in TABLES}
        self._rows: dict[str, list[Row]] = {table.name: [] for table in TABLES}
        self._wanted = ""
        self.paused = False
        self.problem = ""

    def compose(self) -> ComposeResult:
        """A line of sums, a tab for each table, the keys."""
        yield Static(id="summary")
        yield Input(placeholder="names that contain…", id="filter")
        with TabbedContent(id="tabs"):
            for table in TABLES:
                with TabPane(table.name, id=table.name):
                    yield DataTable(id=f"table-{table.name}", cursor_type="row", zebra_stripes=True)
        yield Footer()

    async def on_mount(self) -> None:
        """Columns, and the first look."""
        for table in TABLES:
            self._table(table.name).add_columns(*self._headings(table))
        await self.look()
        self._table("Topics").focus()
        self.set_interval(self._interval, self.look)

    # --- looking ---------------------------------------------------------------------------------------------------

    async def look(self) -> None:
        """Take a snapshot, and show it unless everything is held."""
        if self.paused:
            return
        try:
            metrics = await asyncio.to_thread(self._broker.metrics)
        except ClosedError:
            self.exit()
            return
        except (PenstockError, OSError) as error:
            self.problem = str(error)
            self._show_summary()
            return
        self.problem = ""
        if self._metrics is not None and metrics.monotonic_s > self._metrics.monotonic_s:
            self._rates = metrics.since(self._metrics)
        self._metrics = metrics
        total = sum(one.records_appended_per_s for one in self._rates.topics.values()) if self._rates else 0.0
        self._in_per_s = [*self._in_per_s, total][-16:]
        for table, rows in zip(TABLES, ROWS, strict=True):
            self._rows[table.name] = list(rows(metrics, self._rates, self._history))
        self._show()

    def _show(self) -> None:
        self._show_summary()
        for table in TABLES:
            self._show_table(table)

    def _show_summary(self) -> None:
        line = Text(no_wrap=True, overflow="ellipsis")
        if self.problem:
            line.append(f" {self.problem} ", style="bold white on red")
        elif self._metrics is not None:
            topics = self._rates.topics.values() if self._rates else ()
            size = sum(topic.size_bytes for topic in self._metrics.topics.values())
            line.append(f"{self._broker.path}", style="bold")
            line.append(f"   {len(self._metrics.topics)} topics, {bytes_text(size)}", style="dim")
            line.append(f"   in {rate(sum(one.records_appended_per_s for one in topics))}/s ", style="green")
            line.append(sparkline(self._in_per_s).strip(), style="green")
            line.append(f"   out {rate(sum(one.records_read_per_s for one in topics))}/s", style="cyan")
            lag = sum(group.lag for group in self._metrics.groups.values())
            line.append(f"   lag {lag:,}", style="yellow" if lag else "dim")
            dead = sum(queue.dead for queue in self._metrics.queues.values())
            line.append(f"   dead {dead:,}", style="bold red" if dead else "dim")
            if self._wanted:
                line.append(f"   /{self._wanted}", style="magenta")
            if self.paused:
                line.append("   HELD", style="bold reverse")
        self.query_one("#summary", Static).update(line)

    def _show_table(self, table: Table) -> None:
        widget = self._table(table.name)
        place, falling = self._order[table.name]
        rows = [row for row in self._rows[table.name] if self._wanted.lower() in row.key.lower()]
        rows.sort(key=lambda row: row.key)
        rows.sort(key=lambda row: row.cells[place].value, reverse=falling)
        chosen = self._chosen(table.name) if widget.cursor_row > 0 else None  # who is at the top stays at the top
        scroll = widget.scroll_y
        widget.clear(columns=True)
        widget.add_columns(*self._headings(table))
        for row in rows:
            cells = [
                Text(cell.text, style=cell.style, justify="left" if column in _TEXT_COLUMNS else "right")
                for cell, column in zip(row.cells, table.columns, strict=True)
            ]
            widget.add_row(*cells, key=row.key)
        if chosen is not None and chosen in widget.rows:
            widget.move_cursor(row=widget.get_row_index(chosen), scroll=False)
        widget.scroll_to(y=scroll, animate=False)

    def _headings(self, table: Table) -> list[Text]:
        place, falling = self._order[table.name]
        found = []
        for number, column in enumerate(table.columns):
            mark = (" ▼" if falling else " ▲") if number == place else ""
            side = "left" if column in _TEXT_COLUMNS else "right"
            found.append(Text(f"{column}{mark}", style="bold" if mark else "", justify=side))  # type: ignore[arg-type]
        return found

    def _table(self, name: str) -> DataTable[Text]:
        found: DataTable[Text] = self.query_one(f"#table-{name}", DataTable)
        return found

    def _chosen(self, name: str) -> str | None:
        widget = self._table(name)
        if not 0 <= widget.cursor_row < widget.row_count:
            return None
        return str(widget.coordinate_to_cell_key((widget.cursor_row, 0)).row_key.value)  # type: ignore[arg-type]

    @property
    def tab(self) -> str:
        """Name of the table that is shown."""
        return self.query_one("#tabs", TabbedContent).active

    # --- keys ------------------------------------------------------------------------------------------------------

    def action_tab(self, name: str) -> None:
        """Show a table."""
        self.query_one("#tabs", TabbedContent).active = name
        self._table(name).focus()

    def action_sort(self, step: int) -> None:
        """Sort by the next column."""
        table = next(one for one in TABLES if one.name == self.tab)
        place, falling = self._order[table.name]
        self._order[table.name] = ((place + step) % len(table.columns), falling)
        self._show_table(table)

    def action_reverse(self) -> None:
        """Turn the order round."""
        table = next(one for one in TABLES if one.name == self.tab)
        place, falling = self._order[table.name]
        self._order[table.name] = (place, not falling)
        self._show_table(table)

    def action_pause(self) -> None:
        """Hold everything as it is, or go on."""
        self.paused = not self.paused
        self._show_summary()

    def action_filter(self) -> None:
        """Ask for a text that names are to contain."""
        field = self.query_one("#filter", Input)
        field.add_class("shown")
        field.focus()

    def action_unfilter(self) -> None:
        """Show everything again."""
        self.query_one("#filter", Input).value = ""
        self._end_filter()

    def on_input_changed(self, event: Input.Changed) -> None:
        """Filter while it is typed."""
        self._wanted = event.value.strip()
        self._show()

    def on_input_submitted(self) -> None:
        """Back to the table; the filter stays."""
        self._end_filter()

    def _end_filter(self) -> None:
        self.query_one("#filter", Input).remove_class("shown")
        self._table(self.tab).focus()

    def on_data_table_row_selected(self) -> None:
        """Enter: details."""
        chosen = self._chosen(self.tab)
        if chosen is not None and self._metrics is not None:
            self.push_screen(Details(self.tab, chosen, self._metrics))

    def action_messages(self) -> None:
        """Look at messages of the chosen topic or queue; of a group, at the topic it is most behind in."""
        chosen = self._chosen(self.tab)
        if chosen is None or self._metrics is None:
            return
        if self.tab == "Groups":
            partitions = self._metrics.groups[chosen].partitions
            if partitions:
                self.push_screen(Messages(self._broker, max(partitions, key=lambda one: one.lag).topic, False))
            return
        is_queue = self.tab == "Queues" and chosen in self._metrics.queues
        self.push_screen(Messages(self._broker, chosen if is_queue else chosen.split("/")[0], is_queue))

    def action_help(self) -> None:
        """The keys."""
        self.push_screen(Help())
