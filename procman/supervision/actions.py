"""What the rules of ``policy.py`` ask for and ``engine.py`` carries out, and the slots that they are about."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

# What a process may wait for before it is started for the first time, of another type.
STARTED = "started"  # a process of it was started
READY = "ready"  # one was ready
COMPLETED = "completed"  # all have run to their end
COMPLETED_SUCCESSFULLY = "completed_successfully"  # all have, with status 0
CONDITIONS = (STARTED, READY, COMPLETED, COMPLETED_SUCCESSFULLY)


class Member(NamedTuple):
    """A slot of the formation, as far as the rules care.

    ``overlaps``: where it is restarted on purpose, its successor is ready before it is asked to stop. ``after``: types
    and what must have become of each (one of ``CONDITIONS``) before this one is started for the first time.
    ``is_needed``: once it was ready, the site does not go on without it. ``is_optional``: the site starts without it,
    too. ``runs_once``: it is not started again when it has ended. ``ready_after``: seconds that it has to live to count
    as ready; None: it says so itself. ``is_reloaded``: it runs code that is being written. Where that does not start, a
    change of it is waited for.
    """

    name: str
    type: str
    stop_phase: int = 0
    stops_by_lifetime: bool = False
    overlaps: bool = False
    after: tuple[tuple[str, str], ...] = ()
    is_needed: bool = True
    is_optional: bool = False
    runs_once: bool = False
    ready_after: float | None = None
    is_reloaded: bool = False


@dataclass(frozen=True, slots=True)
class Spawn:
    """Start the process of this slot, then report ``spawned`` or ``spawn_failed``."""

    name: str


@dataclass(frozen=True, slots=True)
class Terminate:
    """Send SIGTERM to the process (not to its children: it may still need them)."""

    name: str


@dataclass(frozen=True, slots=True)
class CloseLifetime:
    """Close the lifetime pipe of this slot's own."""

    name: str


@dataclass(frozen=True, slots=True)
class Kill:
    """Send SIGKILL to the whole process group."""

    name: str


@dataclass(frozen=True, slots=True)
class Log:
    """Print a line of the supervisor's own. ``level`` is ``INFO``, ``WARNING`` or ``ERROR``."""

    level: str
    text: str


@dataclass(frozen=True, slots=True)
class Abort:
    """Send SIGABRT to the process, so that it prints what it is doing before it is killed."""

    name: str


@dataclass(frozen=True, slots=True)
class Rename:
    """The slot *name*, with its process, is called *to* from here on."""

    name: str
    to: str


@dataclass(frozen=True, slots=True)
class Forget:
    """The slot is no part of the formation any more; it has no process."""

    name: str


@dataclass(frozen=True, slots=True)
class Announce:
    """Every type has a running process for the first time."""


@dataclass(frozen=True, slots=True)
class Quit:
    """Nothing is left to wait for; the formation's exit status."""

    status: int


Action = Spawn | Terminate | CloseLifetime | Kill | Abort | Log | Rename | Forget | Announce | Quit
