"""Where the time goes: instructions of the paths behind the bars, as `python -m bench.instructions --save` counts."""

from __future__ import annotations

import json
from typing import Any

from bench.compare.bars import Bar
from bench.compare.results import figure
from bench.instructions import PROFILE

Results = dict[str, Any]
Profile = dict[str, dict[str, Any]]
SEND, VALUES = "send_many of a list, stored", "poll_batches and values()"
RECORDS, QUEUE = "iteration over Record objects", "receive and ack_many of a queue"
# words in the name of a bar -> the paths that it measures
PATHS = {
    "produce 100 B: lists": (SEND,),
    "consume 100 B: bytes objects": (VALUES,),
    "consume 100 B: Record objects": (RECORDS,),
    "queue, receive and acknowledge": (QUEUE,),
    "lists in, Record objects out": (SEND, RECORDS),
    "lists in, bytes objects out": (SEND, VALUES),
}
INTRODUCTION = """\
Instructions a record of 100 bytes, counted by callgrind (`python -m bench.instructions`), and the functions that
execute most of them. What they do not show are pages that are touched for the first time: reading and writing at these
rates is bound by memory as well."""


def kept() -> Profile:
    """The committed one; empty without."""
    found: Profile = json.loads(PROFILE.read_text()) if PROFILE.exists() else {}
    return found


def section(results: Results, bars: list[Bar], profile: Profile) -> str:
    """Markdown: the profile of each path, and what explains each bar that falls short."""
    lines = [INTRODUCTION, ""]
    if profile:
        lines += ["| path | instructions a record | of which |", "|---|---:|---|"]
    for name, path in profile.items():
        shares = ", ".join(f"{function} {share:.0%}" for function, share in path["functions"].items())
        lines.append(f"| {name} | {path['instructions']:,.0f} | {shares} |")
    reasons = [_reason(results, bar, profile) for bar in bars if bar.verdict == "short"]
    return "\n".join([*lines, "", *(reasons or ["No bar falls short."])])


def _reason(results: Results, bar: Bar, profile: Profile) -> str:
    head = f"- {bar.name}:"
    if bar.name.startswith("end to end at 10,000/s"):
        return f"{head} {_machine(results, bar.name.split(', ')[1].split(':')[0])}"
    paths = next((paths for words, paths in PATHS.items() if words in bar.name), ())
    counts = [f"{profile[path]['instructions']:,.0f} of {path}" for path in paths if path in profile]
    counted = f"instructions a record: {', '.join(counts)}" if counts else "no instructions are counted on this path"
    return f"{head} {counted}."


def _machine(results: Results, mark: str) -> str:
    bare = figure(results, "latency-10k", "floor", f"{mark}_us")
    stolen = figure(results, "latency-10k", "penstock", "stolen_percent")
    words = "not measured" if bare is None else f"{bare:,.3g} us"
    taken = "an unknown part" if stolen is None else f"{stolen:.2g} %"
    return (
        f"{mark} of a bare word of shared memory, without a log, is {words}; of the cores' time the host took {taken}."
    )
