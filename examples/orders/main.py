"""Runs the order system both ways, kills what it likes meanwhile, and balances the books."""

from __future__ import annotations

import argparse
import json
import math
import shutil
import signal
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import penstock
from examples.orders import choreography, orchestration
from examples.orders.balance import Balance, check
from examples.orders.data import initial_stock, read_orders
from examples.orders.faults import Workers, poison_order, with_duplicates
from examples.orders.model import OrderPlaced
from examples.orders.read_model import Orders
from examples.orders.view import View, summary
from penstock import events

SYSTEMS = {"choreography": choreography.Choreography, "orchestration": orchestration.Orchestration}
CLIENTS = {"choreography": choreography.Client, "orchestration": orchestration.Client}
LOOK_S = 0.05
GARBAGE = b"\x00poison: no envelope at all"


@dataclass(frozen=True)
class Settings:
    """What is run, and what goes wrong."""

    declines: float = 0.1
    duplicates: float = 0.05
    poison: int = 10
    kills: int = 5
    kill_every_s: float = 1.0
    workers: int = 2
    timeout_s: float = 120.0
    plain: bool = False


def run(how: str, directory: Path, orders: list[OrderPlaced], settings: Settings) -> tuple[Balance, dict[str, Any]]:
    """One way, from an empty directory to the balance."""
    directory.mkdir(parents=True)
    stock = initial_stock(orders)
    with penstock.open(directory / "broker") as broker:
        system = SYSTEMS[how](broker, directory, settings.declines)
        system.inventory.fill(stock)
        worker = ["worker", how, str(directory), str(settings.declines)]
        workers = Workers(worker, settings.workers, settings.kills, settings.kill_every_s)
        projector = events.Projector(system.bus, Orders(), directory / "read-model.sqlite3")
        began = time.monotonic()
        projector.start()
        workers.start()
        try:
            sent = _place(how, system, orders, settings)
            _watch(how, directory, len(orders), workers, settings)
            seconds = time.monotonic() - began
            _wait_for_poison(how, system, workers, settings)
            codes = workers.stop()
        except BaseException:
            workers.stop()
            raise
        projector.stop()
        projector.run_once()
        projector.close()
        facts = {
            "orders": len(orders), "seconds": seconds, "killed": workers.killed, "duplicates": sent - len(orders),
            "poison": 2 * settings.poison, "buried": _buried(how, system),
        }  # fmt: skip
        balance = check(directory, orders, stock, settings.declines)
        if set(codes) - {0, -signal.SIGTERM}:  # one that was only starting ends by the signal
            balance.problems.append(f"workers ended with {codes}; a graceful end is 0")
        system.close()
    return balance, facts


