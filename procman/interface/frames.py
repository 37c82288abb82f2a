"""WebSocket frames of a client to messages, and control frames of ours to bytes.

Pure. All state is plain data between two calls, also in the middle of a frame, of a message in fragments or of a
character: no generator, no decoder object (``dump`` and ``load``). Bytes that were fed and not asked for stay as bytes,
so whoever stops asking has bounded what a client can make of them. Source: RFC 6455, sections 5 and 7; RFC 7692.
"""

from __future__ import annotations

import codecs
import struct
import zlib
from typing import Any, NamedTuple

from procman.interface.messages import SENDABLE_CLOSE_CODES, build_frame

try:
    from websockets.speedups import apply_mask
except ImportError:  # a platform without the library's C part
    from websockets.utils import apply_mask

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
NO_STATUS = 1005  # RFC 6455, 7.1.5: a close frame without a code
WINDOW_BITS = 15  # the largest window; it reads what was made with any other
SMALLEST = 256  # bytes; below it compression costs more than it saves
_TAIL = b"\x00\x00\xff\xff"  # RFC 7692, 7.2.2: left out by the sender of a compressed message


class Ping(NamedTuple):
    """The client asks for a pong with *payload*."""

    payload: bytes


class Pong(NamedTuple):
    """The client has answered a ping."""


class Closed(NamedTuple):
    """The client's close frame; *code* is ``NO_STATUS`` if it has none."""

    code: int
    reason: str


class Failure(NamedTuple):
    """The client broke the protocol: close with *code*, read nothing more."""

    code: int
    text: str


Event = str | bytes | Ping | Pong | Closed | Failure


class FrameDecoder:
    """What came of one client, and how far it was understood. ``deflates``: compressed messages were agreed to."""

    __slots__ = ("_buffer", "_checked", "_fragments", "_is_compressed", "_is_text", "_position", "deflates", "max_size")

    def __init__(self, max_size: int, deflates: bool = False) -> None:
        self.max_size = max_size
        self.deflates = deflates
        self._buffer: bytes | bytearray = b""
        self._position = 0
        self._fragments: bytearray | None = None  # of a message that is not complete
        self._is_text = False
        self._is_compressed = False
        self._checked = 0  # bytes of the fragments that are known to be UTF-8

    @property
    def unread(self) -> int:
        """Bytes that were fed and make no event yet, or were not asked for."""
        return len(self._buffer) - self._position

    def feed(self, data: bytes) -> None:
        """Take *data*; ``next`` says what it means."""
        if self._position == len(self._buffer):
            self._buffer = data
            self._position = 0
            return
        buffer = self._buffer
        if not isinstance(buffer, bytearray):
            buffer = self._buffer = bytearray(buffer)
        if self._position:
            del buffer[: self._position]
            self._position = 0
        buffer += data

    def next(self) -> Event | None:
        """The next message (``str`` or ``bytes``) or control frame, None if more bytes are needed.

        After ``Closed`` or ``Failure`` nothing more is to be asked for.
        """
        while True:
            data, position = self._buffer, self._position
            available = len(data) - position
            if available < 2:
                return None
            first, second = data[position], data[position + 1]
            size = second & 0x7F
            header = 6
            if size >= 126:
                header = 8 if size == 126 else 14
                if available < header - 4:
                    return None
                form = "!H" if size == 126 else "!Q"
                (size,) = struct.unpack_from(form, data, position + 2)
            failure = self._check(first, second, size)
            if failure is not None:
                return failure
            if available < header + size:
                return None
            start = position + header
            end = self._position = start + size
            payload = apply_mask(bytes(data[start:end]), bytes(data[start - 4 : start])) if size else b""
            if end == len(data):
                self._buffer, self._position = b"", 0
            event = self._read(first, payload)
            if event is not None:
                return event

    def _check(self, first: int, second: int, size: int) -> Failure | None:
        """What is wrong with the head of a frame, before its payload is waited for."""
        opcode = first & 0x0F
        # RSV1 of a message's first frame marks it as compressed.
        if first & 0x70 and (first & 0x30 or not self.deflates or opcode not in (TEXT, BINARY)):
            return Failure(1002, "reserved bits are set")
        if not second & 0x80:
            return Failure(1002, "a client's frames must be masked")
        if opcode >= CLOSE:
            if opcode > PONG:
                return Failure(1002, "unknown opcode")
            if size > 125 or not first & 0x80:
                return Failure(1002, "a control frame is too long or in fragments")
            return None
        if opcode > BINARY:
            return Failure(1002, "unknown opcode")
        fragments = self._fragments
        if (fragments is None) != (opcode != CONTINUATION):
            return Failure(1002, "fragments are out of order")
        if size + (len(fragments) if fragments is not None else 0) > self.max_size:
            return Failure(1009, "the message is too large")
        return None

    def _read(self, first: int, payload: bytes) -> Event | None:
        """What a complete frame means; None: it is a fragment."""
        opcode = first & 0x0F
        if opcode >= CLOSE:
            if opcode == PING:
                return Ping(payload)
            return _PONG if opcode == PONG else _read_close(payload)
        if opcode != CONTINUATION:
            self._is_text = opcode == TEXT
            self._is_compressed = bool(first & 0x40)
            if first & 0x80:
                return self._complete(payload)
            self._fragments, self._checked = bytearray(payload), 0
        else:
            assert self._fragments is not None
            # Joined at once, so that empty fragments without end take no memory.
            self._fragments += payload
        if first & 0x80:
            fragments, self._fragments = self._fragments, None
            return self._complete(bytes(fragments))
        if self._is_text and not self._is_compressed:
            try:
                _, consumed = codecs.utf_8_decode(self._fragments[self._checked :], "strict", False)
            except UnicodeDecodeError:
                return _NOT_UTF8
            self._checked += consumed
        return None

    def _complete(self, payload: bytes) -> Event:
        if self._is_compressed:
            inflater = zlib.decompressobj(-WINDOW_BITS)
            try:
                payload = inflater.decompress(payload + _TAIL, self.max_size + 1)
            except zlib.error:
                return Failure(1002, "the message cannot be decompressed")
            if len(payload) > self.max_size:
                return Failure(1009, "the decompressed message is too large")
        if not self._is_text:
            return payload
        try:
            return payload.decode()
        except UnicodeDecodeError:
            return _NOT_UTF8

    def dump(self) -> list[Any]:
        """The whole state as plain data."""
        fragments = bytes(self._fragments) if self._fragments is not None else None
        rest = bytes(self._buffer[self._position :])
        return [self.max_size, self.deflates, rest, fragments, self._is_text, self._is_compressed, self._checked]

    @classmethod
    def load(cls, data: list[Any]) -> FrameDecoder:
        """The decoder whose ``dump`` is *data*."""
        max_size, deflates, rest, fragments, is_text, is_compressed, checked = data
        made = cls(max_size, deflates)
        made._buffer = rest
        made._fragments = bytearray(fragments) if fragments is not None else None
        made._is_text, made._is_compressed, made._checked = is_text, is_compressed, checked
        return made


