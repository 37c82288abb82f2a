"""Looks at the memory that the processes and their container use, for ``MemoryWatch`` to judge. Decides nothing."""

from __future__ import annotations

import signal
from collections.abc import Iterable, Mapping

from procman.supervision import usage
from procman.supervision.memory import MemoryWatch


class MemoryCheck:
    """One for a supervisor; *max_rss* in MiB, 0: no limit."""

    def __init__(self, max_rss: int) -> None:
        self._max_rss = max_rss
        self._watch = MemoryWatch(max_rss * usage.MIB)
        self._oom_kills = usage.oom_kills()

    @property
    def interval(self) -> float:
        """Seconds between two looks; 0: there is nothing to look at."""
        return self._watch.interval if self._max_rss or usage.container_memory() is not None else 0.0

    def look(self, pids: Iterable[int], replaceable: Mapping[str, int]) -> tuple[list[str], str | None]:
        """Warnings, and which of *replaceable* (name: process id) is to be replaced by a successor, if one is.

        *pids* are all processes that count.
        """
        warnings = []
        container = usage.container_memory()
        if container is not None and self._watch.is_worth_a_warning(container.used, container.limit):
            warnings.append(
                f"this container uses {container.used // usage.MIB} MiB of its {container.limit // usage.MIB} MiB of "
                "memory; past that the kernel kills processes: fewer --workers or --max-rss keep away from it"
            )
        if not self._max_rss:
            return warnings, None
        used = usage.memory_of(pids)
        total = sum(used.values())
        workers = {name: used[pid] for name, pid in replaceable.items() if pid in used}
        name = self._watch.largest_of(workers, total)
        if name is not None:
            text = f"the site uses {total // usage.MIB} MiB, over --max-rss {self._max_rss}; replacing {name}"
            vain = "; all were replaced before, and it did not help: raise --max-rss, or run fewer --workers"
            warnings.append(f"{text} ({workers[name] // usage.MIB} MiB){vain if self._watch.is_in_vain else ''}")
        return warnings, name

    def may_have_killed(self, status: int) -> bool:
        """Whether the kernel has killed a process for lack of memory since this was asked last, and this may be it."""
        if status != -signal.SIGKILL:
            return False
        before, self._oom_kills = self._oom_kills, usage.oom_kills()
        return before is not None and self._oom_kills is not None and self._oom_kills > before
