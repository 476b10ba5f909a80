"""`python -m bench.regression REV_A REV_B`: is the second revision slower than the first?

Both are checked out and built in directories of their own. The operations of `pytest bench` are then timed in turns
(A B A B), and the medians compared; an operation that takes more than `--limit` percent longer makes the command fail.
Operations that one of the revisions does not have are named and left out.

For one checkout against itself, pytest-benchmark's own baselines do: `pytest bench --benchmark-autosave`, later
`pytest bench --benchmark-compare --benchmark-compare-fail=median:10%`.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[1]
NATIVE = ("ext", "setup.py")
Times = dict[str, list[float]]


def main(arguments: list[str] | None = None) -> None:
    """Build, time, compare."""
    parser = argparse.ArgumentParser(prog="python -m bench.regression", description=__doc__)
    parser.add_argument("first", metavar="REV_A", help="the revision to be measured against")
    parser.add_argument("second", metavar="REV_B", help="the revision in question")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each (default 3)")
    parser.add_argument("--limit", type=float, default=10.0, help="percent that a median may grow (default 10)")
    parser.add_argument("-k", dest="only", default="", help="operations to time, as pytest's -k")
    parser.add_argument("--quick", action="store_true", help="short measurements, to see that it works")
    options = parser.parse_args(arguments)
    times: tuple[Times, Times] = ({}, {})
    with tempfile.TemporaryDirectory() as work, checked_out(options.first, Path(work, "a")) as first:
        with checked_out(options.second, Path(work, "b")) as second:
            for _ in range(1 if options.quick else options.rounds):
                for tree, found in zip((first, second), times, strict=True):
                    for name, median in timed(tree, Path(work), options.only, options.quick).items():
                        found.setdefault(name, []).append(median)
    slower = report(*times, options.limit)
    if slower:
        raise SystemExit(f"slower by more than {options.limit:g} %: {', '.join(slower)}")


@contextmanager
def checked_out(revision: str, directory: Path) -> Iterator[Path]:
    """A worktree of the revision with its native modules built."""
    git = ["git", "-C", str(ROOT), "worktree"]
    subprocess.run([*git, "add", "-q", "--detach", str(directory), revision], check=True)
    try:
        build(revision, directory)
        yield directory
    finally:
        subprocess.run([*git, "remove", "--force", str(directory)], check=True)


def build(revision: str, directory: Path) -> None:
    """Compile; where the sources are those of this checkout, and it is built, its modules are taken."""
    same = subprocess.run(["git", "-C", str(ROOT), "diff", "--quiet", revision, "--", *NATIVE], check=False)
    native = Path("src", "penstock", "_native")
    built = list((ROOT / native).glob("*.so"))
    if same.returncode == 0 and built:
        for module in built:
            shutil.copy2(module, directory / native)
        return
    print(f"building {revision}", flush=True)
    command = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{revision} does not build: {done.stderr[-1000:]}")


def timed(tree: Path, work: Path, only: str, quick: bool) -> dict[str, float]:
    """Seconds of each operation (the median), with this checkout's benchmarks on the other's package."""
    out = work / "times.json"
    out.unlink(missing_ok=True)
    seconds = ["--benchmark-max-time=0.05", "--benchmark-min-rounds=2"] if quick else ["--benchmark-max-time=0.5"]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(ROOT / "bench"), "-k", only]
    environment = {**os.environ, "PYTHONPATH": f"{tree / 'src'}{os.pathsep}{ROOT}"}
    arguments = [*command, *seconds, f"--benchmark-json={out}", f"--rootdir={ROOT}"]
    done = subprocess.run(arguments, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if not out.exists() or not out.stat().st_size:
        raise SystemExit(f"nothing was timed: {done.stdout[-1000:]}{done.stderr[-500:]}")
    # an operation that an older revision does not have fails there, and is not among the results
    return {entry["name"]: entry["stats"]["median"] for entry in json.loads(out.read_text())["benchmarks"]}


def report(first: Times, second: Times, limit: float) -> list[str]:
    """Print a line for each operation; the names of those that became slower by more than `limit` percent."""
    slower = []
    print(f"{'operation':<44}{'A, us':>12}{'B, us':>12}{'change':>10}")
    for name in sorted(first.keys() & second.keys()):
        before, after = statistics.median(first[name]), statistics.median(second[name])
        change = (after / before - 1) * 100
        print(f"{name:<44}{before * 1e6:>12,.2f}{after * 1e6:>12,.2f}{change:>+9.1f}%")
        if change > limit:
            slower.append(name)
    for name in sorted(first.keys() ^ second.keys()):
        print(f"{name:<44}only in {'A' if name in first else 'B'}")
    return slower


if __name__ == "__main__":
    main()
