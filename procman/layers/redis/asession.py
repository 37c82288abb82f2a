"""An asyncio process at one Redis server: a connection that opens itself again, and numbered commands on it.

After a broken connection what has no answer is sent again; scripts know a number that they have seen. ``serving.py``
adds what an interface does beside.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import secrets
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from procman.layers.errors import LayerError, LayerUnavailable
from procman.layers.redis.address import Host
from procman.layers.redis.aiolink import AsyncLink, open_link
from procman.layers.redis.connect import close_async_client, make_async_client
from procman.layers.redis.link import LinkBroken, pack
from procman.layers.redis.trouble import explain
from procman.settings import ENV_NAME

logger = logging.getLogger("procman.layers")
CONNECT_TIMEOUT = 5.0
ANSWER_TIMEOUT = 10.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.02, 1.0
_random = random.Random()


class Command:
    """A command without an answer yet; the answer goes to *answered* or *future*."""

    __slots__ = ("answered", "arguments", "future", "script")

    def __init__(
        self,
        script: str,
        arguments: tuple[Any, ...],
        answered: Callable[[Any], None] | None = None,
        future: asyncio.Future[Any] | None = None,
    ) -> None:
        self.script, self.arguments = script, arguments
        self.answered, self.future = answered, future


class AsyncSession:
    """One process and one server, on one event loop."""

    connections = 1

    def __init__(self, host: Host, prefix: str, connect_timeout: float = CONNECT_TIMEOUT) -> None:
        self.address, self.prefix, self.connect_timeout = host.hidden, prefix, connect_timeout
        self.id = secrets.token_hex(8)
        self._host = host
        self._client: Any = None
        self.link: AsyncLink | None = None
        self._task: asyncio.Task[None] | None = None
        self._found: asyncio.Event | None = None
        self.broken: asyncio.Future[Any] | None = None
        self.pending: deque[Command] = deque()
        self._seq = 0
        self._failure: Exception | None = None
        self._reason = ""
        self.is_closing = False
        self._bell_lock: asyncio.Lock | None = None
        self._bell_link: AsyncLink | None = None

    # -- the connection -----------------------------------------------------------------------------------------------

    async def connect(self, timeout: float | None = None) -> None:
        """Connect, and stay connected. Raises LayerUnavailable after *timeout* seconds, and goes on trying."""
        if self._task is None:
            self.is_closing, self._failure = False, None
            self._client = make_async_client(self._host, name=f"procman-{os.environ.get(ENV_NAME) or 'interface'}")
            self._found, self._bell_lock = asyncio.Event(), asyncio.Lock()
            self._task = asyncio.get_running_loop().create_task(self._keep_connected())
        await self._wait_connected(timeout)

    @property
    def is_open(self) -> bool:
        """Whether ``connect`` was called."""
        return self._task is not None

    async def close(self) -> None:
        """Close the connections; what has no answer fails."""
        self.is_closing = True
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        bell, self._bell_link = self._bell_link, None
        if bell is not None:
            await bell.close()
        if self._client is not None:
            await close_async_client(self._client)
        pending, self.pending = self.pending, deque()
        for command in pending:
            if command.future is not None and not command.future.done():
                command.future.set_exception(LayerUnavailable("the channel layer was closed"))

    async def _keep_connected(self) -> None:
        pause = _FIRST_PAUSE
        self._reason = ""
        while not self.is_closing:
            links: list[AsyncLink] = []
            try:
                async with asyncio.timeout(self.connect_timeout):
                    links.append(await open_link(self._client))
                    for _ in range(1, self.connections):
                        links.append(await open_link(self._client, has_scripts=False))
                    state = await self.greet(links[0])
                pause = _FIRST_PAUSE
                self._failure = None
                self.begin(links[0], state)
                await self._run_links(links)
            except (LinkBroken, OSError, TimeoutError) as error:
                self._reason = explain(error)
                logger.debug("no connection to Redis: %s", self._reason)
            except LayerError as error:
                self._failure = error
            finally:
                self.lost()
                for link in links:
                    await link.close()
            await asyncio.sleep(pause * (0.5 + _random.random() / 2))
            pause = min(_LONGEST_PAUSE, pause * 2)

    async def greet(self, link: AsyncLink) -> int:
        """What the server knows of this process. Raises LinkBroken, LayerError."""
        return 0

    def begin(self, link: AsyncLink, state: int) -> None:
        """The server is there: send again what has no answer, let requests pass."""
        self.link = link
        for command in self.pending:
            link.write(self.pack(link, command.script, command.arguments))
        assert self._found is not None
        self._found.set()

    def tasks(self, links: Sequence[AsyncLink]) -> list[Any]:
        """What runs while the connections stand; the first that ends ends them."""
        return [self._read_answers(links[0])]

    async def _run_links(self, links: Sequence[AsyncLink]) -> None:
        self.broken = asyncio.get_running_loop().create_future()
        tasks = [asyncio.ensure_future(each) for each in self.tasks(links)]
        try:
            done, _ = await asyncio.wait([*tasks, self.broken], return_when=asyncio.FIRST_COMPLETED)
            for each in done:
                each.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self.broken.cancel()

    async def _read_answers(self, link: AsyncLink) -> None:
        while True:
            answer = await link.read()
            command = self.pending.popleft()
            if command.answered is not None:
                command.answered(answer)
            elif command.future is not None and not command.future.done():
                if isinstance(answer, Exception):
                    command.future.set_exception(answer)
                else:
                    command.future.set_result(answer)

    def lost(self) -> None:
        """The connection has ended."""
        self.link = None
        self.pending = deque(each for each in self.pending if each.script != "keep")
        if self._found is not None:
            self._found.clear()

    async def _wait_connected(self, timeout: float | None) -> None:
        if self._found is None or self._task is None:
            raise LayerUnavailable("the layer is not connected: call connect() first")
        try:
            async with asyncio.timeout(timeout):
                await self._found.wait()
        except TimeoutError:
            if self._failure is not None:
                raise self._failure from None
            raise LayerUnavailable(f"no Redis answers at {self.address}: {self._reason or 'is it running?'}") from None

    # -- commands -----------------------------------------------------------------------------------------------------

    def pack(self, link: AsyncLink, script: str, arguments: Sequence[Any]) -> bytes:
        """The bytes of a call of *script*."""
        return pack("EVALSHA", link.scripts[script].digest, 1, self.prefix, *arguments)

    def numbered(self, *arguments: Any) -> tuple[Any, ...]:
        """*arguments* behind the client's id and the next number."""
        self._seq += 1
        return (self.id, self._seq, *arguments)

    def write(self, command: Command) -> None:
        """Send *command*, now or when the connection stands again."""
        self.pending.append(command)
        if self.link is not None:
            self.link.write(self.pack(self.link, command.script, command.arguments))

    async def run(self, script: str, *arguments: Any, is_plain: bool = False) -> Any:
        """The answer of *script*, numbered unless *is_plain*. Raises LayerUnavailable."""
        if self.link is None:
            await self._wait_connected(self.connect_timeout)
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.write(Command(script, arguments if is_plain else self.numbered(*arguments), future=future))
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT):
                return await future
        except TimeoutError:
            raise LayerUnavailable(f"the channel layer at {self.address} did not answer in time") from None

    async def wait_for_bell(self, keys: Sequence[str], seconds: float) -> None:
        """Return when one of *keys* has something, at most *seconds* later."""
        assert self._bell_lock is not None
        try:
            async with asyncio.timeout(seconds + 0.05), self._bell_lock:
                link = self._bell_link
                if link is None:
                    link = self._bell_link = await open_link(self._client, has_scripts=False)
                try:
                    await link.call("BLPOP", *keys, max(0.01, seconds))
                except BaseException:
                    self._bell_link = None  # its answer must not meet the next question
                    await link.close()
                    raise
        except (TimeoutError, LinkBroken):
            return
