"""The order system in small: both ways, with a process killed, balance; and a balance that is not one is seen."""

from __future__ import annotations

import sqlite3
import sys
from pathlib import Path

import pytest

import penstock

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from examples.orders.balance import check
from examples.orders.data import initial_stock, made_orders, read_orders
from examples.orders.faults import declines
from examples.orders.main import CLIENTS, SYSTEMS, Settings, main, run
from penstock import events

ORDERS = made_orders(150)


def test_the_same_order_is_the_same_message_whenever_it_is_placed(tmp_path: Path) -> None:
    with penstock.open(tmp_path) as broker:
        for how, system_class in SYSTEMS.items():
            system = system_class(broker, tmp_path, 0.0)
            client = CLIENTS[how](system)
            for orders in (ORDERS[:2], ORDERS[1:3], ORDERS[:3]):
                client.place(orders)
            if how == "orchestration":
                assert {saga.saga_id for saga in system.sagas.list()} == {order.order_id for order in ORDERS[:3]}
            else:
                with broker.consumer(system.bus.topic) as consumer:
                    ids = [events.Envelope.from_json(record.value).message_id for record in consumer.poll(timeout=0)]
                assert len(ids) == 7 and len(set(ids)) == 3
            system.close()


def test_stock_is_short_at_any_size() -> None:
    for count in (20, 150, 2000):
        orders = made_orders(count)
        stock = initial_stock(orders)
        units = sum(order.quantity for order in orders)
        assert sum(stock.values()) == units - units // 50 and min(stock.values()) >= 0


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--orders", "0"], "int from 1"), (["--workers", "two"], "int from 1"), (["--kills", "-1"], "int from 0"),
        (["--declines", "2"], "float from 0 to 1"), (["--kill-every", "nan"], "float from 0"),
        (["--data", "no such file"], "no such file"),
    ],
)  # fmt: skip
def test_options_that_nothing_can_be_done_with(
    arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2 and told in capsys.readouterr().err


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
    for text, told in (
        ("InvoiceNo,Total\n1,2\n", "CustomerID, TotalPrice"),
        ("InvoiceNo,CustomerID,TotalPrice\nx,1,2\n", "order 'x' of '2'"),
        ("InvoiceNo,CustomerID,TotalPrice\n1,1,dear\n", "'dear'"),
        ("InvoiceNo,CustomerID,TotalPrice\n1,1\n", "None"),
        ("InvoiceNo,CustomerID,TotalPrice\n1,1,2\n1,1,3\n", "InvoiceNo twice"),
        ("", "InvoiceNo"),
    ):
        file.write_text(text)
        with pytest.raises(ValueError, match=told):
            read_orders(file, None)
