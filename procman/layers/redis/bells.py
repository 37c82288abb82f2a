"""Threads of one process that wait for Redis, over one blocking connection per server.

The first thread that waits leads: it asks (``BLPOP``) for the keys of all and tells the others what came. When it
leaves, the server is told to forget the question: a bell must not ring for a process in which nobody listens. A bell
says only that looking is worth while, so losing one costs time, never a message: everybody looks again after
``LONGEST_WAIT``.
"""

from __future__ import annotations

import contextlib
import math
import select
import threading
import time
from collections.abc import Iterable, Sequence

import redis

from procman.clock import SystemClock
from procman.layers.errors import LayerError
from procman.layers.redis.link import Link, LinkBroken, pack
from procman.layers.redis.session import Session
from procman.layers.wake import WakePipe

LONGEST_WAIT = 5.0
_BROKEN_PAUSE = 0.1
_ANSWER_PAUSES_MS = (2, 8, 40)
CLOSE_ENOUGH = 0.005  # seconds; servers do not answer in the same moment that a wait is over
Key = tuple[int, bytes]  # server, key


class _Waiter:
    __slots__ = ("found", "keys", "notice")

    def __init__(self, keys: Iterable[Key], notice: WakePipe) -> None:
        self.keys, self.notice = frozenset(keys), notice
        self.found: tuple[Key, bytes] | None = None


