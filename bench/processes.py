"""CPU seconds and memory of the processes of a running stack, from /proc."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Usage:
    """CPU seconds since the process started (with its children that ended) and resident memory in MiB."""

    cpu_seconds: float
    rss_mib: float


def _descendants(pid: int) -> list[int]:
    found = [pid]
    for parent in found:
        for task in Path(f"/proc/{parent}/task").glob("*/children"):
            found.extend(int(child) for child in task.read_text().split())
    return found


def usage(pid: int) -> Usage:
    """Return the usage of `pid` and its living children; zeros when it is gone."""
    cpu = rss = 0.0
    try:
        for process in _descendants(pid):
            fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
            cpu += sum(int(fields[index]) for index in (11, 12)) / TICKS
            for line in Path(f"/proc/{process}/status").read_text().splitlines():
                if line.startswith("VmRSS:"):
                    rss += int(line.split()[1]) / 1024
    except OSError:
        pass
    return Usage(cpu, rss)


def snapshot(services: dict[str, int]) -> dict[str, Usage]:
    """Return the usage of every service of a ready file."""
    return {name: usage(pid) for name, pid in services.items()}


def difference(before: dict[str, Usage], after: dict[str, Usage]) -> list[str]:
    """Return a line per process: CPU seconds used in between, memory now."""
    return [
        f"    {name:<14} cpu {after[name].cpu_seconds - before[name].cpu_seconds:6.2f} s   rss {after[name].rss_mib:7.1f} MiB"
        for name in after
        if name in before
    ]
