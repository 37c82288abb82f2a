"""One connection to a Redis server on an event loop: commands are written, answers read in their order.

As ``link.py``: redis-py connects, bytes go through hiredis directly.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import hiredis
import redis
import redis.asyncio

from procman.layers.errors import LayerUnavailable
from procman.layers.redis.link import LinkBroken, build_error, is_passing, pack, parse_version
from procman.layers.redis.scripts import Script, load
from procman.log import escape

_READ_BYTES = 64 * 1024
_NOTHING = object()


class AsyncLink:
    """A connection, and the scripts that its server holds. Made by ``open_link``."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._stream: asyncio.StreamReader = connection._reader
        self._writer: asyncio.StreamWriter = connection._writer
        self._reader = hiredis.Reader(notEnoughData=_NOTHING)
        self.scripts: dict[str, Script] = {}
        self.run_id = ""

    def write(self, command: bytes) -> None:
        """Send *command*; it is buffered where the server does not read."""
        self._writer.write(command)

    async def read(self) -> Any:
        """The next answer, or the exception for the error that the server gave instead. Raises LinkBroken."""
        while (answer := self._reader.gets()) is _NOTHING:
            try:
                data = await self._stream.read(_READ_BYTES)
            except OSError as error:
                raise LinkBroken(str(error)) from error
            if not data:
                raise LinkBroken("the server closed the connection")
            self._reader.feed(data)
        if isinstance(answer, Exception):
            error_ = build_error(str(answer))
            if isinstance(error_, LinkBroken):
                raise error_
            return error_
        return answer

    async def call(self, *command: Any) -> Any:
        """The answer to one command. Raises LinkBroken, LayerUnavailable."""
        self.write(pack(*command))
        answer = await self.read()
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def load(self) -> None:
        """Have the server hold the scripts."""
        lines = bytes(await self.call("INFO", "server")).decode(errors="replace").splitlines()
        about = dict(line.split(":", 1) for line in lines if ":" in line)
        self.run_id = about.get("run_id", "")
        self.scripts = load(parse_version(about.get("redis_version", "")))
        names = list(self.scripts)
        known = await self.call("SCRIPT", "EXISTS", *(self.scripts[name].digest for name in names))
        for name, is_known in zip(names, known, strict=True):
            if not is_known:
                await self.call("SCRIPT", "LOAD", self.scripts[name].text)

    async def close(self) -> None:
        """Close; twice is fine."""
        with contextlib.suppress(Exception):
            await self._connection.disconnect(nowait=True)
        self._writer.close()
        with contextlib.suppress(Exception):
            await self._writer.wait_closed()


async def open_link(client: redis.asyncio.Redis, has_scripts: bool = True) -> AsyncLink:
    """A connection as *client* makes them. Raises LinkBroken, LayerUnavailable."""
    pool: Any = client.connection_pool
    connection = pool.make_connection()
    try:
        await connection.connect()
        link = AsyncLink(connection)
        if has_scripts:
            await link.load()
        return link
    except (redis.RedisError, OSError) as error:
        await connection.disconnect(nowait=True)
        if isinstance(error, redis.AuthenticationError | redis.ResponseError) and not is_passing(str(error)):
            raise LayerUnavailable(f"Redis refuses the connection: {escape(str(error))}") from error
        raise LinkBroken(str(error)) from error
    except BaseException:
        await connection.disconnect(nowait=True)
        raise
