"""Supervisor's state words, the legal moves between them, and the exit statuses of a whole formation.

Pure. The words and numbers are those of the third-party ``supervisor``, so that its clients understand them.
"""

from __future__ import annotations

import enum
import signal
from dataclasses import dataclass

STOPPED_BY_REQUEST = 0  # asked to stop, and did
NEVER_READY = 4  # gave up: a process that is needed could not be started
CRASH_LOOP = 5  # gave up: everything had been up, then a type had no running member for too long
FORCED = 130  # a second SIGINT forced the end, as a shell reports death by SIGINT
OUTPUT_CLOSED = 141  # nobody reads the log any more, as a shell reports death by SIGPIPE


class State(enum.Enum):
    """What a process of the formation is doing. The value is supervisor's number for it."""

    STOPPED = 0
    STARTING = 10
    RUNNING = 20
    BACKOFF = 30
    STOPPING = 40
    EXITED = 100
    FATAL = 200


MOVES: dict[State, frozenset[State]] = {
    State.STOPPED: frozenset({State.STARTING}),
    State.STARTING: frozenset({State.RUNNING, State.BACKOFF, State.STOPPING, State.FATAL, State.EXITED}),
    State.RUNNING: frozenset({State.STARTING, State.BACKOFF, State.STOPPING, State.EXITED, State.FATAL}),
    State.BACKOFF: frozenset({State.STARTING, State.STOPPED, State.FATAL}),
    State.STOPPING: frozenset({State.STARTING, State.STOPPED, State.EXITED, State.BACKOFF}),
    State.EXITED: frozenset({State.STARTING}),
    State.FATAL: frozenset({State.STARTING, State.STOPPED}),
}
ALIVE = frozenset({State.STARTING, State.RUNNING, State.STOPPING})


@dataclass(frozen=True, slots=True)
class ProcessInfo:
    """One process as ``status`` shows it. Times are wall-clock seconds; ``uptime`` is seconds since it was ready.

    ``exit_status`` is that of the previous run, negative for a signal; None if there was none.
    """

    name: str
    type: str
    pid: int | None
    state: State
    uptime: float
    started: float
    ended: float
    restarts: int
    exit_status: int | None

    def to_dict(self) -> dict[str, object]:
        """The entry of ``status --json``."""
        return {
            "name": self.name,
            "type": self.type,
            "pid": self.pid,
            "state": self.state.name,
            "uptime": round(self.uptime, 3),
            "restarts": self.restarts,
            "exit_status": self.exit_status,
        }


def describe_exit(status: int) -> str:
    """``exited with status 3`` or ``was killed by SIGKILL``; a negative *status* is a signal's number."""
    if status >= 0:
        return f"exited with status {status}"
    try:
        return f"was killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"was killed by signal {-status}"
