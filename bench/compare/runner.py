"""Runs the turns: workload by workload, round by round, side after side, so that all meet the same machine."""

from __future__ import annotations

import importlib
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.compare import groups
from bench.compare.child import ChildError
from bench.compare.clients.base import lacking, not_applicable
from bench.compare.model import CACHE, Absent, Side, Turn, Workload
from bench.compare.state import State
from bench.compare.systems.base import Running, System
from bench.compare.turn import Setting, Sizes

Report = Callable[[str], None]


@dataclass(slots=True)
class Plan:
    """What is to be run, and where."""

    systems: list[System]
    workloads: list[Workload]
    rounds: int
    sizes: Sizes
    directory: Path
    cache: Path


@dataclass(slots=True)
class Runner:
    """Use as a context manager: leaving it ends every process and removes the files."""

    plan: Plan
    state: State
    say: Report
    absent: dict[str, str] = field(default_factory=dict)  # system or side -> why
    versions: dict[str, str] = field(default_factory=dict)
    _running: dict[tuple[str, str], Running] = field(default_factory=dict)
    _rates: dict[tuple[str, str], float] = field(default_factory=dict)
    _number: int = 0

    def __enter__(self) -> Runner:
        return self

    def __exit__(self, *_: object) -> None:
        with groups.held():
            for running in self._running.values():
                running.stop()
            groups.end_all()
            shutil.rmtree(self.plan.directory, ignore_errors=True)

    def prepare(self) -> None:
        """Get every system; those that cannot be had are absent from here on, and so are sides without their client."""
        for system in self.plan.systems:
            self.say(f"getting {system.name}")
            try:
                system.prepare(self.plan.cache)
                self.versions[system.name] = system.version()
            except Absent as reason:
                self.absent[system.name] = str(reason)
            for side in system.sides:
                if (reason_why := lacking(side.client)) is not None:
                    self.absent[side.name] = reason_why

    def sides(self, workload: Workload) -> list[tuple[System, Side]]:
        """Those that have a notion of a workload."""
        every = [(system, side) for system in self.plan.systems for side in system.sides]
        return [(system, side) for system, side in every if self.excuse(system, side, workload) is None]

    def excuse(self, system: System, side: Side, workload: Workload) -> dict[str, str] | None:
        """Why there is no figure: {"absent": ...} or {"n/a": ...}; None if there is to be one."""
        for name in (system.name, side.name):
            if name in self.absent:
                return {"absent": self.absent[name]}
        if workload.name in side.workloads:
            return None
        if side.workloads or not (side.tuned or workload.plain):
            return {"n/a": "not measured for this variant"}
        reason = not_applicable(side.client, workload.kind, workload.name, side.options)
        return None if reason is None else {"n/a": reason}

    def count(self) -> int:
        """Turns of the whole plan."""
        return self.plan.rounds * sum(len(self.sides(workload)) for workload in self.plan.workloads)

    def run(self, advance: Callable[[], None]) -> None:
        """Every turn that is not done yet."""
        for workload in self.plan.workloads:
            for number in range(self.plan.rounds):
                for system, side in self.sides(workload):
                    self.say(f"{workload.name}: {side.label}")
                    key = (workload.name, side.name, number)
                    outcome = self.state.get(key)
                    if outcome is None:
                        outcome = self._outcome(system, side, workload)
                        self.state.put(key, outcome)
                    if "figure" in outcome and not workload.less_is_better:
                        self._rates[(workload.name, side.name)] = outcome["figure"]
                    advance()
            if workload.durability != CACHE:
                self._stop(workload.durability)

    def _outcome(self, system: System, side: Side, workload: Workload) -> dict[str, Any]:
        try:
            return self._turn(system, side, workload).to_dict()
        except (ChildError, Absent) as error:
            self._forget_dead(system)
            return {"failed": str(error)}

    def _turn(self, system: System, side: Side, workload: Workload) -> Turn:
        self._number += 1
        run = importlib.import_module(f"bench.compare.workloads.{workload.kind}").run
        running = self._start(system, workload.durability)
        self._let_alone(running)
        os.sync()
        rate = self._rates.get((workload.name, side.name))
        topic = f"turn{self._number:04}"
        setting = Setting(
            system, side, workload, running, self.plan.sizes, self.plan.directory / "scratch", topic, rate
        )
        setting.scratch.mkdir(parents=True, exist_ok=True)
        try:
            turn: Turn = run(setting)
            return turn
        finally:
            if not running.servers:
                shutil.rmtree(running.directory, ignore_errors=True)

    def _start(self, system: System, durability: str) -> Running:
        """The server that is up, or a new one; a library gets an empty directory each time."""
        key = (system.name, durability)
        if key not in self._running:
            directory = self.plan.directory / f"{system.name}-{durability.replace(' ', '-')}-{self._number}"
            running = system.start(directory, durability)
            if not running.servers:
                return running
            self._running[key] = running
        return self._running[key]

    def _let_alone(self, running: Running) -> None:
        """Other systems' servers get no time while it is this one's turn."""
        for other in self._running.values():
            if other is not running:
                other.pause()
        running.resume()

    def _stop(self, durability: str) -> None:
        for key in [key for key in self._running if key[1] == durability]:
            running = self._running.pop(key)
            running.stop()
            shutil.rmtree(running.directory, ignore_errors=True)

    def _forget_dead(self, system: System) -> None:
        """A server that ended is started anew for the next turn."""
        for key in [key for key in self._running if key[0] == system.name]:
            if any(server.process.poll() is not None for server in self._running[key].servers):
                self._running.pop(key).stop()