_PONG = Pong()
_NOT_UTF8 = Failure(1007, "a text message is not UTF-8")


def _read_close(payload: bytes) -> Closed | Failure:
    if not payload:
        return Closed(NO_STATUS, "")
    if len(payload) == 1:
        return Failure(1002, "half a close code")
    (code,) = struct.unpack_from("!H", payload)
    if code not in SENDABLE_CLOSE_CODES and not 3000 <= code <= 4999:
        return Failure(1002, "a close code that must not be sent")
    try:
        return Closed(code, payload[2:].decode())
    except UnicodeDecodeError:
        return Failure(1007, "a close reason is not UTF-8")


def build_control(opcode: int, payload: bytes = b"") -> bytes:
    """A complete control frame; *payload* is at most 125 bytes."""
    return bytes((0x80 | opcode, len(payload))) + payload


def build_close(code: int, reason: str = "") -> bytes:
    """A complete close frame; a *reason* too long for one is cut at a character."""
    if code == NO_STATUS:
        return build_control(CLOSE)
    text = reason.encode()[:123].decode("utf-8", "ignore").encode()
    return build_control(CLOSE, struct.pack("!H", code) + text)


class Deflater:
    """Compresses frames of ours. One that goes to many sockets, one after the other, is compressed once."""

    def __init__(self) -> None:
        self._frame = b""
        self._compressed: dict[int, bytes] = {}

    def compress(self, frame: bytes, window_bits: int) -> bytes:
        """*frame* as a compressed one that needs no other to be read; *frame* itself where that would save nothing."""
        if frame is not self._frame:
            self._frame, self._compressed = frame, {}
        found = self._compressed.get(window_bits)
        if found is None:
            found = self._compressed[window_bits] = _compress(frame, window_bits)
        return found


def _compress(frame: bytes, window_bits: int) -> bytes:
    payload = frame[{126: 4, 127: 10}.get(frame[1], 2) :]
    if len(payload) < SMALLEST or window_bits < 9:  # zlib makes no smaller window
        return frame
    deflater = zlib.compressobj(wbits=-window_bits)
    data = (deflater.compress(payload) + deflater.flush(zlib.Z_SYNC_FLUSH)).removesuffix(_TAIL)
    if len(data) >= len(payload):
        return frame
    made = build_frame(data, is_text=frame[0] & 0x0F == TEXT)
    return bytes((made[0] | 0x40,)) + made[1:]
