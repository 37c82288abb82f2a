"""This process at one Redis server: numbered commands, what is in flight here, what has not been acknowledged.

One connection for all threads, under a lock that is held for a round trip. After a broken connection everything
without an answer is sent again; scripts know a number that they have seen. ``finish`` does not wait for its answer: the
next command reads it. What to take, send or log is decided in ``sync.py``.
"""

from __future__ import annotations

import random
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import redis

from procman.clock import SystemClock
from procman.layers.errors import LayerUnavailable
from procman.layers.redis.entries import Entry, parse
from procman.layers.redis.link import Link, LinkBroken, OutOfMemory, pack
from procman.layers.redis.trouble import explain
from procman.layers.wake import WakePipe, Woken

PATIENCE = 5.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.02, 1.0
_REST = 1.0
_random = random.Random()


@dataclass(slots=True, eq=False)
class Sent:
    """A finish or defer that was sent and not answered. ``answer`` is set once it is."""

    seq: int
    script: str
    arguments: tuple[Any, ...]
    entry: Entry
    was_unknown: bool = False
    answer: Any = None
    is_answered: bool = False


class Held:
    """What a thread has in its hands; goes with the thread, and tells then that nobody will finish it."""

    __slots__ = ("_sessions", "entry")

    def __init__(self, sessions: Sequence[Session]) -> None:
        self._sessions = sessions
        self.entry: Entry | None = None

    def __del__(self) -> None:
        if self.entry is not None:
            session = self._sessions[self.entry.server]
            if self.entry.id in session.running:
                session.abandoned.append(self.entry.id)


