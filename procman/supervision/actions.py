"""What the rules of ``policy.py`` ask for and ``engine.py`` carries out, and the slots that they are about."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class Member(NamedTuple):
    """A slot of the formation, as far as the rules care.

    ``overlaps``: where it is restarted on purpose, its successor is ready before it is asked to stop. ``after``: a type
    of which a process must have been ready before this one is started for the first time. ``is_needed``: once it was
    ready, the site does not go on without it.
    """

    name: str
    type: str
    stop_phase: int = 0
    stops_by_lifetime: bool = False
    overlaps: bool = False
    after: str = ""
    is_needed: bool = True


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
