"""One blocking connection to a Redis server: commands are written, answers read in their order.

redis-py connects, authenticates and encrypts; from there on bytes go through hiredis directly, because redis-py's own
path costs as much as the scripts. Belongs to one thread at a time. What to do about a broken one is decided elsewhere.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from typing import Any

import hiredis
import redis

from procman.layers.errors import LayerUnavailable
from procman.layers.redis.scripts import Script, load
from procman.log import escape

ANSWER_TIMEOUT = 5.0
_READ_BYTES = 64 * 1024
_NOTHING = object()
# What a server says that is about to be, or has become, another one than the master: connect again.
_PASSING = ("NOSCRIPT", "READONLY", "LOADING", "MASTERDOWN", "BUSY", "UNBLOCKED", "TRYAGAIN", "CLUSTERDOWN")


class LinkBroken(Exception):
    """The server has gone, does not answer, or is no master any more."""


class Link:
    """A connection, and the scripts that its server holds."""

    __slots__ = (
        "_connection",
        "_pid",
        "_poll",
        "_reader",
        "_socket",
        "client_id",
        "has_fractions",
        "run_id",
        "scripts",
    )

    def __init__(self, client: redis.Redis, has_scripts: bool = True) -> None:
        self._pid = os.getpid()
        pool: Any = client.connection_pool
        self._connection = pool.make_connection()
        self._reader = hiredis.Reader(notEnoughData=_NOTHING)
        self.scripts: dict[str, Script] = {}
        self.client_id, self.run_id = 0, ""
        try:
            self._connection.connect()
            self._socket: Any = self._connection._sock
            _set_timeouts(self._socket, ANSWER_TIMEOUT)
            if has_scripts:
                self._load()
            else:
                self.client_id = int(self.call("CLIENT", "ID"))
        except (redis.RedisError, OSError) as error:
            self._connection.disconnect()
            if isinstance(error, redis.AuthenticationError | redis.ResponseError) and not is_passing(str(error)):
                raise LayerUnavailable(f"Redis refuses the connection: {escape(str(error))}") from error
            raise LinkBroken(str(error)) from error
        except BaseException:
            self._connection.disconnect()
            raise

    def _load(self) -> None:
        lines = bytes(self.call("INFO", "server")).decode(errors="replace").splitlines()
        about = dict(line.split(":", 1) for line in lines if ":" in line)
        self.run_id = about.get("run_id", "")
        self.scripts = load(parse_version(about.get("redis_version", "")))
        names = list(self.scripts)
        known = self.call("SCRIPT", "EXISTS", *(self.scripts[name].digest for name in names))
        for name, is_known in zip(names, known, strict=True):
            if not is_known:
                self.call("SCRIPT", "LOAD", self.scripts[name].text)

    def fileno(self) -> int:
        """What is readable when an answer arrives."""
        descriptor: int = self._socket.fileno()
        return descriptor

    def write(self, command: bytes) -> None:
        """Send *command*. Raises LinkBroken."""
        try:
            self._socket.sendall(command)
        except OSError as error:
            raise LinkBroken(str(error)) from error

    def read(self) -> Any:
        """The next answer, or the error that the server gave instead. Raises LinkBroken, LayerUnavailable."""
        while (answer := self._reader.gets()) is _NOTHING:
            try:
                data = self._socket.recv(_READ_BYTES)
            except OSError as error:
                raise LinkBroken("it does not answer" if isinstance(error, BlockingIOError) else str(error)) from error
            if not data:
                raise LinkBroken("the server closed the connection")
            self._reader.feed(data)
        if isinstance(answer, Exception):
            raise build_error(str(answer))
        return answer

    def is_readable(self) -> bool:
        """Whether bytes wait that ``poll`` does not see: decrypted, or read together with the last answer."""
        pending = getattr(self._socket, "pending", None)
        return bool(self._reader.has_data() or (pending is not None and pending()))

    def call(self, *command: Any) -> Any:
        """The answer to one command."""
        self.write(pack(*command))
        return self.read()

    def close(self) -> None:
        """Close; twice is fine. In a forked child the parent's connection goes on."""
        if self._pid == os.getpid():
            with contextlib.suppress(Exception):
                self._connection.disconnect()
        with contextlib.suppress(Exception):
            self._socket.close()


def pack(*command: Any) -> bytes:
    """The bytes of *command*."""
    packed: bytes = hiredis.pack_command(command)
    return packed


def parse_version(text: str) -> tuple[int, ...]:
    """``7.2.4`` as numbers; what is no number counts as nothing."""
    return tuple(int(part) for part in text.split(".") if part.isdigit())


def is_passing(text: str) -> bool:
    """Whether the server's error *text* means that another try, on another connection, may go well."""
    return text.startswith(_PASSING) or any(f"-{word} " in text for word in ("READONLY", "LOADING"))


def build_error(text: str) -> Exception:
    """The exception for the server's error *text*."""
    if is_passing(text):
        return LinkBroken(text)
    if text.startswith("OOM") or "-OOM" in text:
        return OutOfMemory()
    return LayerUnavailable(f"Redis refuses a command: {escape(text)[:300]}")


class OutOfMemory(LayerUnavailable):
    """Redis is at its ``maxmemory`` and takes no more: nothing was queued. Raise it, or find what fills it."""

    def __init__(self) -> None:
        super().__init__("Redis is out of memory (maxmemory) and refuses what is sent; nothing was queued")


def _set_timeouts(sock: socket.socket, seconds: float) -> None:
    # Timeouts of the kernel, not settimeout(): that would poll before each call.
    sock.settimeout(None)
    limit = struct.pack("ll", int(seconds), int(seconds % 1 * 1_000_000))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
