"""A hub inside one process: the rules of ``ipc/hub.py``, reached by threads and event loops instead of sockets.

Nothing decides about messages here. Each client of the hub has a ``Desk``, where what is meant for it arrives; what the
hub does for a caller happens in the caller's thread, under one lock. There is no thread for timers: whoever waits
(``wait``, or an event loop) wakes when the next one is due. A client whose thread ends is a client that died.
"""

from __future__ import annotations

import logging
import os
import queue
import secrets
import sys
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress

from procman.clock import Clock, SystemClock
from procman.layers.ipc import frames
from procman.layers.ipc.finishes import LATE
from procman.layers.ipc.hub import Hub
from procman.layers.ipc.peers import Frame, Log, Peer
from procman.layers.limits import Limits

logger = logging.getLogger("procman.layers")
_NEVER = float("inf")
_EXACT = frozenset({int, str, bytes, float, bool, type(None), list, tuple})
_LOOK = (0,)  # on a desk: something else than a frame is to be looked at
_hubs: weakref.WeakSet[LocalHub] = weakref.WeakSet()


class Desk:
    """A client of the hub: where its frames arrive. For a thread, which may sleep here until one does."""

    def __init__(self, local: LocalHub, role: str, limits: Limits, name: str, served_name: str | None = None) -> None:
        self._local = weakref.ref(local)
        self.thread = threading.get_ident()
        self.is_woken = False  # to be looked at by whoever waits here
        self._inbox: queue.SimpleQueue[Frame] = queue.SimpleQueue()
        hello = (frames.HELLO, frames.VERSION, role, name, os.getpid(), limits.to_wire(), served_name, None, "")
        self.peer = local.open(self, hello)

    def put(self, arrived: list[Frame]) -> None:
        """*arrived* is meant for this client. Called under the hub's lock."""
        for frame in arrived:
            self._inbox.put(frame)

    def nudge(self) -> None:
        """Have the client look again: at the timers, or at ``is_woken``. Callable from a signal handler."""
        self._inbox.put(_LOOK)

    def is_crowded(self) -> bool:
        """Whether so much has arrived that whoever adds more has to wait. A thread asks first: never."""
        return False

    def wait_for_room(self) -> None:
        """Wait until ``is_crowded`` is over."""

    def take_all(self) -> list[Frame]:
        """What has arrived already."""
        found: list[Frame] = []
        with suppress(queue.Empty):
            while True:
                frame = self._inbox.get_nowait()
                if frame is not _LOOK:
                    found.append(frame)
        return found

    def wait(self, seconds: float) -> Frame | None:
        """What arrives within *seconds*; None if that is nothing, and after ``nudge``."""
        try:
            frame = self._inbox.get(timeout=None if seconds == _NEVER else max(0.0, seconds))
        except queue.Empty:
            return None
        return None if frame is _LOOK else frame

    def __del__(self, is_finalizing: Callable[[], bool] = sys.is_finalizing) -> None:
        # A thread that ends takes its desk with it; a layer or an interpreter that ends takes all of them, and nobody
        # has died. Names of this module may be gone then.
        if hasattr(self, "peer") and not is_finalizing():
            local = self._local()
            if local is not None:
                local.forget_soon(self.peer)


