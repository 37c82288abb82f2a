"""Process types times counts: the ordered list of processes to run, with their names ``worker.1``, ``worker.2``.

Pure. What the processes are is decided by the caller; ``engine.py`` runs the list.
"""

from __future__ import annotations

import signal
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from procman.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class ProcessType:
    """What the copies of one type share.

    ``stop_phase`` orders a stop: a phase begins when the processes of earlier ones are gone. ``stops_by_lifetime``: it
    is told to stop by the end of a lifetime pipe of its own, not by SIGTERM. ``single``: one copy, named like the type.
    ``overlaps``: where it is restarted on purpose, the successor is ready before the old one is asked to stop.
    ``after``, ``is_needed``, ``is_optional``, ``runs_once``, ``ready_after``, ``is_reloaded``: see ``actions.Member``.
    ``stop_signal`` is sent to the process, or to its whole group where the command is a shell's (``signals_group``).
    ``announces``: it says by itself that it is ready and that it lives (``procman.lifetime``); otherwise it is given no
    descriptors for that, and ``ready_log`` (a regular expression of its output) or ``ready_port`` (TCP, on this host)
    tell. ``port``: the PORT of the first copy, the next has the next one; 0: none is set.
    ``hears_news``: it is told of code that has changed (``ENV_NEWS_FD``). ``is_preloader``: it forks, on request, the
    processes of the types that are ``is_forked``; where it cannot, these are started by their command.
    ``listeners``: for each copy the listening descriptors that it alone is given, as ``--fd`` behind the others.
    """

    name: str
    argv: Sequence[str]
    count: int = 1
    env: Mapping[str, str] = field(default_factory=dict)
    pass_fds: tuple[int, ...] = ()
    stop_phase: int = 0
    stops_by_lifetime: bool = False
    single: bool = False
    overlaps: bool = False
    after: tuple[tuple[str, str], ...] = ()
    is_needed: bool = True
    is_optional: bool = False
    runs_once: bool = False
    ready_after: float | None = None
    is_reloaded: bool = False
    stop_signal: int = signal.SIGTERM
    signals_group: bool = False
    announces: bool = True
    hears_news: bool = False
    ready_log: str = ""
    ready_port: int = 0
    port: int = 0
    is_preloader: bool = False
    is_forked: bool = False
    listeners: tuple[tuple[int, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class ProcessSpec:
    """One process of the formation: a copy of *kind*, with what is its own."""

    name: str
    kind: ProcessType
    argv: tuple[str, ...]
    pass_fds: tuple[int, ...] = ()
    number: int = 1

    @property
    def type(self) -> str:
        """The name of its type."""
        return self.kind.name

    @property
    def is_scalable(self) -> bool:
        """Whether there may be more or fewer of its type while the others run."""
        return not (self.kind.single or self.kind.listeners)


def build_formation(types: Iterable[ProcessType]) -> list[ProcessSpec]:
    """The processes of *types* in the order in which they are started.

    Raises:
        ConfigurationError: a type is named twice or has no command, or a count does not fit.
    """
    specs: list[ProcessSpec] = []
    seen: set[str] = set()
    for kind in types:
        if kind.name in seen:
            raise ConfigurationError(f"process type {kind.name!r} is given twice")
        if not kind.argv:
            raise ConfigurationError(f"process type {kind.name!r} has no command")
        if kind.count < 0 or (kind.single and kind.count != 1):
            raise ConfigurationError(f"process type {kind.name!r} cannot have {kind.count} processes")
        if kind.listeners and len(kind.listeners) != kind.count:
            raise ConfigurationError(f"process type {kind.name!r} has listeners for {len(kind.listeners)} processes")
        seen.add(kind.name)
        for number in range(1, kind.count + 1):
            name = kind.name if kind.single else f"{kind.name}.{number}"
            fds = kind.listeners[number - 1] if kind.listeners else ()
            argv = (*kind.argv, *(word for fd in fds for word in ("--fd", str(fd))))
            specs.append(ProcessSpec(name, kind, argv, (*kind.pass_fds, *fds), number))
    return specs
