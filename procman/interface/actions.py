"""What is to be done for one WebSocket: ``connection.py`` decides on it, ``websocket.py`` carries it out."""

from __future__ import annotations

from typing import NamedTuple


class Offer(NamedTuple):
    """Hand a frame to the workers: the connect (*data* None) or a received message."""

    order: int
    data: str | bytes | None


class Accept(NamedTuple):
    """Answer the handshake with 101."""


class Refuse(NamedTuple):
    """Answer the handshake with an error and end the connection; *limit* is the setting that was met, if one was."""

    status: int
    text: str
    limit: str = ""


class Write(NamedTuple):
    """Send a complete frame."""

    frame: bytes


class Ping(NamedTuple):
    """Send a ping."""


class Close(NamedTuple):
    """Send a close frame with *code*."""

    code: int
    reason: str = ""


class Abort(NamedTuple):
    """Drop the connection without ceremony."""


class PauseReading(NamedTuple):
    """Read nothing from the client until ``ResumeReading``."""


class ResumeReading(NamedTuple):
    """Read from the client again."""


class End(NamedTuple):
    """The socket is over, also for the layer; *order* None: it was never accepted and has no disconnect."""

    code: int
    order: int | None
    reason: str = ""


class Mirror(NamedTuple):
    """Tell the layer what its record of this socket lacks: its session, beside the *order* of its next frame."""

    order: int
    session: bytes


class Count(NamedTuple):
    """Count that the limit of this setting slowed the socket down or ended it."""

    limit: str


class Report(NamedTuple):
    """Log a problem; *level* is the logging level's name."""

    level: str
    text: str


Action = (
    Offer
    | Accept
    | Refuse
    | Write
    | Ping
    | Close
    | Abort
    | PauseReading
    | ResumeReading
    | End
    | Mirror
    | Count
    | Report
)
NOTHING: list[Action] = []
