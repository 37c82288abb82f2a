"""One WebSocket's life after its handshake was read: (event, now) -> actions.

Pure. CONNECTING until the application answers, OPEN, CLOSING once a close frame was sent, CLOSED when the connection
has gone. ``websocket.py`` turns bytes into the events and carries out the actions; it decides nothing.

Rules kept here: at most one frame of a socket is with the workers; frames run in the order they came in; each is
offered once; an accepted socket ends with exactly one disconnect, after its last frame. Frames that wait are bounded by
number and by bytes, and those that come by their rate: past that, reading from the socket pauses, and the client's TCP
stack holds the rest.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Mapping
from typing import Any, NamedTuple

from procman.interface.actions import (
    NOTHING,
    Abort,
    Accept,
    AcceptLate,
    Action,
    Close,
    Count,
    End,
    Mirror,
    Offer,
    PauseReading,
    Ping,
    Refuse,
    Report,
    ResumeReading,
    Withdraw,
    Write,
)
from procman.interface.messages import SocketReply
from procman.layers import sessions

# Seconds a client has to answer our close frame. At a stop its disconnect has to run in the time that is left.
CLOSE_TIMEOUT = 3.0
ABNORMAL = 1006  # RFC 6455, 7.1.5: the connection ended without a close frame
INTERNAL_ERROR = 1011  # RFC 6455, 7.4.1: what the application met was its own fault; the client may come again
BURST = 1.0  # seconds of messages at the highest rate that may come at once
HELD_REPLIES = 64  # group messages kept for a socket whose accept is still to come


class State(enum.IntEnum):
    """Where a socket is in its life."""

    CONNECTING = 0
    OPEN = 1
    CLOSING = 2
    CLOSED = 3


class Limits(NamedTuple):
    """What one socket may use; shared by all sockets. Times are seconds, sizes bytes."""

    max_waiting_frames: int = 64
    max_waiting_bytes: int = 2 * 1024 * 1024
    handshake_timeout: float = 20.0
    ping_interval: float = 20.0
    ping_timeout: float = 30.0
    message_rate: float = 0.0  # per second; 0: no limit


class Connection:
    """The state of one socket, all of it: nothing about it is kept elsewhere but its group memberships.

    ``order`` is that of the next frame, ``since`` when the current state's deadline began to run. ``given`` is the
    session that went with the unfinished frame, once another one was merged into it since.
    """

    __slots__ = (
        "accepted",
        "close_code",
        "close_reason",
        "data_at",
        "ended",
        "given",
        "held",
        "is_paused",
        "is_throttled",
        "limits",
        "order",
        "ping_at",
        "rate_at",
        "session",
        "since",
        "state",
        "unfinished",
        "waiting",
        "waiting_bytes",
        "was_throttled",
    )

    def __init__(self, limits: Limits, now: float) -> None:
        self.limits = limits
        self.state = State.CONNECTING
        self.order = 0
        self.session = b""
        self.given: bytes | None = None
        self.unfinished = False
        # Made on first use: most sockets are idle, and an empty deque takes 0.6 KiB.
        self.waiting: deque[str | bytes] | None = None
        self.waiting_bytes = 0
        self.held: list[SocketReply] | None = None
        self.is_paused = False
        self.is_throttled = False  # paused for its rate of messages
        self.was_throttled = False
        self.rate_at = 0.0  # when the messages so far would have come at the highest rate
        self.accepted = False
        self.ended = False
        self.close_code = 0
        self.close_reason = ""  # the client's
        self.since = self.data_at = now
        self.ping_at = 0.0

    # -- events of the client ----------------------------------------------------------------------------------------

    def connect(self) -> list[Action]:
        """The handshake is fine: ask the application."""
        return [self._offer(None)]

    def receive(self, data: str | bytes, now: float) -> list[Action]:
        """A complete message came in. After our close frame it is dropped, as RFC 6455 asks."""
        if self.state is not State.OPEN:
            return NOTHING
        rate = self.limits.message_rate
        if rate:
            self.rate_at = max(self.rate_at, now) + 1.0 / rate
            if self.rate_at - now > BURST and not self.is_throttled:
                self.is_throttled = True
                actions: list[Action] = [Count("max_message_rate"), *self._pause(), *self._receive(data)]
                if not self.was_throttled:  # a client decides how often this happens, and must not fill the log
                    self.was_throttled = True
                    text = f"it sends more than {rate:g} messages a second: it is read more slowly from here on"
                    actions.append(Report("WARNING", text))
                return actions
        return self._receive(data)

    def _receive(self, data: str | bytes) -> list[Action]:
        if not self.unfinished and not self.waiting:
            return [self._offer(data)]
        if self.waiting is None:
            self.waiting = deque()
        self.waiting.append(data)
        self.waiting_bytes += len(data)
        return self._pause() if self._is_full(1) else NOTHING

    def alive(self, now: float) -> None:
        """Bytes came in: the client is there."""
        self.data_at = now
        self.ping_at = 0.0

    def lost(self, code: int = 0, reason: str = "") -> list[Action]:
        """The client's close frame came (*code*, *reason*) or the connection has gone (0)."""
        if self.state is State.CLOSED:
            return NOTHING
        if self.state is State.CONNECTING:
            self.close_code = ABNORMAL
            return self._leave()
        self.state = State.CLOSED
        self.close_reason = reason
        self.close_code = code or self.close_code or ABNORMAL
        self.held = None
        return self._end_when_done()

    # -- events of the application -----------------------------------------------------------------------------------

    def reply(self, reply: SocketReply, now: float) -> list[Action]:
        """A reply to this socket: the handshake table of 1.x while connecting, then data and close."""
        if self.state is State.OPEN:
            return self._send(reply, now)
        if self.state is State.CLOSED and not (self.accepted or self.ended) and (reply.accept or reply.has_content):
            # What its connect consumer sets up, a disconnect consumer has to take down.
            self.accepted, self.close_code = True, self.close_code or ABNORMAL
            return [AcceptLate(self.order - 1, self.session)]
        if self.state is not State.CONNECTING:
            return NOTHING
        if reply.accept is False:
            return self._refuse(403, "The application refused this WebSocket.")
        if reply.accept or reply.has_content:
            self.state = State.OPEN
            self.accepted = True
            self.since = self.data_at = now
            actions: list[Action] = [Accept(), *self._send(reply, now)]
            held, self.held = self.held, None
            for late in held or ():
                actions += self._send(late, now)
            return actions
        if reply.close == INTERNAL_ERROR:
            return self._refuse(500, "The application failed on this WebSocket.")
        if reply.close:
            return self._refuse(403, "The application refused this WebSocket.")
        return NOTHING

    def group(self, reply: SocketReply, now: float) -> list[Action]:
        """A message to a group that this socket is in: sent, or kept for the accept, never the accept itself."""
        if self.state is not State.CONNECTING:
            return self._send(reply, now)
        if self.held is None:
            self.held = []
        if len(self.held) >= HELD_REPLIES:
            return [Report("WARNING", f"more than {HELD_REPLIES} group messages wait for its accept; one was dropped")]
        self.held.append(reply)
        return NOTHING

    def finished(self, session: bytes | None) -> list[Action]:
        """The consumer of the frame that is with the workers has ended; *session* None: unchanged."""
        self.unfinished = False
        actions: list[Action] = []
        if session is not None or self.given is not None:
            actions += self._store(session)
        if self.waiting:
            data = self.waiting.popleft()
            self.waiting_bytes -= len(data)
            actions.append(self._offer(data))
            if not self.is_throttled and not self._is_full(2):
                actions += self._resume()
            return actions
        if self.state is State.CLOSED:
            actions += self._end_when_done()
        return actions

    def merge(self, changes: sessions.Changes) -> list[Action]:
        """A consumer of a forwarded message has changed the session.

        The consumer of the frame that is with the workers does not know of it: its finish is put on top then.
        """
        try:
            merged = sessions.apply_changes(self.session, changes)
        except ValueError as error:
            return [Report("ERROR", f"changes to its session are dropped: {error}")]
        if len(merged) > max(sessions.MAX_MERGED_BYTES, len(self.session)):
            text = f"changes to its session are dropped: it would grow to {len(merged)} bytes"
            return [Report("ERROR", f"{text}, over the limit of {sessions.MAX_MERGED_BYTES}")]
        if self.unfinished and self.given is None:
            self.given = self.session
        self.session = merged
        return self._mirror()

    def failed(self, reason: str, now: float) -> list[Action]:
        """The frame that is with the workers will not be finished: the socket cannot go on in order, so it ends."""
        self.unfinished, self.given = False, None
        if self.state is State.CONNECTING:
            if reason == "lost":
                return self._refuse(500, "The application failed on this WebSocket.")
            return self._refuse(503, "The application is too busy for this WebSocket.")
        if self.state is State.CLOSED and not self.accepted:
            return self._end_when_done()
        dropped = len(self.waiting) if self.waiting else 0
        self.waiting, self.waiting_bytes = None, 0
        text = f"its frame {self.order - 1} failed ({reason}); closing it with 1011"
        actions: list[Action] = [Report("ERROR", f"{text}, {dropped} waiting frames are dropped" if dropped else text)]
        if self.state is State.CLOSED:
            return actions + self._end_when_done()
        return actions + self.close(INTERNAL_ERROR, now)

    # -- events of this process --------------------------------------------------------------------------------------

    def close(self, code: int, now: float, reason: str = "") -> list[Action]:
        """End the socket from our side."""
        if self.state is State.CONNECTING:
            return [Refuse(503, "The server is stopping."), *self._leave()]
        if self.state is not State.OPEN:
            return NOTHING
        self.state = State.CLOSING
        self.close_code = code
        self.since = now
        # The client's answer can only be seen by reading; data frames before it are dropped.
        return [Close(code, reason), *self._resume()]

    def disown(self, now: float) -> list[Action]:
        """The layer has already run this socket's disconnect: close it and run nothing more for it."""
        self.waiting, self.waiting_bytes, self.unfinished = None, 0, False
        self.accepted, self.ended = False, True
        return self.close(1012, now)

    def tick(self, now: float) -> list[Action]:
        """Deadlines and pings. Called a few times within the shortest of the timeouts."""
        limits = self.limits
        if self.is_throttled and self.rate_at - now <= BURST:
            self.is_throttled = False
            if not self._is_full(2):
                return self._resume()
        if self.state is State.OPEN:
            if not limits.ping_interval:
                return NOTHING
            if self.is_paused:
                # It cannot show signs of life: they wait unread in the kernel. Its idle time begins after the pause.
                self.data_at, self.ping_at = now, 0.0
                return NOTHING
            if self.ping_at:
                if now - self.ping_at < limits.ping_timeout:
                    return NOTHING
                return [Count("ping_timeout"), Abort(), *self.lost()]
            if now - self.data_at >= limits.ping_interval:
                self.ping_at = now
                return [Ping()]
        elif self.state is State.CONNECTING:
            if now - self.since >= limits.handshake_timeout:
                why = "waits for a worker, or runs" if self.unfinished else "has ended without an answer"
                text = (
                    f'refused: after {limits.handshake_timeout:g} s its connect consumer {why}; send {{"accept": True}}'
                )
                return [
                    Report("WARNING", text),
                    Refuse(503, "The application did not answer in time.", "handshake_timeout"),
                    *self._leave(),
                ]
        elif self.state is State.CLOSING and now - self.since >= CLOSE_TIMEOUT:
            return [Abort(), *self.lost()]
        return NOTHING

    # -- as plain data -----------------------------------------------------------------------------------------------

    def dump(self) -> dict[str, Any]:
        """The whole state as plain data; its times are of the monotonic clock that all processes of a system share."""
        data = {name: getattr(self, name) for name in self.__slots__ if name != "limits"}
        data["state"] = int(self.state)
        data["waiting"] = list(self.waiting) if self.waiting is not None else None
        data["held"] = [list(each) for each in self.held] if self.held is not None else None
        return data

    @classmethod
    def load(cls, data: Mapping[str, Any], limits: Limits) -> Connection:
        """The socket whose ``dump`` is *data*."""
        made = cls(limits, 0.0)
        for name, value in data.items():
            setattr(made, name, value)
        made.state = State(data["state"])
        made.waiting = deque(data["waiting"]) if data["waiting"] is not None else None
        made.held = [SocketReply(*each) for each in data["held"]] if data["held"] is not None else None
        return made

    # -- parts -------------------------------------------------------------------------------------------------------

    def _store(self, session: bytes | None) -> list[Action]:
        """Keep the *session* of a finish (None: unchanged), and what was merged while its frame was unfinished."""
        given, self.given = self.given, None
        if given is None and session is not None:
            self.session = session
            # The accept came before the session that the connect consumer left: the layer's record lacks it.
            return self._mirror() if self.order == 1 else []
        if given is not None and session is not None:
            try:
                self.session = sessions.rebase(given, session, self.session)
            except ValueError:
                self.session = session
        return self._mirror()

    def _mirror(self) -> list[Action]:
        is_open = self.accepted and self.state is not State.CLOSED
        return [Mirror(self.order - 1, self.session)] if is_open else []

    def _offer(self, data: str | bytes | None) -> Offer:
        order = self.order
        self.order += 1
        self.unfinished = True
        return Offer(order, data)

    def _send(self, reply: SocketReply, now: float) -> list[Action]:
        if self.state is not State.OPEN:
            return NOTHING
        actions: list[Action] = []
        if reply.frame is not None:
            actions.append(Write(reply.frame))
        if reply.close:
            actions += self.close(reply.close, now, reply.reason)
        return actions

    def _refuse(self, status: int, text: str) -> list[Action]:
        self.state = State.CLOSED
        self.held = None
        return [Refuse(status, text), *self._end_when_done()]

    def _leave(self) -> list[Action]:
        """No handshake comes of it. A connect consumer that runs may accept all the same: its end is waited for."""
        self.state = State.CLOSED
        self.held = None
        return [Withdraw()] if self.unfinished else self._end_when_done()

    def _end_when_done(self) -> list[Action]:
        if self.ended or (self.accepted and (self.unfinished or self.waiting)):
            return NOTHING
        self.ended = True
        if not self.accepted:
            return [End(self.close_code, None)]
        order = self.order
        self.order += 1
        return [End(self.close_code, order, self.close_reason)]

    def _is_full(self, divisor: int) -> bool:
        limits = self.limits
        count = len(self.waiting) if self.waiting else 0
        return count * divisor >= limits.max_waiting_frames or self.waiting_bytes * divisor >= limits.max_waiting_bytes

    def _pause(self) -> list[Action]:
        if self.is_paused:
            return []
        self.is_paused = True
        return [PauseReading()]

    def _resume(self) -> list[Action]:
        if not self.is_paused or self.state is State.CLOSED:
            return []
        self.is_paused = False
        return [ResumeReading()]
