"""The part of a request's body that does not travel inside the request's message: chunks behind it.

Chunks leave only when a worker has begun with the request: until then they would fill the layer and could expire. Those
that wait in a layer that is lost are lost with it, and nobody knows which: no chunk follows then; the worker is told.
A driver; the rules it follows are the limits of ``InterfaceSettings``.

Buffer: ``CHUNK_SIZE`` bytes and one read of the event loop; past the first, reading from the client pauses.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable

from procman.interface.errors import Refusal
from procman.interface.replies import Replies
from procman.layers.errors import LayerError, LayerUnavailable
from procman.settings import InterfaceSettings

logger = logging.getLogger("procman.interface")

CHUNK_SIZE = 256 * 1024  # bytes per message: large enough that a message's cost is small against its bytes


class Body:
    """What a client sends behind the inline part of its body: its connection feeds it, a task sends it on."""

    def __init__(
        self, settings: InterfaceSettings, replies: Replies, channel: str, on_room: Callable[[], None]
    ) -> None:
        self.settings = settings
        self.replies = replies
        self.channel = channel
        self._on_room = on_room
        self._parts: list[bytes] = []
        self._size = 0
        self._has_ended = False
        self._arrival: asyncio.Future[None] | None = None
        self._begun = asyncio.Event()
        self._loss = replies.next_loss
        self._task: asyncio.Task[None] | None = None
        self._is_open = False  # the worker waits for a chunk

    @property
    def is_full(self) -> bool:
        """Whether a chunk waits here: nothing more should be read from the client."""
        return self._size >= CHUNK_SIZE

    def feed(self, data: bytes) -> None:
        """*data* came from the client."""
        self._parts.append(data)
        self._size += len(data)
        self._arrived()

    def end(self) -> None:
        """The body is complete."""
        self._has_ended = True
        self._arrived()

    def _arrived(self) -> None:
        if self._arrival is not None and not self._arrival.done():
            self._arrival.set_result(None)

    def start(self, on_failure: Callable[[Refusal], None]) -> None:
        """Send the rest, once ``begin`` is called; *on_failure* hears why the request cannot be completed."""
        self._task = asyncio.get_running_loop().create_task(self._send_all(on_failure))

    def begin(self) -> None:
        """A worker has the request and reads chunks from here on."""
        if not self._begun.is_set():
            self._loss = self.replies.next_loss
            self._begun.set()

    def stop(self) -> None:
        """The response is complete or given up, or the client has left: a worker that reads on is told so."""
        if self._task is not None:
            self._task.cancel()

    async def _send_all(self, on_failure: Callable[[Refusal], None]) -> None:
        try:
            await self._begun.wait()
            self._is_open = True
            has_more = True
            while has_more:
                content = await self._read_chunk()
                has_more = not (self._has_ended and not self._parts)
                if self._loss.is_set():
                    raise LayerUnavailable("the channel layer was lost, and what was in it of the body")
                chunk = {"content": content, "more_content": has_more}
                await self.replies.layer.send_when_room(self.channel, chunk)
            self._is_open = False
            await self._loss.wait()  # until the response is complete: ``stop`` ends this
            self._tell({"lost": True})
        except Refusal as refusal:
            on_failure(refusal)
        except LayerError as error:
            logger.warning("request body given up: %s", error)
            on_failure(Refusal(503, "The channel layer is away; try again in a moment.", retry_after=1))
        finally:
            if self._is_open:
                self._tell({"closed": True})

    def _tell(self, message: dict[str, bool]) -> None:
        """Send the last *message* to the worker, however long the layer is away: ``stop`` does not end this."""
        task = asyncio.get_running_loop().create_task(self._send_last(message))
        self.replies.farewells.add(task)
        task.add_done_callback(self.replies.farewells.discard)

    async def _send_last(self, message: dict[str, bool]) -> None:
        # Best effort: a worker that is not told gives up after its own time limit.
        with contextlib.suppress(LayerError):
            await self.replies.layer.send(self.channel, message)

    async def _read_chunk(self) -> bytes:
        """What has come, once it is a chunk or the end. Raises Refusal: nothing came for ``body_timeout``."""
        while not self.is_full and not self._has_ended:
            self._arrival = asyncio.get_running_loop().create_future()
            try:
                async with asyncio.timeout(self.settings.body_timeout):
                    await self._arrival
            except TimeoutError:
                raise Refusal(408, "The request's body did not arrive in time.") from None
            finally:
                self._arrival = None
        content = b"".join(self._parts)
        self._parts.clear()
        self._size = 0
        self._on_room()
        return content