class Session:
    """One process and one server. *report* hears of answers to finishes, *on_told* of messages whose worker died."""

    def __init__(
        self,
        client: redis.Redis,
        address: str,
        prefix: str,
        report: Callable[[Sent, Any], None],
        on_told: Callable[[Sequence[Any]], None],
        number: int,
        lease: float,
    ) -> None:
        self.number, self.lease = number, lease
        self.client, self.address, self.prefix = client, address, prefix.encode()
        self.id = secrets.token_hex(8)
        self.running: dict[str, Entry] = {}
        self.abandoned: list[str] = []  # in flight in threads that have ended
        self.is_worker = False
        self.slot, self.label = "", self.id
        self._rests_until = 0.0
        self._report, self._on_told = report, on_told
        self._lock = threading.Lock()
        self._link: Link | None = None
        self._seq = 0
        self._unanswered: deque[Sent | None] = deque()  # None: an answer that nobody wants
        self._unknown: list[Sent] = []
        self._has_answered = False
        self._packed_takes: dict[tuple[tuple[str, ...], bool], list[bytes]] = {}

    # -- commands -----------------------------------------------------------------------------------------------------

    def run(
        self,
        script: str,
        *arguments: Any,
        patience: float = PATIENCE,
        wake: WakePipe | None = None,
        plain: bool = False,
    ) -> Any:
        """The answer of *script*, numbered unless *plain*. Raises LayerUnavailable, Woken."""
        with self._lock:
            if not plain:
                self._seq += 1
                arguments = (self.id, self._seq, *arguments)
            return self._answer(lambda link: self._pack(link, script, arguments), patience, wake)

    def call(self, *command: Any) -> Any:
        """The answer to a command that may be repeated. Raises LayerUnavailable."""
        packed = pack(*command)
        with self._lock:
            return self._answer(lambda link: packed, PATIENCE, None)

    def post(self, *command: Any) -> None:
        """Send a command whose answer does not matter; it may be lost with the connection."""
        with self._lock:
            if self._link is not None:
                try:
                    self._link.write(pack(*command))
                    self._unanswered.append(None)
                except LinkBroken:
                    self._drop()

    def take(self, queues: tuple[str, ...], was_rung: bool, patience: float, wake: WakePipe) -> Entry | float:
        """A message, in flight here from now on, or in how many seconds to look again.

        *was_rung* says that this thread has heard the bell, which then goes on ringing while there is more.

        Raises:
            LayerUnavailable, Woken.
        """
        with self._lock:
            while True:
                answer = self._answer(lambda link: self._pack_take(link, queues, was_rung), patience, wake)
                if isinstance(answer, bytes):
                    entry = parse(answer)
                    entry.server = self.number
                    self.running[entry.id] = entry
                    return entry
                if answer >= 0:
                    return float(answer / 1000)
                try:
                    self._say_hello_again(self._connected())
                except LinkBroken:
                    self._drop()

    def abandon(self) -> Sequence[Any]:
        """Give up what threads that have ended had in flight; what was found lost. Raises LayerUnavailable."""
        ids, self.abandoned = self.abandoned, []
        for name in ids:
            self.running.pop(name, None)
        told: Sequence[Any] = self.run("abandon", *ids)
        return told

    def finish(self, script: str, entry: Entry, arguments: tuple[Any, ...]) -> Sent:
        """Send the end of *entry*; its answer is reported later, or found by ``settle``."""
        with self._lock:
            self._seq += 1
            sent = Sent(self._seq, script, arguments, entry)
            self._unanswered.append(sent)
            if self._link is not None:
                try:
                    self._link.write(self._pack(self._link, script, (self.id, sent.seq, *arguments)))
                except LinkBroken:
                    self._drop()  # sent again with the next command
        return sent

    def settle(self, patience: float = PATIENCE) -> None:
        """Read the answers to all that was sent, within *patience* seconds. Raises LayerUnavailable."""
        with self._lock:
            if self._unanswered:
                self._answer(None, patience, None)

    def hello(self) -> None:
        """Tell the server again what runs here. Raises LayerUnavailable."""
        with self._lock:
            try:
                self._say_hello_again(self._connected())
            except LinkBroken:
                self._drop()

    def is_resting(self) -> bool:
        """Whether the server did not answer a moment ago; somebody who has others to ask leaves it alone."""
        return SystemClock.monotonic() < self._rests_until

    def close(self) -> None:
        """Close the connection."""
        if self._lock.acquire(timeout=1.0):
            try:
                self._drop()
            finally:
                self._lock.release()

    # -- inside, under the lock ---------------------------------------------------------------------------------------

    def _pack(self, link: Link, script: str, arguments: Sequence[Any]) -> bytes:
        return pack("EVALSHA", link.scripts[script].digest, 1, self.prefix, *arguments)

    def _pack_take(self, link: Link, queues: tuple[str, ...], was_rung: bool) -> bytes:
        """One of the rotations of *queues*: whichever comes first is looked at first, so each has its turn."""
        found = self._packed_takes.get((queues, was_rung))
        if found is None:
            if len(self._packed_takes) > 100:
                self._packed_takes.clear()
            turns = [queues[n:] + queues[:n] for n in range(len(queues))]
            found = [self._pack(link, "take", (self.id, "r" if was_rung else "", *turn)) for turn in turns]
            self._packed_takes[queues, was_rung] = found
        return found[0] if len(found) == 1 else found[int(_random.random() * len(found))]

    def _answer(self, pack: Callable[[Link], bytes] | None, patience: float, wake: WakePipe | None) -> Any:
        deadline: float | None = None
        pause = _FIRST_PAUSE
        while True:
            try:
                link = self._connected()
                if pack is not None:
                    link.write(pack(link))
                while self._unanswered:
                    self._settle_one(link)
                answer = link.read() if pack is not None else None
                if self._unknown:
                    self._end_unknown(link)
                return answer
            except LinkBroken as error:
                self._drop()
                now = SystemClock.monotonic()
                if deadline is None:
                    # Whoever sends where nothing runs hears it at once; a server that has been there is waited for.
                    deadline = now + (patience if self._has_answered or wake is not None else 0.0)
                if now + pause > deadline:
                    self._has_answered = False
                    self._rests_until = SystemClock.monotonic() + _REST
                    raise LayerUnavailable(f"the channel layer at {self.address}: {explain(error)}") from error
                # A restarted server meets every process at once; jitter spreads them.
                seconds = pause * (0.5 + _random.random() / 2)
                if wake is None:
                    time.sleep(seconds)
                elif wake.wait(seconds):
                    raise Woken from None
                pause = min(_LONGEST_PAUSE, pause * 2)

    def _settle_one(self, link: Link) -> None:
        sent = self._unanswered[0]
        if sent is None:
            link.read()
            self._unanswered.popleft()
            return
        try:
            answer: Any = link.read()
        except OutOfMemory:
            raise LinkBroken("out of memory") from None  # once more: a finish is worth waiting for
        self._unanswered.popleft()
        if answer == -2 and not sent.was_unknown:
            sent.was_unknown = True
            self._unknown.append(sent)
            return
        sent.answer, sent.is_answered = answer, True
        if answer != 0:
            self.running.pop(sent.entry.id, None)
        self._report(sent, answer)

    def _connected(self) -> Link:
        if self._link is None:
            link = Link(self.client)
            self._unanswered = deque(sent for sent in self._unanswered if sent is not None)
            try:
                if self.is_worker:
                    self._say_hello(link)
                for sent in self._sent():
                    link.write(self._pack(link, sent.script, (self.id, sent.seq, *sent.arguments)))
            except BaseException:
                link.close()
                raise
            self._packed_takes.clear()
            self._link, self._has_answered = link, True
        return self._link

    def _end_unknown(self, link: Link) -> None:
        """This Redis has lost its data without a word: it hears of what runs here, then of its end once more."""
        again, self._unknown = self._unknown, []
        for sent in again:
            self._seq += 1  # the refusal has used up the old number
            sent.seq = self._seq
            self._unanswered.append(sent)
        try:
            self._say_hello(link)
            for sent in again:
                link.write(self._pack(link, sent.script, (self.id, sent.seq, *sent.arguments)))
        except LinkBroken:
            self._drop()

    def _say_hello_again(self, link: Link) -> None:
        """Say hello on a connection on which finishes are under way: their answers come first."""
        while self._unanswered:
            self._settle_one(link)
        if self._unknown:
            self._end_unknown(link)
        else:
            self._say_hello(link)

    def _say_hello(self, link: Link) -> None:
        waiting = {sent.entry.id for sent in self._sent()}
        listed: list[Any] = []
        for entry in list(self.running.values()):
            if entry.id not in waiting and not entry.is_lost:
                listed += (0, entry.id, entry.raw)
        for sent in self._sent():
            listed += (sent.seq, sent.entry.id, sent.entry.raw)
        arguments = (self.id, self.slot, self.label, int(self.lease * 1000), *listed)
        link.write(self._pack(link, "hello", arguments))
        done, foreign, told = link.read()
        for sent in [sent for sent in self._sent() if sent.seq <= done]:
            self._unanswered.remove(sent)
            sent.answer, sent.is_answered = 1, True
            self.running.pop(sent.entry.id, None)
        for name in foreign:
            entry_ = self.running.get(name.decode())
            if entry_ is not None:
                entry_.is_lost = True
        if told:
            self._on_told(told)

    def _sent(self) -> list[Sent]:
        return [sent for sent in self._unanswered if sent is not None]

    def _drop(self) -> None:
        if self._link is not None:
            self._link.close()
            self._link = None
