"""The in-memory layer on an event loop: the interface's side, and the common operations as coroutines.

All of it is ``ipc/aio.py``'s; only the wire is another one. What the loop has not taken yet is bounded: past 10,000
frames a thread that adds to them waits until the loop has caught up, at most 5 s each time.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from typing import Any

from procman.layers.ipc import frames
from procman.layers.ipc.aio import AsyncIPCLayer
from procman.layers.ipc.peers import Frame
from procman.layers.limits import Limits
from procman.layers.local import Desk
from procman.layers.memory import InMemoryChannelLayer

_MAX_FRAMES = 10_000
_PATIENCE = 5.0


class AsyncInMemoryLayer(AsyncIPCLayer):
    """The same messages as *layer*, with its limits or *limits* of its own."""

    def __init__(self, layer: InMemoryChannelLayer, limits: Limits | None = None) -> None:
        super().__init__("memory://")
        self._layer = layer
        self.limits = layer.limits if limits is None else limits
        self.expiry, self.group_expiry, self.capacity = layer.expiry, layer.group_expiry, layer.capacity

    async def _keep_connected(self) -> None:
        role = frames.CLIENT if self._handler is None else frames.INTERFACE
        wire = _Wire(self, self._layer, role)
        try:
            self._welcomed(wire, self._layer.local.hub_id, False)
            await wire.lost
        finally:
            wire.close()
            self._lost(wire)


class _Wire(Desk):
    """What stands between the loop and the hub: frames go there at once, and come back in a turn of the loop."""

    def __init__(self, client: AsyncInMemoryLayer, layer: InMemoryChannelLayer, role: str) -> None:
        self._client, self._hub = client, layer.local
        self._loop = asyncio.get_running_loop()
        self._arrived: deque[Frame] = deque()
        self._is_due = self._is_closed = False
        self._timer: asyncio.TimerHandle | None = None
        self._room = threading.Event()
        self.lost: asyncio.Future[None] = self._loop.create_future()
        super().__init__(layer.local, role, client.limits, client.name or "interface", client.name)
        self._look()

    # -- as a protocol of ipc/aio.py ----------------------------------------------------------------------------------

    def write(self, frame: tuple[Any, ...]) -> None:
        """Have the hub handle *frame*; its answers come in a later turn of the loop."""
        if not self._is_closed:
            answers = self._hub.call(self.peer, frame)
            if answers:
                self.put(answers)

    def flush(self) -> None:
        """Nothing waits here."""

    def close(self) -> None:
        """The client goes; with frames of sockets unfinished this is its death."""
        if not self._is_closed:
            self._is_closed = True
            if self._timer is not None:
                self._timer.cancel()
            self._hub.unwatch(self)
            self._hub.close(self.peer)
            self._room.set()
            if not self.lost.done():
                self.lost.set_result(None)

    # -- as a desk of local.py ----------------------------------------------------------------------------------------

    def put(self, arrived: list[Frame]) -> None:
        self._arrived.extend(arrived)
        self._hurry()

    def nudge(self) -> None:
        self._hurry()

    def is_crowded(self) -> bool:
        if len(self._arrived) <= _MAX_FRAMES:
            return False
        self._room.clear()
        return True

    def wait_for_room(self) -> None:
        if threading.get_ident() != self.thread:
            self._room.wait(_PATIENCE)

    # -- the loop -----------------------------------------------------------------------------------------------------

    def _hurry(self) -> None:
        if not self._is_due and not self._is_closed:
            self._is_due = True
            self._loop.call_soon_threadsafe(self._turn)

    def _turn(self) -> None:
        self._is_due = False  # before the look: what comes from here on has a turn of its own
        while self._arrived and not self._is_closed:
            self._client._arrived(self._arrived.popleft())
        self._room.set()
        if not self._is_closed:
            self._look()

    def _look(self) -> None:
        """Do what is due, and be called when the next thing is."""
        seconds = self._hub.watch(self)
        if seconds <= 0:
            self._hub.tick()
            seconds = self._hub.watch(self)
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if seconds == float("inf") else self._loop.call_later(seconds, self._hurry)