def _place(how: str, system: Any, orders: list[OrderPlaced], settings: Settings) -> int:
    """Place the orders with duplicates and poison among them; how many good ones were sent."""
    sent = with_duplicates(orders, settings.duplicates)
    parts = settings.poison + 1
    size = -(-len(sent) // parts)
    topic = system.broker.topic(choreography.TOPIC if how == "choreography" else orchestration.SAGAS)
    client = CLIENTS[how](system)
    for number in range(parts):
        client.place(sent[number * size : (number + 1) * size])
        if number < settings.poison:
            topic.append(GARBAGE, key=b"poison-garbage")
            client.place([poison_order(number)])
    return len(sent)


def _watch(how: str, directory: Path, total: int, workers: Workers, settings: Settings) -> None:
    """Until every order is final; kills and replaces workers meanwhile."""
    database = sqlite3.connect(directory / "read-model.sqlite3", timeout=60)
    deadline = time.monotonic() + settings.timeout_s
    query = "SELECT state, count(*) FROM orders WHERE id NOT LIKE 'poison-%' GROUP BY state"
    try:
        with View(how, total, settings.plain) as view:
            while True:
                workers.look_after()
                states = dict(database.execute(query).fetchall())
                view.show(states, workers.killed, [process.pid for process in workers.processes])
                if sum(states.get(state, 0) for state in ("completed", "cancelled", "rejected")) >= total:
                    return
                if time.monotonic() > deadline:
                    raise TimeoutError(f"{how}: after {settings.timeout_s} s the orders are {states}")
                time.sleep(LOOK_S)
    finally:
        database.close()


def _wait_for_poison(how: str, system: Any, workers: Workers, settings: Settings) -> None:
    """Until it is out of the way: what is no event is given up by each group, an impossible order by one."""
    groups = len(system.bus.groups) if how == "choreography" else 0
    expected = settings.poison * (groups + 1)
    deadline = time.monotonic() + settings.timeout_s
    while (found := int(_buried(how, system).split()[0])) < expected:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{how}: {found} of {expected} poison messages were given up")
        workers.look_after()
        time.sleep(LOOK_S)


def _buried(how: str, system: Any) -> str:
    """Where the poison is now."""
    if how == "choreography":
        letters = system.bus.dead_letters(max_letters=100_000)
        return f"{len(letters)} dead letters in {len({letter.group for letter in letters})} groups"
    failed = [saga for saga in system.sagas.list(status="failed", limit=100_000) if saga.saga_id.startswith("poison-")]
    return f"{len(failed)} failed sagas, and records that are no entries left out"


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    given = sys.argv[1:] if arguments is None else arguments
    if given[:1] == ["worker"]:
        _work(*given[1:])
        return
    options, orders, source = _options(given)
    settings = Settings(
        options.declines, options.duplicates, options.poison, options.kills, options.kill_every, options.workers,
        plain=options.plain,
    )  # fmt: skip
    directory = options.directory or Path(tempfile.mkdtemp(prefix="penstock-orders-"))
    results, balanced = {}, True
    try:
        for how in SYSTEMS if options.how == "both" else [options.how]:
            balance, facts = run(how, directory / how, orders, settings)
            balanced = balanced and balance.balanced
            results[how] = {**facts, "states": balance.states, "balanced": balance.balanced}
            print(summary(how, source, balance, facts), flush=True)
    finally:
        if options.directory is None:
            shutil.rmtree(directory, ignore_errors=True)
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    if not balanced:
        sys.exit(1)


def _options(given: list[str]) -> tuple[argparse.Namespace, list[OrderPlaced], str]:
    """What was asked for, the orders, and where they come from; what is wrong with it ends the program."""
    parser = argparse.ArgumentParser(prog="python -m examples.orders", description=__doc__)
    part = _number(float, 0, 1)
    parser.add_argument("--how", choices=["both", *SYSTEMS], default="both")
    parser.add_argument("--data", type=Path, help="CSV of InvoiceNo, CustomerID, TotalPrice (default: made orders)")
    parser.add_argument("--orders", type=_number(int, 1), help="only so many")
    parser.add_argument("--declines", type=part, default=0.1, help="part of the payments that are declined")
    parser.add_argument("--duplicates", type=part, default=0.05, help="part of the orders that are sent twice")
    parser.add_argument("--poison", type=_number(int, 0), default=10, help="poison messages of each of two kinds")
    parser.add_argument("--kills", type=_number(int, 0), default=5, help="processes killed with SIGKILL while it runs")
    parser.add_argument("--kill-every", type=_number(float, 0), default=1.0, help="seconds between them")
    parser.add_argument("--workers", type=_number(int, 1), default=2, help="worker processes")
    parser.add_argument("--directory", type=Path, help="where to keep everything (default: a temporary one)")
    parser.add_argument("--json", type=Path, help="write the results there")
    parser.add_argument("--plain", action="store_true", help="lines instead of a live view")
    options = parser.parse_args(given)
    try:
        return options, *read_orders(options.data, options.orders)
    except (OSError, ValueError) as error:
        parser.error(f"--data: {error}")


def _number(kind: type[int] | type[float], least: float, most: float = math.inf) -> Callable[[str], float]:
    """A type of options: a number inside its limits."""

    def parse(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not least <= value <= most:
            allowed = f"{kind.__name__} from {least:g}" + (f" to {most:g}" if most < math.inf else "")
            raise argparse.ArgumentTypeError(f"{text!r}; allowed is {allowed}")
        return value

    return parse


def _work(how: str, directory: str, declines: str) -> None:
    """A worker process, until SIGTERM."""
    with penstock.open(Path(directory) / "broker") as broker:
        system = SYSTEMS[how](broker, Path(directory), float(declines))
        system.run()
        system.close()
