"""The order system in small: both ways, with a process killed, balance; and a balance that is not one is seen."""

from __future__ import annotations

import sqlite3
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from examples.orders.balance import check
from examples.orders.data import initial_stock, made_orders, read_orders
from examples.orders.faults import declines
from examples.orders.main import SYSTEMS, Settings, run

ORDERS = made_orders(150)


@pytest.mark.parametrize("how", SYSTEMS)
def test_it_balances_with_all_faults_on(tmp_path: Path, how: str) -> None:
    settings = Settings(poison=2, kills=1, kill_every_s=0.7, duplicates=0.3, declines=0.2, plain=True)
    balance, facts = run(how, tmp_path / how, ORDERS, settings)
    assert balance.problems == []
    assert sum(balance.states.values()) == len(ORDERS)
    assert set(balance.states) >= {"completed", "cancelled"}
    assert facts["duplicates"] > 20
    buried = facts["buried"]
    assert buried.startswith("2 failed sagas" if how == "orchestration" else "10 dead letters in 4 groups")
    _spoil_and_see(tmp_path / how)


def _spoil_and_see(directory: Path) -> None:
    sold = next(order for order in ORDERS if not declines(order.order_id, 0.2))
    with sqlite3.connect(directory / "payment.sqlite3") as database:
        database.execute("INSERT INTO ledger VALUES (?, 1)", (sold.order_id,))
    with sqlite3.connect(directory / "read-model.sqlite3") as database:
        database.execute("INSERT INTO finals SELECT id, state, 'again' FROM finals LIMIT 1")
    problems = "\n".join(check(directory, ORDERS, initial_stock(ORDERS), 0.2).problems)
    assert f"{sold.order_id}: " in problems
    assert "2 final states" in problems
    assert "cents were paid" in problems


def test_orders_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "orders.csv"
    file.write_text("InvoiceNo,InvoiceDate,CustomerID,TotalPrice\n536366,2010-12-01,17850,22.200000000000003\n")
    orders, source = read_orders(file, None)
    assert source == "orders.csv"
    assert (orders[0].order_id, orders[0].cents, orders[0].customer) == ("order-536366", 2220, "17850")
    assert made_orders(3) == ORDERS[:3]