class LocalHub:
    """A hub, its lock, and the desks of its clients."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock: Clock = SystemClock() if clock is None else clock
        self._lock = threading.Lock()
        now = self._clock.monotonic()
        # It has no predecessor, so there is nobody's report to wait for.
        self._hub = Hub(secrets.token_hex(4), now - LATE)
        self._hub.tick(now)
        # Weak: a desk ends with its thread.
        self._desks: weakref.WeakValueDictionary[Peer, Desk] = weakref.WeakValueDictionary()
        self._waiting: dict[Desk, float] = {}  # who sleeps, and when it will look at the timers
        self._alarm = _NEVER  # the first of these
        self._finishing: dict[Desk, None] = {}  # who sleeps until its finish is applied
        self._gone: list[Peer] = []
        self._crowded: Desk | None = None
        _hubs.add(self)

    @property
    def hub_id(self) -> str:
        """What tells this hub from others."""
        return self._hub.hub_id

    def open(self, desk: Desk, hello: Frame) -> Peer:
        """A client has come, with its greeting."""
        with self._lock:
            peer = self._hub.connected()
            self._desks[peer] = desk
            self._hub.handle(peer, hello, self._clock.monotonic())
            self._hub.drain()  # the welcome says nothing that is not known here
        return peer

    def close(self, peer: Peer) -> None:
        """A client has gone, without a word or after its goodbye."""
        with self._lock:
            if peer.role:
                self._hub.disconnected(peer, self._clock.monotonic())
            logs = self._settle(None)[1]
        _emit(logs)

    def forget_soon(self, peer: Peer) -> None:
        """``close`` for finalizers, which may interrupt somebody who holds the lock."""
        self._gone.append(peer)
        if self._lock.acquire(blocking=False):
            try:
                logs = self._settle(None)[1]
            finally:
                self._lock.release()
            _emit(logs)
        else:
            for desk in list(self._waiting):
                desk.nudge()
                break

    def call(self, peer: Peer, frame: Frame) -> list[Frame]:
        """Have the hub handle *frame* of *peer*; what it answers to that peer at once."""
        if not _EXACT.issuperset(map(type, frame)):
            # A wire would have done that: names may be of a kind of str, such as Django's SafeString.
            frame = tuple(str.__str__(field) if isinstance(field, str) else field for field in frame)
        with self._lock:
            hub, now = self._hub, self._clock.monotonic()
            due = hub.next_deadline()
            if due is not None and due <= now:
                hub.tick(now)
            hub.handle(peer, frame, now)
            answers, logs = self._settle(peer)
            crowded, self._crowded = self._crowded, None
        if logs:
            _emit(logs)
        if crowded is not None:
            crowded.wait_for_room()
        return answers

    def tick(self) -> None:
        """Do what is due."""
        with self._lock:
            self._hub.tick(self._clock.monotonic())
            logs = self._settle(None)[1]
        _emit(logs)

    def wait(self, desk: Desk, until: float | None, is_over: Callable[[], bool] = lambda: False) -> Frame | None:
        """The next frame for *desk*; None at *until* (system time, None: never) or, after a nudge, if it *is_over*.

        What has arrived meanwhile may still be on the desk then.
        """
        while True:
            now = SystemClock.monotonic()
            if is_over() or (until is not None and now >= until):
                return None
            left = _NEVER if until is None else until - now
            try:
                frame = desk.wait(min(left, self.watch(desk)))
            finally:
                self.unwatch(desk)
            if frame is not None:
                return frame
            self.tick()

    def watch(self, desk: Desk) -> float:
        """*desk* is nudged when it has to look at the timers sooner than in the seconds that are returned."""
        with self._lock:
            due = self._hub.next_deadline()
            self._waiting[desk] = _NEVER if due is None else due
            self._alarm = min(self._waiting.values())
            return _NEVER if due is None else due - self._clock.monotonic()

    def unwatch(self, desk: Desk) -> None:
        """*desk* does not look at the timers by itself any more."""
        with self._lock:
            self._waiting.pop(desk, None)
            self._alarm = min(self._waiting.values(), default=_NEVER)
            self._mind_timers()

    def wait_finished(self, desk: Desk) -> None:
        """Wait until the last finish of *desk* is applied: until there is room for its sends, or will not be."""
        with self._lock:
            if not desk.peer.finishing:
                return
            self._finishing[desk] = None
        while desk.peer.finishing:
            self.wait(desk, None, lambda: not desk.peer.finishing)

    # -- inside, under the lock ---------------------------------------------------------------------------------------

    def _settle(self, caller: Peer | None) -> tuple[list[Frame], list[Log]]:
        """Pass on what the hub has to say; what it says to *caller* is returned, with what is to be logged."""
        hub = self._hub
        while self._gone:
            peer = self._gone.pop()
            if peer.role:
                hub.disconnected(peer, self._clock.monotonic())
        answers: list[Frame] = []
        for peer, output in hub.drain():
            if peer is caller:
                answers = output
            else:
                desk = self._desks.get(peer)
                if desk is not None:
                    desk.put(output)
                    if desk.is_crowded():
                        self._crowded = desk
        if self._finishing:
            for desk in [desk for desk in self._finishing if not desk.peer.finishing]:
                del self._finishing[desk]
                desk.nudge()
        self._mind_timers()
        return answers, hub.drain_logs()

    def _mind_timers(self) -> None:
        due = self._hub.next_deadline()
        if due is not None and due < self._alarm:
            for desk in self._waiting:
                self._waiting[desk] = self._alarm = due
                desk.nudge()
                break

    # -- around a fork ------------------------------------------------------------------------------------------------

    def _before_fork(self) -> None:
        self._lock.acquire()

    def _after_fork(self) -> None:
        self._lock.release()

    def _after_fork_in_child(self) -> None:
        # The child has the queues as they were. Threads that waited there are the parent's, and take nothing here.
        self._waiting.clear()
        self._alarm = _NEVER
        now, thread = self._clock.monotonic(), threading.get_ident()
        for peer, desk in list(self._desks.items()):
            if desk.thread != thread:
                self._hub.handle(peer, (frames.UNTAKE,), now)
                for rid in list(peer.receivers):
                    self._hub.handle(peer, (frames.CANCEL, rid), now)
        self._hub.drain()
        self._lock.release()


def _emit(logs: list[Log]) -> None:
    for record in logs:
        logger.log(record.level, record.text, *record.arguments)


def _before_fork() -> None:
    _forking.extend(_hubs)
    for hub in _forking:
        hub._before_fork()


def _after_fork_in_parent() -> None:
    while _forking:
        _forking.pop()._after_fork()


def _after_fork_in_child() -> None:
    while _forking:
        _forking.pop()._after_fork_in_child()


_forking: list[LocalHub] = []
os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
