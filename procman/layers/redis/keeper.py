"""A thread of a worker process that renews its leases while the other threads are inside consumers.

Whoever keeps also looks after others: the messages of the dead, moments that have come, what has expired.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence

from procman.layers.errors import LayerUnavailable
from procman.layers.redis.session import Session
from procman.log import escape

logger = logging.getLogger("procman.layers")
INTERVAL = 0.5
_MOST_REASONS = 10


class Keeper:
    """Keeps the leases of *sessions*, of *claim_after* seconds each, until ``stop``."""

    def __init__(self, sessions: Sequence[Session], claim_after: float) -> None:
        self._sessions = sessions
        self._interval = min(INTERVAL, claim_after / 4)
        self._changed = threading.Condition()
        self._is_stopping = False
        self._reasons: set[str] = set()  # for which Redis has been away since it was last there
        self._thread = threading.Thread(target=self._run, name="layer keeper", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        with self._changed:
            self._is_stopping = True
            self._changed.notify()
        if threading.current_thread() is not self._thread:
            self._thread.join(10.0)

    def _run(self) -> None:
        pause = self._interval
        while True:
            with self._changed:
                if self._is_stopping or (self._changed.wait(pause) and self._is_stopping):
                    return
            pause = self._interval
            for session in self._sessions:
                pause = min(pause, self._keep(session))

    def _keep(self, session: Session) -> float:
        """Seconds until something is due."""
        try:
            is_there, due_ms, told = session.run(
                "keep", "w", session.id, int(session.lease * 1000), session.slot, patience=0.0, plain=True
            )
            if session.abandoned:
                told = [*told, *session.abandon()]
            if told:
                log_told(told)
            if not is_there:
                session.hello()
        except LayerUnavailable as error:
            # A line per reason: connections that were cut may be refused next, because the password has changed.
            reason = str(error)
            if reason not in self._reasons and len(self._reasons) < _MOST_REASONS:
                self._reasons.add(reason)
                logger.warning("%s; messages in flight are kept, and it is tried again", error)
            return self._interval
        if self._reasons:
            self._reasons.clear()
            logger.info("the channel layer at %s is there again", session.address)
        return max(0.01, float(due_ms) / 1000)


def log_told(told: Sequence[Sequence[bytes]]) -> None:
    """Log what became of messages whose worker, and of sockets whose interface, has died."""
    for channel, reply, label, fate in ([escape(part.decode(errors="replace")) for part in each] for each in told):
        if fate == "interface":
            logger.warning("interface %s is gone; the disconnects of its sockets are run", label)
        elif fate == "redelivered":
            logger.warning(
                "%s died while it ran a message of %s (reply channel %s); another worker gets it",
                *(label, channel, reply or "none"),
            )
        elif fate != "flushed":
            why = "it cannot be run twice" if fate == "unsafe" else "its second worker died too"
            logger.error(
                "%s died while it ran a message of %s (reply channel %s); the message is dropped: %s",
                *(label, channel, reply or "none", why),
            )
