"""A real hub process whose listening socket the test keeps, as the supervisor does, and layers to reach it."""

import asyncio
import contextlib
import os
import select
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

from procman.layers.base import Offer, OpenSocket, Snapshot
from procman.layers.ipc.aio import AsyncIPCLayer
from tests.support.waiting import wait_until

ROOT = Path(__file__).parents[2]
_CODE = """
import sys
from procman.layers.ipc.server import run_hub
from procman.log import setup_logging
setup_logging()
run_hub(sys.argv[1], int(sys.argv[2]))
"""


class HubProcess:
    """``run_hub`` in a process of its own; it may be killed and started again at the same address."""

    def __init__(self, directory: str) -> None:
        self.path = f"{directory}/hub.sock"
        self.address = f"ipc://{self.path}"
        self.log_path = Path(directory) / "hub.log"
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self.path)
        self._listener.listen(128)
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> str:
        """What all hubs at this address have logged."""
        return self.log_path.read_text()

    def start(self) -> "HubProcess":
        """Start and wait until it says that it is ready."""
        reader, writer = os.pipe()
        fd = self._listener.fileno()
        environ = os.environ | {"PROCMAN_READY_FD": str(writer), "PYTHONPATH": str(ROOT)}
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", _CODE, self.address, str(fd)],
                pass_fds=(fd, writer),
                env=environ,
                stdout=log,
                stderr=log,
            )
        os.close(writer)
        ready, _, _ = select.select([reader], [], [], 20)
        said = os.read(reader, 1) if ready else b""
        os.close(reader)
        assert said == b"1", self.log
        return self

    def kill(self) -> None:
        """kill -9."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(10)

    def stop(self) -> int:
        """SIGTERM; the exit status."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.terminate()
        return self.process.wait(10)

    def close(self) -> None:
        """Stop it and close the listening socket."""
        self.stop()
        self._listener.close()


@contextlib.contextmanager
def running_hub() -> Iterator[HubProcess]:
    """A hub that is stopped at the end."""
    with tempfile.TemporaryDirectory(prefix="pm-", dir="/tmp") as directory:
        hub = HubProcess(directory)
        try:
            yield hub.start()
        finally:
            hub.close()


class LoopThread:
    """An event loop in a thread, for tests that are not coroutines."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever)
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, Any], timeout: float = 20.0) -> Any:
        """The result of *coroutine*, run on the loop."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(timeout)

    def call(self, function: Any, *arguments: Any) -> Any:
        """The result of *function*, called on the loop."""

        async def call() -> Any:
            return function(*arguments)

        return self.run(call())

    def close(self) -> None:
        """Stop the loop."""
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(10)
        self.loop.close()


class RecordingInterface:
    """An interface server as a layer sees it: holds what it was told to hold, and records what it hears.

    *layer* is an asyncio layer that is not connected yet, or the address of a hub.
    """

    def __init__(self, layer: Any, loop: LoopThread | None = None, **options: Any) -> None:
        self._own_loop = loop is None
        self.loop = LoopThread() if loop is None else loop
        self.layer = AsyncIPCLayer(layer, **options) if isinstance(layer, str) else layer
        self.is_closed = False
        self.name = self.layer.serve(self)
        self.events: list[tuple[Any, ...]] = []
        self.unfinished: dict[int, Offer] = {}
        self.sockets: dict[str, OpenSocket] = {}
        self.members: set[tuple[str, str]] = set()
        self.found_count = 0
        self._counter = 0
        self.answers_tokens: bool | None = True
        self.loop.run(self.layer.connect(10))

    # -- what the test does -------------------------------------------------------------------------------------------

    def channel(self, name: str = "1") -> str:
        """A reply channel below this interface."""
        return f"{self.name}!{name}"

    def offer(self, channel: str, message: dict[str, Any], reply: str = "1", **fields: Any) -> int:
        """Offer a frame; returns its number."""
        self._counter += 1
        number = self._counter
        offer = Offer(number, channel, self.layer.encode(message), self.channel(reply), **fields)
        self.unfinished[number] = offer
        self.loop.call(self.layer.offer, offer)
        return number

    def open(self, name: str = "1", order: int = 1, session: bytes | None = None) -> None:
        """Accept a socket."""
        socket_ = OpenSocket(self.channel(name), "/ws/", order, session)
        self.sockets[name] = socket_
        self.loop.call(self.layer.socket_opened, socket_)

    def shut(self, name: str = "1") -> int:
        """A socket's client has left; returns the number of its disconnect."""
        self._counter += 1
        body = self.layer.encode({"reply_channel": self.channel(name), "code": 1000})
        offer = Offer(self._counter, "websocket.disconnect", body, self.channel(name))
        self.unfinished[offer.id] = offer
        self.sockets.pop(name, None)
        self.loop.call(self.layer.socket_closed, self.channel(name), offer)
        return offer.id

    def heard(self, kind: str, timeout: float = 10.0, count: int = 1) -> tuple[Any, ...]:
        """The *count*-th event of *kind*, waited for."""
        wait_until(lambda: len(self.all(kind)) >= count, timeout, what=f"{kind} in {self.events}")
        return self.all(kind)[count - 1]

    def all(self, kind: str) -> list[tuple[Any, ...]]:
        """The events of *kind* so far."""
        return [event[1:] for event in list(self.events) if event[0] == kind]

    def abandon(self) -> None:
        """End as a killed process does: the connection closes without goodbye."""

        async def abandon() -> None:
            self.layer._is_closing = True
            assert self.layer._protocol is not None
            self.layer._protocol.close()

        self.loop.run(abandon())
        self.close()

    def close(self) -> None:
        """Close the layer, and the loop if it is this interface's own. Twice is fine."""
        if self.is_closed:
            return
        self.is_closed = True
        self.loop.run(self.layer.close())
        if self._own_loop:
            self.loop.close()

    # -- InterfaceHandler ---------------------------------------------------------------------------------------------

    def on_reply(self, channel: str, message: dict[str, Any], token: int | None) -> None:
        self.events.append(("reply", channel, message))
        if token is not None and self.answers_tokens is not None:
            self.layer.written(token, self.answers_tokens)

    def is_unfinished(self, offer_id: int) -> bool:
        return offer_id in self.unfinished

    def on_finished(self, offer_id: int, session: bytes | None) -> None:
        del self.unfinished[offer_id]
        self.events.append(("finished", offer_id, session))

    def on_failed(self, offer_id: int, reason: str) -> None:
        self.unfinished.pop(offer_id, None)
        self.events.append(("failed", offer_id, reason))

    def on_begun(self, offer_id: int) -> None:
        self.unfinished[offer_id].begun = True
        self.events.append(("begun", offer_id))

    def on_group_add(self, group: str, channel: str) -> None:
        self.members.add((group, channel))

    def on_group_discard(self, group: str, channel: str) -> None:
        self.members.discard((group, channel))

    def on_group_send(self, group: str, message: dict[str, Any]) -> None:
        self.events.append(("group", group, message))

    def on_flush(self) -> None:
        self.members.clear()

    def on_declared_dead(self) -> None:
        self.events.append(("dead",))
        self.sockets.clear()

    def on_layer_lost(self) -> None:
        self.events.append(("lost",))

    def on_layer_found(self) -> Snapshot:
        self.found_count += 1
        return Snapshot(list(self.sockets.values()), list(self.members), list(self.unfinished.values()))
