"""What processes use, what the system lets them use, and whether it has killed one for lack of memory.

Reads /proc, /sys/fs/cgroup and the process's own limits; decides nothing. What a system does not tell is None.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

MIB = 1024 * 1024
_V2 = Path("/sys/fs/cgroup")
_V1 = Path("/sys/fs/cgroup/memory")
_UNLIMITED = 1 << 60  # cgroup v1 writes a number near 2 ** 63 for "no limit"


class Memory(NamedTuple):
    """Bytes that the container may use and uses."""

    limit: int
    used: int


def memory_of(pids: Iterable[int]) -> dict[int, int]:
    """Bytes of each process that is there; shared ones are divided among those who share them (not so on macOS)."""
    import psutil  # on first use: a supervisor that looks at no memory does without

    found = {}
    for pid in pids:
        try:
            memory = psutil.Process(pid).memory_full_info()
        except psutil.Error:
            continue
        found[pid] = int(getattr(memory, "pss", 0) or memory.rss)
    return found


def cpu_of(pids: Iterable[int]) -> dict[int, float]:
    """Seconds of a processor that each process that is there has used."""
    import psutil

    found = {}
    for pid in pids:
        try:
            times = psutil.Process(pid).cpu_times()
        except psutil.Error:
            continue
        found[pid] = times.user + times.system
    return found


def container_memory(v2: Path = _V2, v1: Path = _V1) -> Memory | None:
    """The limit of this process's container and what it uses; None without a limit."""
    for limit_path, used_path in (
        (v2 / "memory.max", v2 / "memory.current"),
        (v1 / "memory.limit_in_bytes", v1 / "memory.usage_in_bytes"),
    ):
        limit, used = _number(limit_path), _number(used_path)
        if limit is not None and used is not None and limit < _UNLIMITED:
            return Memory(limit, used)
    return None


def oom_kills(v2: Path = _V2, vmstat: Path = Path("/proc/vmstat")) -> int | None:
    """How many processes the kernel has killed for lack of memory, in this container or on this machine."""
    for path in (v2 / "memory.events", vmstat):
        try:
            lines = path.read_text().splitlines()
        except OSError:
            continue
        for line in lines:
            name, _, value = line.partition(" ")
            if name == "oom_kill" and value.isdigit():
                return int(value)
    return None


def describe_limits() -> str:
    """What the system lets this process use, as a line."""
    files = _limit(resource.RLIMIT_NOFILE)
    processes = _limit(resource.RLIMIT_NPROC)
    container = container_memory()
    memory = f"{container.limit // MIB} MiB in this container" if container else f"{_total() // MIB} MiB"
    return f"limits: {files} open files, {processes} processes and threads, memory {memory}"


def _total() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _limit(kind: int) -> str:
    soft, _ = resource.getrlimit(kind)
    return "any number of" if soft == resource.RLIM_INFINITY else str(soft)


def _number(path: Path) -> int | None:
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None
