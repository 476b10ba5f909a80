"""CPU time, memory and disk of processes and directories, from the system's own accounts (Linux; elsewhere nothing)."""

from __future__ import annotations

import os
import resource
from pathlib import Path

PROC = Path("/proc")


def own_cpu_s() -> float:
    """CPU seconds of this process and of its ended children."""
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def group_pids(group: int) -> list[int]:
    """The live processes of a process group."""
    found = []
    for entry in PROC.glob("[0-9]*/stat"):
        fields = _stat(entry)
        if fields and fields[0] != "Z" and int(fields[2]) == group:
            found.append(int(entry.parent.name))
    return found


def cpu_s(pids: list[int]) -> float:
    """CPU seconds that these processes and their ended children have used."""
    ticks = 0
    for pid in pids:
        fields = _stat(PROC / str(pid) / "stat")
        if fields:
            ticks += sum(int(field) for field in fields[11:15])
    return ticks / os.sysconf("SC_CLK_TCK")


def stolen_ticks() -> tuple[int, int]:
    """Ticks of all cores that a virtual machine wanted and its host gave to others, and all ticks."""
    counters = PROC / "stat"
    fields = counters.read_text().split("\n", 1)[0].split()[1:9] if counters.exists() else []
    ticks = [int(field) for field in fields]
    return (ticks[7], sum(ticks)) if len(ticks) == 8 else (0, 0)


def memory_mib(pids: list[int], field: str = "VmRSS") -> float:
    """The sum of one field of /proc/PID/status: VmRSS, VmHWM (the peak), RssAnon."""
    return sum(_status_kib(pid, field) for pid in pids) / 1024


def forget_peak() -> None:
    """Let VmHWM of this process begin anew."""
    clear = PROC / "self" / "clear_refs"
    if clear.exists():
        clear.write_text("5")


def disk_bytes(directory: Path) -> int:
    """Allocated bytes below a directory; files that vanish meanwhile count nothing."""
    total = 0
    for folder, _, names in os.walk(directory):
        for name in names:
            try:
                total += os.lstat(os.path.join(folder, name)).st_blocks * 512
            except FileNotFoundError:
                continue
    return total


def _stat(path: Path) -> list[str] | None:
    """The fields after the command's name, which may contain anything: state, parent, group, ..."""
    try:
        return path.read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None


def _status_kib(pid: int, field: str) -> int:
    try:
        lines = (PROC / str(pid) / "status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith(f"{field}:")), 0)
