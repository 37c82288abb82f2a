"""The worker's side of the blocking client: each thread takes messages over a connection of its own.

Short messages come several at a time: those behind the first are *fetched*, not begun. The hub may ask for them back
(``RECALL``) through the watcher, while the thread is inside a consumer. Deliveries of a connection are numbered in
order on both sides, so that an answer is one number: all up to ``begun`` are this thread's, the others have gone back.

The watcher is a thread with a connection of its own: it also notices that the hub has died while all other threads
are inside consumers, and tells the successor what they run before it hands that out again. What was fetched and not
begun is dropped with its connection: the successor gets it from its interface again.
"""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import Any

from procman.clock import SystemClock
from procman.layers import codec, names
from procman.layers.base import Delivery
from procman.layers.ipc import frames
from procman.layers.ipc.connection import Connection, ConnectionBroken
from procman.layers.ipc.watcher import Watcher
from procman.layers.wake import WakePipe, Woken

ANSWER_TIMEOUT = 10.0
_PARTING_TIMEOUT = 1.0
_REMEMBERED_HUBS = 16


class Taking:
    """All threads of this process that take. *open_connection* is called with a role and what may wake it."""

    def __init__(self, open_connection: Callable[[str, WakePipe | None], Connection]) -> None:
        self._open = open_connection
        self._local = threading.local()
        self._wakes: weakref.WeakSet[WakePipe] = weakref.WeakSet()
        self._state = threading.Lock()  # guards what follows, and the numbers of deliveries in connections
        self._connections: weakref.WeakValueDictionary[tuple[str, int], Connection] = weakref.WeakValueDictionary()
        self._running: dict[str, tuple[str, int, str]] = {}  # key -> channel, deaths, hub that gave it
        self._unacknowledged: dict[str, tuple[Any, ...]] = {}
        self._watched_hub: str | None = None
        self._dead_hubs: list[str] = []
        self._watcher: Watcher | None = None

    # -- a thread that takes ------------------------------------------------------------------------------------------

    def take(self, channels: Sequence[str], timeout: float | None) -> Delivery | None:
        """``ChannelLayer.take``."""
        wanted = tuple(channels)
        deadline = None if timeout is None else SystemClock.monotonic() + timeout
        try:
            connection = self._thread_connection(is_taking=True)
            while True:
                try:
                    delivery = self._next_fetched(connection)
                    if delivery is None:
                        self._ask(connection, wanted)
                        frame = self._await_delivery(connection, deadline)
                        if frame is None:
                            return self._stop(connection)
                        delivery = self._begin(connection, frame)
                    if delivery is not None:
                        return delivery
                except ConnectionBroken:
                    self._replace_connection(is_taking=True)
                    connection = self._local.worker
        except Woken:
            return None

    def stop_taking(self) -> None:
        """``ChannelLayer.stop_taking``."""
        connection: Connection | None = getattr(self._local, "worker", None)
        if connection is not None:
            self._give_back(connection, self._untake(connection, _PARTING_TIMEOUT))

    def end(self, packed: bytes, key: str, finish: tuple[Any, ...] | None) -> None:
        """Write the end of the delivery *key*; a *finish* is kept until the hub has acknowledged it."""
        with self._state:
            if finish is not None:
                self._unacknowledged[key] = finish
            self._running.pop(key, None)
        connection: Connection | None = getattr(self._local, "worker", None)
        if connection is not None:
            try:
                connection.write(packed)
                return
            except ConnectionBroken:
                pass
        self._replace_connection()  # this sends unacknowledged finishes, this one among them
        if finish is None:
            with contextlib.suppress(ConnectionBroken):
                self._local.worker.write(packed)

    def wake(self) -> None:
        """``ChannelLayer.wake``."""
        for wake in list(self._wakes):
            wake.set()

    def close(self) -> None:
        """End the watcher and this thread's connection; those of other threads end with their threads."""
        self.stop_taking()
        watcher, self._watcher = self._watcher, None
        if watcher is not None:
            watcher.stop()
        self._forget_connection()

    # -- connections --------------------------------------------------------------------------------------------------

    def _thread_connection(self, is_taking: bool = False) -> Connection:
        """The connection on which this thread takes. Raises Woken while it waits for a hub in order to take."""
        connection: Connection | None = getattr(self._local, "worker", None)
        if connection is None:
            if self._watcher is None:
                self._start_watcher()
            wake: WakePipe | None = getattr(self._local, "wake", None)
            if wake is None:
                wake = self._local.wake = WakePipe()
                self._wakes.add(wake)
            connection = self._open(frames.WORKER, wake if is_taking else None)
            connection.watch(wake)
            self._local.worker = connection
            with self._state:
                self._connections[connection.hub_id, connection.number] = connection
        return connection

    def _forget_connection(self) -> None:
        old: Connection | None = self._local.__dict__.pop("worker", None)
        if old is not None:
            self._note_rest(old)
            old.close()

    def _replace_connection(self, is_taking: bool = False) -> None:
        """Connect again and send this process's unacknowledged finishes again."""
        self._forget_connection()
        connection = self._thread_connection(is_taking)
        with self._state:
            frames_again = list(self._unacknowledged.values())
        try:
            for frame in frames_again:
                connection.write(codec.pack((*frame, True)))
        except ConnectionBroken:
            pass  # the next use notices

    # -- deliveries ---------------------------------------------------------------------------------------------------

    def _ask(self, connection: Connection, wanted: tuple[str, ...]) -> None:
        if connection.take_channels == wanted:
            connection.write(_TAKE_AGAIN)
        else:
            connection.write(codec.pack((frames.TAKE, names.check_receive(wanted))))
            connection.take_channels = wanted

    def _await_delivery(self, connection: Connection, deadline: float | None) -> Any:
        while True:
            left = None if deadline is None else max(0.0, deadline - SystemClock.monotonic())
            frame = connection.read(left)
            if frame is None or frame[0] == frames.DELIVER:
                return frame
            self._note(frame)

    def _next_fetched(self, connection: Connection) -> Delivery | None:
        """The next message that has been read already and was not called back."""
        while (frame := connection.read_fetched()) is not None:
            if frame[0] == frames.DELIVER:
                delivery = self._begin(connection, frame)
                if delivery is not None:
                    return delivery
            else:
                self._note(frame)
        return None

    def _begin(self, connection: Connection, frame: Any) -> Delivery | None:
        """The delivery in *frame*, from here on begun; None: it has been called back."""
        _, key, channel, body, deaths, session = frame
        with self._state:
            connection.delivered += 1
            if connection.delivered <= connection.given_back:
                return None
            connection.begun = connection.delivered
            self._running[key] = (channel, deaths, connection.hub_id)
            is_late = connection.hub_id in self._dead_hubs
        if is_late:
            # It was read after the watcher had reported to the next hub: that one must hear of it too.
            self._replace_connection()
            with contextlib.suppress(ConnectionBroken):
                self._local.worker.write(codec.pack((frames.RUNNING, [(key, channel, deaths)])))
        return Delivery(channel, codec.decode(body), key, deaths != 0, session, key)

    def _stop(self, connection: Connection) -> Delivery | None:
        """This thread is not idle any more: the first delivery that crossed the notice is run, others go back."""
        crossed = self._untake(connection, ANSWER_TIMEOUT)
        while crossed:
            delivery = self._begin(connection, crossed.pop(0))
            if delivery is not None:
                self._give_back(connection, crossed)
                return delivery
        return None

    def _untake(self, connection: Connection, timeout: float) -> list[Any]:
        """Tell the hub that this thread takes no more; the deliveries that it had sent before it heard so."""
        deadline = SystemClock.monotonic() + timeout
        crossed: list[Any] = []
        try:
            connection.write(_UNTAKE)
            while True:
                frame = connection.read(max(0.0, deadline - SystemClock.monotonic()))
                if frame is None and SystemClock.monotonic() >= deadline:
                    raise ConnectionBroken("no answer")
                if frame is None:  # another wake-up: this take ends anyway
                    continue
                if frame[0] == frames.UNTAKEN:
                    return crossed
                if frame[0] == frames.DELIVER:
                    crossed.append(frame)
                else:
                    self._note(frame)
        except ConnectionBroken:
            # The hub has gone: nobody counts on this thread, and the next take connects again.
            self._forget_connection()
            return crossed[:1]

    def _give_back(self, connection: Connection, deliveries: Sequence[Any]) -> None:
        """Return *deliveries*, the last that the hub has sent, none of them begun."""
        if not deliveries:
            return
        with self._state:
            connection.delivered += len(deliveries)
            connection.given_back = connection.delivered
            answer = (frames.RECALLED, connection.begun, connection.delivered)
        with contextlib.suppress(ConnectionBroken):
            connection.write(codec.pack(answer))

    def _note(self, frame: Any) -> None:
        if frame[0] == frames.ACK:
            with self._state:
                self._unacknowledged.pop(frame[1], None)

    def _note_rest(self, connection: Connection) -> None:
        """A finish that the hub had acknowledged before it died must not be sent to its successor."""
        for frame in connection.read_rest():
            self._note(frame)

    # -- the watcher --------------------------------------------------------------------------------------------------

    def _start_watcher(self) -> None:
        with self._state:
            if self._watcher is None:
                self._watcher = Watcher(lambda wake: self._open(frames.WATCHER, wake), self._report, self._recall)

    def _report(self, connection: Connection) -> None:
        """What a hub that does not know this process must hear; called by the watcher for each connection."""
        with self._state:
            stale = [each for (hub_id, _), each in self._connections.items() if hub_id != connection.hub_id]
        for each in stale:
            self._note_rest(each)
        with self._state:
            last, self._watched_hub = self._watched_hub, connection.hub_id
            if last is not None and last != connection.hub_id:
                self._dead_hubs = [*self._dead_hubs[1 - _REMEMBERED_HUBS :], last]
            # What a thread has from the new hub already is known there.
            running = [
                (key, channel, deaths)
                for key, (channel, deaths, hub_id) in self._running.items()
                if hub_id != connection.hub_id
            ]
            finishes = list(self._unacknowledged.values())
        if last is not None:
            connection.write(codec.pack((frames.RUNNING, running)))
            for frame in finishes:
                connection.write(codec.pack((*frame, True)))

    def _recall(self, watching: Connection, frame: Any) -> None:
        """The hub asks for what a thread has fetched up to a number and not begun; called by the watcher."""
        if frame[0] != frames.RECALL:
            return
        _, number, last = frame
        with self._state:
            connection = self._connections.get((watching.hub_id, number))
            if connection is None:
                return
            connection.given_back = max(connection.given_back, last)
            # On the thread's own connection and before that thread can see what has gone: so the answer stands in order
            # with the ends of what it ran, and with its next request.
            with contextlib.suppress(ConnectionBroken):
                connection.write(codec.pack((frames.RECALLED, connection.begun, last)))


_TAKE_AGAIN = codec.pack((frames.TAKE, None))
_UNTAKE = codec.pack((frames.UNTAKE,))
