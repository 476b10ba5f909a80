"""The pytest plugin in a run of its own: loaded each way, and every way at once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import penstock

TEST = """
from penstock import events

class LampLit(events.Event):
    room: str

class Lamps(events.Projection):
    def setup(self, db):
        db.execute("CREATE TABLE lamps (room TEXT)")

    @events.applies(LampLit)
    def _(self, db, event):
        db.execute("INSERT INTO lamps VALUES (?)", (event.room,))

class Lamp(events.Aggregate):
    def light(self):
        self.record(LampLit("hall"))

    @events.applies(LampLit)
    def _(self, event): ...

def test_fixtures(penstock_broker, penstock_clock, penstock_events, penstock_scenario):
    assert penstock_broker.clock is penstock_clock
    bus = events.EventBus(penstock_broker)
    bus.on(LampLit, group="g")(lambda event: penstock_clock.advance(5))
    bus.publish(LampLit("hall"))
    bus.run_until_idle()
    assert penstock_clock.monotonic() == 5
    assert penstock_events == [LampLit("hall")]
    penstock_scenario.aggregate(Lamp).when("light").then(LampLit("hall"))
    penstock_scenario.projection(Lamps()).given(LampLit("hall")).then_rows("SELECT room FROM lamps", ("hall",))
    store = penstock_scenario.store()
    store.when(store.store.append, "lamp-1", LampLit("attic")).then(LampLit("attic"))
    sagas = events.Sagas(penstock_broker)
    sagas.define("s")(lambda saga: "done")
    penstock_scenario.sagas(sagas).when_started("s").then_status("completed").then_result("done")
"""
ENTRY_POINT = "[pytest11]\npenstock.testing = penstock.testing\n"


@pytest.mark.parametrize("ways", [("conftest",), ("option",), ("entry point",), ("conftest", "option", "entry point")])
def test_the_plugin_loads(tmp_path: Path, ways: tuple[str, ...]) -> None:
    (tmp_path / "test_lamps.py").write_text(TEST)
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["penstock.testing"]\n' if "conftest" in ways else "")
    source = Path(penstock.__file__).parents[1]  # wherever it is imported from
    paths = [str(source)]
    if "entry point" in ways:
        metadata = tmp_path / "installed" / "fake_penstock-1.dist-info"
        metadata.mkdir(parents=True)
        (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: fake-penstock\nVersion: 1\n")
        (metadata / "entry_points.txt").write_text(ENTRY_POINT)
        paths.append(str(metadata.parent))
    code = f"import sys; sys.path[:0] = {paths!r}; import pytest; sys.exit(pytest.main(sys.argv[1:]))"
    options = ["-q", "-p", "no:cacheprovider", *(("-p", "penstock.testing") if "option" in ways else ())]
    done = subprocess.run(
        [sys.executable, "-c", code, *options], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0 and "1 passed" in done.stdout, done.stdout + done.stderr


def test_loading_it_imports_no_patterns() -> None:
    code = "import sys, penstock.testing; print('penstock.events' in sys.modules, 'msgspec' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == ["False", "False"]
