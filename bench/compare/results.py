"""The results of a run: medians over the rounds, with what was measured on what."""

from __future__ import annotations

import statistics
import time
from typing import Any

from bench.compare.model import Workload, rounded
from bench.compare.runner import Runner


def collect(runner: Runner, environment: dict[str, str], quick: bool) -> dict[str, Any]:
    """Everything that is kept, as plain values."""
    plan = runner.plan
    sides = {side.name: {"system": system.name, **side.describe()} for system in plan.systems for side in system.sides}
    return {
        "date": time.strftime("%Y-%m-%d"),
        "quick": quick,
        "rounds": plan.rounds,
        "environment": environment,
        "systems": {
            system.name: {"absent": runner.absent[system.name]}
            if system.name in runner.absent
            else {"version": runner.versions[system.name]}
            for system in plan.systems
        },
        "sides": sides,
        "workloads": {workload.name: _described(workload) for workload in plan.workloads},
        "cells": {workload.name: _row(runner, workload) for workload in plan.workloads},
    }


def _described(workload: Workload) -> dict[str, Any]:
    return {
        "title": workload.title,
        "unit": workload.unit,
        "less_is_better": workload.less_is_better,
        "durability": workload.durability,
    }


def _row(runner: Runner, workload: Workload) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for system in runner.plan.systems:
        for side in system.sides:
            excuse = runner.excuse(system, side, workload)
            row[side.name] = excuse if excuse is not None else _cell(runner, workload, side.name)
    return row


def _cell(runner: Runner, workload: Workload, side: str) -> dict[str, Any]:
    outcomes = [runner.state.get((workload.name, side, number)) for number in range(runner.plan.rounds)]
    done = [outcome for outcome in outcomes if outcome is not None and "figure" in outcome]
    if not done:
        failures = [outcome["failed"] for outcome in outcomes if outcome is not None]
        return {"failed": failures[0] if failures else "not run"}
    names = [name for name in done[0] if all(name in outcome for outcome in done)]
    cell = {name: rounded(statistics.median(outcome[name] for outcome in done)) for name in names}
    return {**cell, "rounds": [outcome["figure"] for outcome in done]}


def figure(results: dict[str, Any], workload: str, side: str, name: str = "figure") -> float | None:
    """One number of the results; None where there is none."""
    found = results["cells"].get(workload, {}).get(side, {}).get(name)
    return None if found is None else float(found)


def best(results: dict[str, Any], workload: str, sides: tuple[str, ...]) -> str | None:
    """The side with the best figure; None if none has one."""
    found = {side: value for side in sides if (value := figure(results, workload, side)) is not None}
    if not found:
        return None
    less = results["workloads"][workload]["less_is_better"]
    return min(found, key=lambda side: found[side] if less else -found[side])
