"""Lets a long response go on in its thread while another thread takes the worker's next messages.

A ``Seat`` is the place of one thread that takes messages. A response that turns out to have several parts hands the
seat over, to a thread that waits for one or to one that is made, and keeps its thread: generators meet the database
connections and thread-locals that they began with. Its message stays in flight until the response has ended, so that
the client of a worker that dies is told. A thread whose stream has ended waits for the next seat.

Bounds: ``Streams.limit`` streams per process, each with one thread; ``SPARES`` waiting threads per seat. A stop waits
``Streams.grace`` seconds for streams, then closes their generators between two parts. A generator that makes no part
cannot be closed; it ends with its process. Knows neither messages nor responses.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator

from procman.channels.leftovers import close_connections
from procman.clock import SystemClock

LIMIT = 20
GRACE = 5.0
SPARES = 2  # threads that wait for a seat, each with its connection to the layer
_LOOK_INTERVAL = 0.1
_LAST_PART = 1.0  # seconds beyond the grace, for generators that are being closed


class TooManyStreams(Exception):
    """This process has as many streams as it may."""


class Streams:
    """The streams of this process. ``limit`` of them may be open at once, ``grace`` seconds into a stop."""

    def __init__(self) -> None:
        self.limit, self.grace = LIMIT, GRACE
        self._reset()

    def _reset(self) -> None:
        self.count = 0
        self._lock = threading.Lock()
        self._local = threading.local()

    def sit(self, seat: Seat | None, token: object) -> None:
        """This thread works for *seat*, known there by *token*, from now on."""
        self._local.place = (seat, token) if seat is not None else None

    @contextlib.contextmanager
    def streaming(self) -> Iterator[Callable[[], bool]]:
        """Within, this thread only streams; gives what tells whether the stream has to end, as its worker stops.

        A thread without a seat streams while its caller waits.

        Raises:
            TooManyStreams: there are ``limit`` already.
        """
        place: tuple[Seat, object] | None = getattr(self._local, "place", None)
        if place is None:
            yield lambda: False
            return
        seat, token = place
        with self._lock:
            if self.count >= self.limit:
                raise TooManyStreams
            self.count += 1
        try:
            seat.hand_over(token)
            yield seat.is_closing
        finally:
            with self._lock:
                self.count -= 1


streams = Streams()
os.register_at_fork(after_in_child=lambda: streams._reset())


class Seat:
    """A place that one thread at a time works at. *work* handles one message; False: nothing more is to be done.

    *enter* is called by each thread before its first message, *leave* when it takes none for a while.
    """

    def __init__(self, work: Callable[[], bool], enter: Callable[[], None], leave: Callable[[], None]) -> None:
        self._work, self._enter, self._leave = work, enter, leave
        self._condition = threading.Condition()
        self._owner = object()
        self._holder: object = self._owner
        self._spares: list[object] = []
        self._threads: set[threading.Thread] = set()
        self._stopped_at: float | None = None
        self._failure: BaseException | None = None

    def run(self) -> None:
        """Work until there is nothing more to be done, and its streams have ended or their time is over.

        Raises:
            What *work* raised in whichever thread.
        """
        try:
            self._occupy(self._owner)
        finally:
            self._stop()
            self._join()
        if self._failure is not None:
            raise self._failure

    def hand_over(self, token: object) -> None:
        """The thread of *token* streams from now on; another one takes the seat, if it had it and one can be had."""
        with self._condition:
            if self._holder is not token:
                return
            if self._spares:
                # The owner before others: signal handlers of the project's consumers work in the main thread only.
                place = self._spares.index(self._owner) if self._owner in self._spares else -1
                self._holder = self._spares.pop(place)
                self._condition.notify_all()
                return
            successor = object()
            thread = threading.Thread(
                target=self._occupy_beside, args=(successor,), name="worker beside a stream", daemon=True
            )
            self._threads.add(thread)
            self._holder = successor
            try:
                thread.start()
            except RuntimeError:  # the system has no thread left: this one takes no message until its stream has ended
                self._threads.discard(thread)
                self._holder = token

    def is_closing(self) -> bool:
        """Whether the worker stops and has waited long enough for its streams."""
        stopped_at = self._stopped_at
        return stopped_at is not None and SystemClock.monotonic() >= stopped_at + streams.grace

    def _occupy(self, token: object) -> None:
        streams.sit(self, token)
        try:
            while self._await_seat(token):
                self._enter()
                while self._holder is token:
                    if not self._work() and self._holder is token:
                        self._stop()
                        return
                self._leave()
                if token is not self._owner:
                    close_connections()
        finally:
            streams.sit(None, token)
            self._leave()

    def _await_seat(self, token: object) -> bool:
        with self._condition:
            if self._holder is token:
                return self._stopped_at is None
            if token is not self._owner and len(self._spares) >= SPARES:
                return False
            self._spares.append(token)
            self._condition.wait_for(lambda: self._holder is token or self._stopped_at is not None)
            return self._stopped_at is None

    def _occupy_beside(self, token: object) -> None:
        try:
            self._occupy(token)
        except BaseException as error:
            self._failure = error
            self._stop()
        finally:
            close_connections()
            self._threads.discard(threading.current_thread())

    def _stop(self) -> None:
        with self._condition:
            if self._stopped_at is None:
                self._stopped_at = SystemClock.monotonic()
            self._condition.notify_all()

    def _join(self) -> None:
        """Wait for the threads beside; those whose generator makes no part are left to the end of the process."""
        assert self._stopped_at is not None
        deadline = self._stopped_at + streams.grace + _LAST_PART
        for thread in list(self._threads):
            while thread.is_alive() and SystemClock.monotonic() < deadline:
                thread.join(_LOOK_INTERVAL)
