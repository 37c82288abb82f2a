"""What is to be done for one WebSocket: ``connection.py`` decides on it, ``websocket.py`` carries it out."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Offer:
    """Hand a frame to the workers: the connect (*data* None) or a received message."""

    order: int
    data: str | bytes | None


@dataclass(slots=True)
class Accept:
    """Answer the handshake with 101."""


@dataclass(slots=True)
class Refuse:
    """Answer the handshake with an error and end the connection; *limit* is the setting that was met, if one was."""

    status: int
    text: str
    limit: str = ""


@dataclass(slots=True)
class Write:
    """Send a complete frame."""

    frame: bytes


@dataclass(slots=True)
class Ping:
    """Send a ping."""


@dataclass(slots=True)
class Close:
    """Send a close frame with *code*."""

    code: int
    reason: str = ""


@dataclass(slots=True)
class Abort:
    """Drop the connection without ceremony."""


@dataclass(slots=True)
class PauseReading:
    """Read nothing from the client until ``ResumeReading``."""


@dataclass(slots=True)
class ResumeReading:
    """Read from the client again."""


@dataclass(slots=True)
class End:
    """The socket is over, also for the layer; *order* None: it was never accepted and has no disconnect."""

    code: int
    order: int | None
    reason: str = ""


@dataclass(slots=True)
class Mirror:
    """Tell the layer what its record of this socket lacks: its session, beside the *order* of its next frame."""

    order: int
    session: bytes


@dataclass(slots=True)
class Withdraw:
    """The client has left before the application answered: its connect is not wanted any more, if nobody runs it."""


@dataclass(slots=True)
class AcceptLate:
    """The application accepts a socket whose client has left meanwhile: the layer owes it a disconnect."""

    order: int
    session: bytes


@dataclass(slots=True)
class Count:
    """Count that the limit of this setting slowed the socket down or ended it."""

    limit: str


@dataclass(slots=True)
class Report:
    """Log a problem; *level* is the logging level's name."""

    level: str
    text: str


Action = (
    Offer | Accept | AcceptLate | Refuse | Withdraw | Write | Ping | Close | Abort | PauseReading | ResumeReading | End
    | Mirror | Count | Report
)  # fmt: skip
NOTHING: list[Action] = []
