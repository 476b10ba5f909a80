"""The public surface, the size of files, and the snippets of README."""

from __future__ import annotations

import re
import statistics
from pathlib import Path

import pytest
from children import run

import penstock

ROOT = Path(__file__).parent.parent
BUILTINS = (KeyError, ValueError, OSError, TypeError, RuntimeError, ImportError)
CONTRACT = [
    "open",
    "Broker",
    "Topic",
    "Producer",
    "Consumer",
    "Record",
    "RecordBatch",
    "RecordMetadata",
    "TopicPartition",
    "TopicConfig",
    "VirtualClock",
    "PenstockError",
    "TopicExistsError",
    "UnknownTopicError",
    "InvalidNameError",
    "InvalidConfigError",
    "RecordTooLargeError",
    "CorruptionError",
    "DiskFullError",
    "ClosedError",
    "FencedError",
    "OffsetOutOfRangeError",
    "RebalanceError",
    "StaleReceiptError",
    "UnroutableError",
    "ConcurrencyError",
    "LockedError",
    "FormatVersionError",
    "verify",
    "repair",
]


@pytest.mark.parametrize("name", CONTRACT)
def test_public_names(name: str) -> None:
    assert name in penstock.__all__
    assert getattr(penstock, name).__doc__


def test_all_is_what_it_says() -> None:
    assert sorted(penstock.__all__) == list(penstock.__all__)
    for name in penstock.__all__:
        assert hasattr(penstock, name)


def test_errors_carry_retriable_and_a_builtin() -> None:
    for name in penstock.__all__:
        error = getattr(penstock, name)
        if isinstance(error, type) and issubclass(error, Exception) and error is not penstock.PenstockError:
            assert issubclass(error, penstock.PenstockError)
            assert isinstance(error.retriable, bool)
            assert issubclass(error, BUILTINS)


def test_files_stay_small() -> None:
    patterns = ("src/**/*.py", "ext/**/*.pyx", "ext/**/*.h", "bench/*.py")
    files = [path for pattern in patterns for path in ROOT.glob(pattern)]
    lengths = {path: len(path.read_text().splitlines()) for path in files}
    assert max(lengths.values()) <= 1000, max(lengths, key=lambda path: lengths[path])
    assert statistics.median(lengths.values()) <= 250


def test_readme_tour_runs(tmp_path: Path) -> None:
    snippets = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert snippets
    for snippet in snippets:
        done = run(snippet, cwd=tmp_path, text=True)
        assert done.returncode == 0, done.stderr


def test_documented_batch_is_what_is_written() -> None:
    from penstock._native.builder import BatchBuilder

    section = (ROOT / "docs" / "format.md").read_text().split("Worked example", 1)[1]
    documented = re.sub(r"\s", "", re.findall(r"```text\n(.*?)```", section, re.DOTALL)[0])
    builder = BatchBuilder()
    builder.append(b"v", b"k", None, 1000)
    builder.seal()
    assert bytes(builder).hex() == documented
