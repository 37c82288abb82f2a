"""A request's body on its way to the workers: inline in the request's message, or in chunks behind it.

Chunks leave only when a worker has begun with the request: until then they would fill the layer and could expire. Those
that wait in a layer that is lost are lost with it, and nobody knows which: no chunk follows then; the worker is told.
A driver; the rules it follows are the limits of ``InterfaceSettings``.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

from procman.interface.errors import ClientGone, Refusal
from procman.interface.replies import Replies
from procman.layers.errors import LayerError, LayerUnavailable
from procman.settings import InterfaceSettings

logger = logging.getLogger("procman.interface")

CHUNK_SIZE = 256 * 1024  # bytes per message: large enough that a message's cost is small against its bytes

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]


class Body:
    """What a client sends after its headers."""

    def __init__(self, length: int | None, receive: Receive, settings: InterfaceSettings, replies: Replies) -> None:
        self.length = length
        self.receive = receive
        self.settings = settings
        self.replies = replies
        self.channel = ""
        self.has_more = True
        self.read_bytes = 0
        self._begun = asyncio.Event()
        self._loss = replies.next_loss
        self._task: asyncio.Task[None] | None = None
        self._is_open = False  # the worker waits for a chunk

    @classmethod
    def of(
        cls, headers: Iterable[tuple[bytes, bytes]], receive: Receive, settings: InterfaceSettings, replies: Replies
    ) -> Body | None:
        """The body that *headers* announce, None for none.

        Raises:
            Refusal: its announced length is over ``max_body_size``.
        """
        length: int | None = 0
        for name, value in headers:
            if name == b"content-length":
                length = int(value)  # the HTTP parser has checked that it is a number
            elif name == b"transfer-encoding":
                length = None
                break
        if length == 0:
            return None
        if length is not None and length > settings.max_body_size:
            raise _too_large(settings)
        return cls(length, receive, settings, replies)

    async def read_inline(self) -> bytes:
        """The whole body, or its beginning with ``has_more`` set if it is over ``inline_body_size``.

        Raises:
            Refusal, ClientGone.
        """
        limit = self.settings.inline_body_size
        if self.length is not None and self.length > limit:
            return b""
        parts: list[bytes] = []
        while self.has_more and self.read_bytes <= limit:
            parts.append(await self._read())
        return b"".join(parts)

    def start(self, on_failure: Callable[[Exception], None]) -> None:
        """Send the rest, once ``begin`` is called; *on_failure* hears why the request cannot be completed."""
        self._task = asyncio.get_running_loop().create_task(self._send_all(on_failure))

    def begin(self) -> None:
        """A worker has the request and reads chunks from here on."""
        if not self._begun.is_set():
            self._loss = self.replies.next_loss
            self._begun.set()

    def abandon(self) -> None:
        """The client has left: the worker is told with the last chunk."""
        if self._task is not None:
            self._task.cancel()

    async def stop(self) -> None:
        """The response is complete or given up: nobody wants the rest of the body."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait((self._task,))

    async def _send_all(self, on_failure: Callable[[Exception], None]) -> None:
        try:
            await self._begun.wait()
            self._is_open = True
            while self.has_more:
                content = await self._read_chunk()
                if self._loss.is_set():
                    raise LayerUnavailable("the channel layer was lost, and what was in it of the body")
                chunk = {"content": content, "more_content": self.has_more}
                await self.replies.layer.send_when_room(self.channel, chunk)
            self._is_open = False
            await self._loss.wait()  # until the response is complete: ``stop`` ends this
            self._tell({"lost": True})
        except (Refusal, ClientGone) as error:
            on_failure(error)
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
        parts, size = [], 0
        while self.has_more and size < CHUNK_SIZE:
            parts.append(await self._read())
            size += len(parts[-1])
        return b"".join(parts)

    async def _read(self) -> bytes:
        try:
            async with asyncio.timeout(self.settings.body_timeout):
                event = await self.receive()
        except TimeoutError:
            raise Refusal(408, "The request's body did not arrive in time.") from None
        if event["type"] != "http.request":
            raise ClientGone
        content: bytes = event.get("body", b"")
        self.has_more = event.get("more_body", False)
        self.read_bytes += len(content)
        if self.read_bytes > self.settings.max_body_size:
            raise _too_large(self.settings)
        return content


def _too_large(settings: InterfaceSettings) -> Refusal:
    return Refusal(413, f"The request's body is over the limit of {settings.max_body_size} bytes.")
