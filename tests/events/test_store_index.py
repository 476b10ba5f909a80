"""The files of the store's index: their format, and what happens when they are damaged, cut or gone."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import penstock
from penstock import events
from penstock._native.postings import Tail, hash_term, set_hash_mask, sort_rows
from penstock._native.runs import Run, directory_bits
from penstock.errors import CorruptionError, InvalidArgumentError
from penstock.events.store import index as store_index
from penstock.events.store import maintenance, run_file

DOCUMENT = Path(__file__).parents[2] / "docs" / "event-store.md"


class Noted(events.Event, type="IndexNoted"):
    number: int


class Tagged(events.Event, type="IndexTagged"):
    number: int
    tags: list[str]


@pytest.fixture(autouse=True)
def small_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_index, "ROWS_PER_RUN", 300)
    monkeypatch.setattr(maintenance, "MERGED_RUNS", 3)


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    """A data directory whose store has several runs, of several levels, and a tail."""
    with penstock.open(tmp_path / "data", fsync="never") as broker:
        store = events.EventStore(broker, "shop")
        for number in range(500):
            store.append(f"s-{number % 40}", Noted(number), tags=[f"tag:{number % 7}"])
            if number % 90 == 89:
                store._core.index.flush()
        store.append_many({f"m-{number}": ([Noted(number)], events.NO_STREAM) for number in range(50)})
    yield tmp_path / "data"


@pytest.fixture
def one_hash() -> Iterator[None]:
    """All terms have the same hash."""
    set_hash_mask(0)
    yield
    set_hash_mask(2**64 - 1)


@pytest.mark.usefixtures("one_hash")
def test_terms_of_one_hash_do_not_hide_each_other(tmp_path: Path) -> None:
    with penstock.open(tmp_path, fsync="never") as broker:
        store = events.EventStore(broker, "shop")
        for number in range(12):
            store.append(f"s-{number % 2}", Noted(number) if number % 3 else Tagged(number, ["t"]))
            if number == 4:
                store.truncate("s-0", 1)
            if number % 2:
                store._core.index.flush()  # of both levels in the end
        stored = list(store.read_all())
        for seen_by in (store, events.EventStore(broker, "shop")):
            assert [event.version for event in seen_by.read("s-0")] == [1, 2, 3, 4, 5]
            for query in (events.Query(types=[Noted]), events.Query(tags=["t"])):
                wanted = [event.position for event in stored if query.matches(event.type, event.tags)]
                for after in range(store.position):
                    found = [event.position for event in seen_by.query(query, after=after)]
                    assert found == [position for position in wanted if position > after]


def files(directory: Path) -> list[Path]:
    return sorted((directory / "shop-0" / "index").glob("*.run"))


def check(directory: Path) -> None:
    """Everything can be read as it was appended, and appended to."""
    with penstock.open(directory, fsync="never") as broker:
        store = events.EventStore(broker, "shop")
        for stream in range(40):
            numbers = [event.data["number"] for event in store.read(f"s-{stream}")]
            assert numbers == list(range(stream, 500, 40))
            assert store.version(f"s-{stream}") == len(numbers) - 1
        for tag in range(7):
            found = [event.data["number"] for event in store.query(events.Query(tags=[f"tag:{tag}"]))]
            assert found == list(range(tag, 500, 7))
        assert [event.stream for event in store.read_category("m")] == [f"m-{number}" for number in range(50)]
        assert len(list(store.query(events.Query(types=[Noted]), after=100))) == 450
        with pytest.raises(events.WrongVersionError):
            store.append("m-3", Noted(0), events.NO_STREAM)
        assert store.version("nobody") == -1


def test_runs_are_merged_and_follow_on_one_another(directory: Path) -> None:
    found = [run_file.open_run(path)[1] for path in files(directory)]
    assert [header.start for header in found] == [0, *(header.end for header in found[:-1])]
    assert max(header.level for header in found) >= 1 and len(found) >= 2
    assert run_file.read_list(directory / "shop-0" / "index") == [path.name for path in files(directory)]
    check(directory)


@pytest.mark.parametrize("place", ["header", "rows", "directory", "sums"])
def test_a_flipped_bit_is_found_and_the_run_made_anew(directory: Path, place: str) -> None:
    path = files(directory)[0]
    _, header = run_file.open_run(path)
    body_end = run_file.HEADER_BYTES + header.count * 24
    end = path.stat().st_size
    bounds = {
        "header": (0, 48),
        "rows": (run_file.HEADER_BYTES, body_end),
        "directory": (body_end, body_end + 8 * (2 ** directory_bits(header.count) + 1)),
        "sums": (end - 4, end),
    }[place]
    chosen = random.Random(place)
    original = path.read_bytes()
    for _ in range(8):
        raw = bytearray(original)
        raw[chosen.randrange(*bounds)] ^= 1 << chosen.randrange(8)
        path.write_bytes(raw)
        check(directory)
        path.write_bytes(original)


@pytest.mark.parametrize("how", ["gone", "empty", "cut", "longer", "another"])
@pytest.mark.parametrize("which", [0, -1])
def test_a_run_that_is_not_whole_is_made_anew(directory: Path, how: str, which: int) -> None:
    path = files(directory)[which]
    raw = path.read_bytes()
    if how == "gone":
        path.unlink()
    else:
        other = files(directory)[which - 1].read_bytes()
        path.write_bytes({"empty": b"", "cut": raw[:-1000], "longer": raw + b"x", "another": other}[how])
    check(directory)
    check(directory)


@pytest.mark.parametrize("raw", [None, b"", b"\0" * 100, b"penstock event index 1\n", b"nonsense\n00000000\n"])
def test_a_list_that_is_damaged_or_gone_makes_the_index_anew(directory: Path, raw: bytes | None) -> None:
    path = directory / "shop-0" / "index" / run_file.LIST_NAME
    path.unlink() if raw is None else path.write_bytes(raw)
    check(directory)


def test_an_index_of_a_longer_log_is_not_believed(tmp_path: Path) -> None:
    """The machine went down, and the log lost its end but not the index."""
    with penstock.open(tmp_path / "data", fsync="never") as broker:
        store = events.EventStore(broker, "shop")
        store.append("a", [Noted(number) for number in range(5)])
        store._core.index.flush()
        store.append("b", Noted(5))
        store._core.index.flush()
    index = tmp_path / "data" / "shop-0" / "index"
    kept = {path.name: path.read_bytes() for path in index.iterdir()}
    for path in (tmp_path / "data" / "shop-0").glob("0*"):
        path.unlink()
    (tmp_path / "data" / "shop-0" / "penstock.control").unlink()
    with penstock.open(tmp_path / "data", fsync="never") as broker:
        store = events.EventStore(broker, "shop")
        store.append("c", [Noted(number) for number in range(6)])
    for name, raw in kept.items():
        (index / name).write_bytes(raw)
    with penstock.open(tmp_path / "data", fsync="never") as broker:
        store = events.EventStore(broker, "shop")
        assert (store.version("a"), store.version("b"), store.version("c")) == (-1, -1, 5)
        store.append("c", Noted(6), 5)
        store._core.index.flush()
        assert [event.version for event in store.read("c")] == list(range(7))


def test_rubbish_is_removed(directory: Path) -> None:
    index = directory / "shop-0" / "index"
    (index / "left.new").write_bytes(b"x")
    (index / f"{7:020d}-{9:020d}-0.run").write_bytes(b"x")
    with penstock.open(directory, fsync="never") as broker:
        events.EventStore(broker, "shop")._core.index.flush()
    assert {path.name for path in index.iterdir()} == {"lock", "runs", *(path.name for path in files(directory))}
    assert len(files(directory)) == len(run_file.read_list(index))


def test_a_run_is_what_is_documented(tmp_path: Path) -> None:
    section = DOCUMENT.read_text(encoding="utf-8").split("Worked example", 1)[1]
    documented = re.findall(r"```text\n(.*?)```", section, re.DOTALL)
    with penstock.open(tmp_path / "data", fsync="never") as broker:
        store = events.EventStore(broker, "shop")
        assert hash_term(b"sorder-1") == int(re.findall(r"0x([0-9a-f]{16})", section)[0], 16)
        directory = store._core.log.directory
    rows = b"".join(int(word, 16).to_bytes(8, "little") for word in re.findall(r"0x([0-9a-f]{16})", section)[:3])
    header = run_file.RunHeader(1, 0, 1, 0, 0x01020304)
    path = run_file.write_run(directory, header, [], rows, durable=False)
    raw = path.read_bytes()
    shown = raw[:48].hex() + raw[run_file.HEADER_BYTES :].hex()
    assert shown == re.sub(r"\s", "", documented[0])
    run_file.write_list(directory, [path.name], durable=False)
    assert (directory / "runs").read_text() == documented[1]


def test_finding_rows(tmp_path: Path) -> None:
    """Against a plain dict: many rows of some hashes, one of many."""
    chosen = random.Random(3)
    hashes = [0, 1, 2**64 - 1, *(chosen.randrange(2**64) for _ in range(500))]
    rows = [(hashes[min(int(chosen.expovariate(0.01)), 502)], 0, position) for position in range(20_000)]
    raw = b"".join(value.to_bytes(8, "little") for row in rows for value in row)
    header = run_file.RunHeader(len(rows), 0, 20_000, 0, 0)
    run = run_file.open_run(run_file.write_run(tmp_path, header, [], sort_rows(raw, 0), durable=False))[0]
    run.check()
    for h in hashes:
        wanted = [(0, position) for found, _, position in rows if found == h]
        place = run.find(h)
        assert (place is None) == (not wanted)
        assert place is None or run.slice(*place) == wanted
    assert run.find(12345) is None
    with pytest.raises(InvalidArgumentError):
        run.row(20_000)
    with pytest.raises(CorruptionError):
        Run(str(files_of(tmp_path)), 19_999, 0, 20_000, 0)


def files_of(directory: Path) -> Path:
    return next(directory.glob("*.run"))


def test_a_tail_knows_nothing_at_first() -> None:
    tail = Tail(7)
    assert (tail.start, tail.end, tail.count, tail.size_bytes) == (7, 7, 0, 0)
    assert tail.find(1) == [] and tail.newest(1) is None and tail.copy_rows() == b""
    with pytest.raises(InvalidArgumentError):
        hash_term(b"")


def test_what_is_appended_makes_the_rows_that_are_read_from_the_log(tmp_path: Path) -> None:
    with penstock.open(tmp_path / "data", fsync="never") as broker:
        store = events.EventStore(broker, "shop")
        other = events.EventStore(broker, "shop")
        some = [Tagged(1, ["a", "b"]), Noted(2), Tagged(3, ["b"]), Noted(4)]
        store.append("x-1", some, tags=["t"])
        store.append_many({"x-2": (some, events.ANY), "y": (Noted(1), events.ANY)})
        store.append_if(Noted(5), tags=["t"], unless=events.Query(tags=["u"]))
        store.delete("x-1")
        store.append("x-1", [events.Envelope.wrap(one, "test") for one in some])
        other.append("x-1", some)
        store.append("x-1", some)
        tail, fresh = store._core.index._tail, Tail()
        region = None
        while fresh.end < store.position:
            region = store._core.log.fetch(fresh.end, region)
            fresh.feed(region, 1 << 20)
        assert (tail.end, tail.count, tail.copy_rows()) == (fresh.end, fresh.count, fresh.copy_rows())
        assert tail.size_bytes == fresh.size_bytes
