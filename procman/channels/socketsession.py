"""Channel sessions that live beside their socket, in the interface server.

A frame of a socket brings its session along, and the finish takes it back (``SocketSession``). A message that was
forwarded to another channel, and carries the reply channel of a socket, brings none: its session is fetched from the
interface on first use, and what was changed is merged there, key by key (``FetchedSession``). Nothing is stored
elsewhere, and the session is gone when the socket is.
"""

from __future__ import annotations

import os
import threading
from typing import Any
from weakref import WeakKeyDictionary

from django.contrib.sessions.backends.base import SessionBase
from django.core.signing import JSONSerializer

from procman.channels.channel import Channel
from procman.clock import SystemClock
from procman.layers import sessions
from procman.layers.errors import LayerUnavailable, ReplyChannelGone

FETCH_TIMEOUT = 5.0  # seconds for the way to the interface, and as much for the way back


class SocketSession(SessionBase):
    """A channel session that came with its message. It is stored when the consumer has ended; ``save`` only marks it.

    Keys are strings.
    """

    def __init__(self, session_key: str, data: bytes) -> None:
        super().__init__(session_key)
        self._data = data

    def load(self) -> dict[str, Any]:
        """What the session held when the message came."""
        values = sessions.unpack(self._data)
        loads = self.serializer().loads
        if self.serializer is JSONSerializer:  # one call for all: a call for each takes twice as long in all
            return dict(zip(values, loads(b"[" + b",".join(values.values()) + b"]"), strict=True))
        return {key: loads(value) for key, value in values.items()}

    def exists(self, session_key: str) -> bool:
        """Whether *session_key* is this session's."""
        return session_key == self.session_key

    def create(self) -> None:
        """Nothing is to be made: the session is there as long as its socket."""
        self.modified = True

    def save(self, must_create: bool = False) -> None:
        """Have the session stored with the finish."""
        self.modified = True

    def delete(self, session_key: str | None = None) -> None:
        """Empty the session."""
        if session_key is None or session_key == self.session_key:
            self._data = b""

    def flush(self) -> None:
        """Empty the session."""
        self.clear()
        self.delete()

    def cycle_key(self) -> None:
        """Nothing is to be done: the key is never given to a client."""

    def changed_data(self) -> bytes | None:
        """What is to be stored with the finish, None for nothing.

        Raises:
            TypeError: a value that the serializer does not take.
        """
        return sessions.pack(self._values()) if self.modified else None

    def take_merge(self) -> dict[str, Any] | None:
        """The message to the reply channel that stores what was changed, None for nothing."""
        return None

    def _values(self) -> dict[str, bytes]:
        dumps = self.serializer().dumps
        return {str(key): dumps(value) for key, value in self._get_session().items()}  # type: ignore[attr-defined]


class FetchedSession(SocketSession):
    """The channel session of the socket behind *reply_channel*, for a message that came without it.

    Of a socket that has closed the session is empty, and what is written into it is dropped. ``save`` stores what was
    changed at once; the rest goes with the finish.
    """

    def __init__(self, session_key: str, reply_channel: Channel) -> None:
        super().__init__(session_key, b"")
        self._reply_channel = reply_channel
        self._before: dict[str, bytes] = {}  # what the interface has, as far as this consumer has seen or made it
        self._is_cleared = False

    def load(self) -> dict[str, Any]:
        """What the session holds now, asked for each time.

        Raises:
            LayerUnavailable: the interface did not answer.
        """
        self._data = fetch(self._reply_channel) or b""
        if not hasattr(self, "_session_cache"):
            self._before = sessions.unpack(self._data)
        return super().load()

    def save(self, must_create: bool = False) -> None:
        """Have what was changed merged now."""
        self.modified = True
        merge = self.take_merge()
        if merge is not None:
            self._reply_channel.send(merge, immediately=True)

    def delete(self, session_key: str | None = None) -> None:
        """Empty the session."""
        if session_key is None or session_key == self.session_key:
            self.clear()

    def clear(self) -> None:
        """Empty the session, whatever else is written into it meanwhile."""
        super().clear()
        self._before, self._is_cleared = {}, True

    def changed_data(self) -> bytes | None:
        """None: the finish of another message does not store it."""
        return None

    def take_merge(self) -> dict[str, Any] | None:
        """The message that merges what was changed since the last one, None for nothing."""
        if not self.modified:
            return None
        values = self._values()
        changes = sessions.find_changes(self._before, values)._replace(is_cleared=self._is_cleared)
        self._before, self._is_cleared, self.modified = values, False, False
        return sessions.build_merge(changes) if any(changes) else None


class _Asking(threading.local):
    """A thread's own channel for answers, one per layer: a name of its own for each question would be remembered by
    the layer's statistics.
    """

    def __init__(self) -> None:
        self.number = 0
        self._names: WeakKeyDictionary[Any, tuple[int, str]] = WeakKeyDictionary()

    def next_read(self, layer: Any) -> sessions.Read:
        """A question that no other thread or process asks."""
        pid, name = self._names.get(layer, (0, ""))
        if pid != os.getpid():  # a forked process must not read its parent's answers
            name = layer.new_channel("session?")
            self._names[layer] = os.getpid(), name
        self.number += 1
        return sessions.Read(name, self.number)


_asking = _Asking()


def fetch(reply_channel: Channel) -> bytes | None:
    """The session that lives beside the socket of *reply_channel*; None if that has closed.

    Raises:
        LayerUnavailable: no answer within ``FETCH_TIMEOUT``.
    """
    layer = reply_channel.channel_layer
    read = _asking.next_read(layer)
    try:
        layer.send_and_wait(reply_channel.name, sessions.build_read(read), timeout=FETCH_TIMEOUT)
    except ReplyChannelGone:
        return None
    deadline = SystemClock.monotonic() + FETCH_TIMEOUT
    while (left := deadline - SystemClock.monotonic()) > 0:
        _, message = layer.receive_many([read.answer], block=True, timeout=left)
        if message is not None and message["number"] == read.number:  # others are late, to questions given up
            session: bytes = message["session"]
            return session
    raise LayerUnavailable(f"the interface of {reply_channel.name} sent no session for {FETCH_TIMEOUT} s")
