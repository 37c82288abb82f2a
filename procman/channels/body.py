"""The body of a request as a stream: what came in its message, then chunk by chunk from its body channel.

A body of announced length is read as the view reads it, so a form's files go from the chunks straight to Django's
upload handlers, and a view that refuses early does not wait for the rest. One of unknown length (chunked) is read
whole first, in memory up to ``FILE_UPLOAD_MAX_MEMORY_SIZE`` and in a temporary file beyond: parsers of forms go by its
length.

Buffers: one chunk, and ``BUFFER_SIZE`` bytes.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
from typing import Any, BinaryIO

from django.conf import settings

from procman.channels.exceptions import BodyError, RequestAborted, RequestLost, RequestTimeout
from procman.channels.timeouts import watchdog
from procman.layers.errors import LayerError

BUFFER_SIZE = 64 * 1024  # bytes; what Django's multipart parser asks for at a time


class ChunkReader(io.RawIOBase):
    """*first*, then the chunks on *channel* of *layer*; each may take *timeout* seconds to come.

    Reading raises:
        RequestTimeout: no chunk came in time.
        RequestAborted: the client left before its body was complete.
        RequestLost: a part of the body is gone with the layer's process.
    """

    def __init__(self, layer: Any, channel: str, first: bytes, timeout: float) -> None:
        self._layer = layer
        self._channel = channel
        self._timeout = timeout
        self._rest = memoryview(first)
        self._has_more = True
        self.failure: BodyError | None = None

    def readable(self) -> bool:
        """True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill *buffer* from one chunk; the number of bytes, 0 at the end."""
        while not self._rest and self._has_more:
            self._rest = memoryview(self._next_chunk())
        if self.failure is not None:
            raise self.failure
        size = min(len(buffer), len(self._rest))
        buffer[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size

    def readall(self) -> bytes:
        """All that is left."""
        parts = [bytes(self._rest)]
        self._rest = memoryview(b"")
        while self._has_more:
            parts.append(self._next_chunk())
        if self.failure is not None:
            raise self.failure
        return b"".join(parts)

    def close(self) -> None:
        """Read no more. Chunks that wait are taken away, so that they do not fill the layer until they expire."""
        if not self.closed:
            self._rest = memoryview(b"")
            with contextlib.suppress(LayerError):  # what cannot be taken away expires
                while self._has_more:
                    _, chunk = self._layer.receive_many([self._channel])
                    self._has_more = chunk is not None and bool(chunk.get("more_content"))
        super().close()

    def _next_chunk(self) -> bytes:
        """The next chunk; ``failure`` is set if there is none, as every later read has to fail too."""
        with watchdog.paused():
            _, chunk = self._layer.receive_many([self._channel], block=True, timeout=self._timeout)
        if chunk is None:
            self.failure = RequestTimeout(f"no chunk of the body came for {self._timeout} s")
        elif chunk.get("closed"):
            self.failure = RequestAborted("the client left before its body was complete")
        elif chunk.get("lost"):
            self.failure = RequestLost("a part of the body is gone with the layer's process")
        self._has_more = self.failure is None and bool(chunk.get("more_content"))
        content: bytes = b"" if self.failure is not None else chunk.get("content") or b""
        return content


def spool(source: ChunkReader) -> tuple[BinaryIO, int]:
    """All of *source* in memory or in a temporary file, at its beginning, and its size in bytes.

    Raises:
        BodyError: as reading *source* does.
    """
    spooled: Any = tempfile.SpooledTemporaryFile(  # noqa: SIM115 - closed with the request
        max_size=settings.FILE_UPLOAD_MAX_MEMORY_SIZE, mode="w+b", dir=settings.FILE_UPLOAD_TEMP_DIR
    )
    try:
        while part := source.read(BUFFER_SIZE):
            spooled.write(part)
        size = spooled.tell()
        spooled.seek(0)
    except BaseException:
        spooled.close()
        raise
    return spooled, size