class Bells:
    """The blocking connections of one process. *sessions* are its servers."""

    def __init__(self, clients: Sequence[redis.Redis], sessions: Sequence[Session]) -> None:
        self._clients, self._sessions = clients, sessions
        self._links: list[Link | None] = [None] * len(clients)
        self._asked: list[frozenset[bytes]] = [frozenset()] * len(clients)
        self._lock = threading.Lock()
        self._waiters: dict[_Waiter, None] = {}
        self._leader: _Waiter | None = None
        self._local = threading.local()

    def wait(self, keys: Iterable[Key], seconds: float, wake: WakePipe | None) -> tuple[int, bytes] | bool | None:
        """Server and what came there for one of *keys*.

        None: look again, or *seconds* have passed. False: *wake* was set.
        """
        notice = getattr(self._local, "notice", None)
        if notice is None:
            notice = self._local.notice = WakePipe()
        waiter = _Waiter(keys, notice)
        deadline = SystemClock.monotonic() + min(seconds, LONGEST_WAIT)
        with self._lock:
            self._waiters[waiter] = None
            if self._leader is None:
                self._leader = waiter
            else:
                self._leader.notice.set()  # it asks for these keys too
        outcome: bool | None = None
        try:
            while waiter.found is None and outcome is None:
                left = deadline - SystemClock.monotonic()
                if left <= CLOSE_ENOUGH:
                    break
                is_leader = self._leader is waiter
                outcome = self._lead(waiter, left, wake) if is_leader else _poll([notice], wake, left)
        finally:
            self._leave(waiter)
        if waiter.found is None:
            return outcome
        if outcome is None:
            return waiter.found[0][0], waiter.found[1]
        self._quietly(waiter.found[0][0], "RPUSH", waiter.found[0][1], waiter.found[1])
        return outcome

    def prepare(self, servers: Iterable[int]) -> None:
        """Connect to *servers* before the first wait, which is then as long as it was asked to be."""
        with self._lock:
            for server in servers:
                if self._links[server] is None and self._leader is None:
                    with contextlib.suppress(LinkBroken, LayerError):
                        self._links[server] = Link(self._clients[server], has_scripts=False)

    def close(self) -> None:
        """Close the connections; who waits looks again."""
        with self._lock:
            for server in range(len(self._links)):
                self._drop(server)

    # -- the leader ---------------------------------------------------------------------------------------------------

    def _lead(self, waiter: _Waiter, seconds: float, wake: WakePipe | None) -> bool | None:
        """One wait on the servers; None: something came, for somebody, or the time has passed."""
        with self._lock:
            wanted = [
                frozenset(key for other in self._waiters for at, key in other.keys if at == server)
                for server in range(len(self._links))
            ]
        for server, keys in enumerate(wanted):
            try:
                self._ask(server, keys, seconds)
            except (LinkBroken, LayerError):
                # The command connection tells what is wrong, and for how long to wait.
                self._drop(server)
                if len(wanted) == 1:
                    time.sleep(min(_BROKEN_PAUSE, seconds))
                    return None
                seconds = min(seconds, 10 * _BROKEN_PAUSE)
        if waiter.found is not None:  # the answer to the question that was taken back for another one
            return None
        links = [(server, link) for server, link in enumerate(self._links) if link is not None and self._asked[server]]
        if any(link.is_readable() for _, link in links):
            outcome: bool | None = None
        else:
            outcome = _poll([waiter.notice, *(link for _, link in links)], wake, seconds)
        for server, link in links:
            if link.is_readable() or _is_ready(link):
                self._hear(server)
        return outcome

    def _ask(self, server: int, keys: frozenset[bytes], seconds: float) -> None:
        if self._asked[server] and not keys <= self._asked[server]:
            self._cancel(server)
        if not keys or self._asked[server]:
            return
        link = self._links[server]
        if link is None:
            if self._sessions[server].is_resting():
                raise LinkBroken("it did not answer a moment ago")
            link = self._links[server] = Link(self._clients[server], has_scripts=False)
        self._asked[server] = keys
        # Its own timeout is late by up to 0.1 s, and for the case that nobody takes the question back.
        link.write(pack("BLPOP", *keys, math.ceil(seconds) + 1))

    def _hear(self, server: int) -> None:
        """Pass on what the server answered."""
        link, self._asked[server] = self._links[server], frozenset()
        try:
            answer = link.read() if link is not None else None
        except (LinkBroken, LayerError):
            self._drop(server)
            return
        if answer is None:
            return
        key = (server, bytes(answer[0]))
        with self._lock:
            # The leader last: it is busy with the others.
            for waiter in sorted(self._waiters, key=lambda each: each is not self._leader):
                if waiter.found is None and key in waiter.keys:
                    waiter.found = (key, bytes(answer[1]))
                    if waiter is not self._leader:
                        waiter.notice.set()
                    return
        self._quietly(server, "RPUSH", key[1], answer[1])  # whoever wanted it has left

    def _cancel(self, server: int, is_told: bool = False) -> None:
        link = self._links[server]
        if link is not None and self._asked[server]:
            for pause in _ANSWER_PAUSES_MS:
                if not is_told:
                    self._sessions[server].post("CLIENT", "UNBLOCK", link.client_id)
                if link.is_readable() or _is_ready(link, pause):
                    self._hear(server)
                    return
                is_told = False  # the server had not read the question yet: told again
            self._drop(server)  # it does not let us

    def _quietly(self, server: int, *command: str | bytes | int) -> int:
        try:
            return int(self._sessions[server].call(*command))
        except LayerError:
            return 0

    def _drop(self, server: int) -> None:
        link, self._links[server] = self._links[server], None
        self._asked[server] = frozenset()
        if link is not None:
            link.close()

    def _leave(self, waiter: _Waiter) -> None:
        with self._lock:
            self._waiters.pop(waiter, None)
            if self._leader is not waiter:
                return
        asked = [server for server in range(len(self._links)) if self._asked[server]]
        for server in asked:
            link = self._links[server]
            if link is not None:
                self._sessions[server].post("CLIENT", "UNBLOCK", link.client_id)
        for server in asked:
            self._cancel(server, is_told=True)
        with self._lock:
            self._leader = next(iter(self._waiters), None)
            if self._leader is not None:
                self._leader.notice.set()


def _poll(sources: Sequence[WakePipe | Link], wake: WakePipe | None, seconds: float) -> bool | None:
    """Sleep until one of *sources* is ready (None), *wake* was set (False), or for *seconds* (None)."""
    watched = select.poll()
    for source in sources:
        watched.register(source.fileno(), select.POLLIN)
    if wake is not None:
        watched.register(wake.fileno(), select.POLLIN)
    ready = {descriptor for descriptor, _ in watched.poll(seconds * 1000)}
    for source in sources:
        if source.fileno() in ready and isinstance(source, WakePipe):
            source.clear()
    if wake is not None and wake.fileno() in ready:
        wake.clear()
        return False
    return None


def _is_ready(link: Link, milliseconds: float = 0) -> bool:
    watched = select.poll()
    watched.register(link.fileno(), select.POLLIN)
    return bool(watched.poll(milliseconds))
