"""Runs the interface: connections from listening sockets that somebody else bound, the layer client, one tick, the end.

Refuses to bind: the supervisor's sockets outlive this process, so that a restart refuses nobody.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import resource
import signal
import socket
import time
from collections.abc import Callable, Sequence
from email.utils import formatdate
from typing import Any

from procman import lifetime
from procman.clock import Clock
from procman.errors import ConfigurationError
from procman.interface import news, tls
from procman.interface.http import HTTPProtocol
from procman.interface.replies import Replies
from procman.interface.scrape import MetricsServer
from procman.interface.site import Site
from procman.interface.workplace import Workplace
from procman.layers.base import AsyncChannelLayer
from procman.layers.errors import LayerError
from procman.settings import InterfaceSettings, ProjectConfiguration

logger = logging.getLogger("procman.interface")

CONNECT_TIMEOUT = 30.0  # seconds to reach the layer at the start; half of the supervisor's startup timeout
LONGEST_TICK = 1.0  # seconds; the Date header changes that often
GIVE_UP_TIMEOUT = 0.2  # seconds to write the answers of requests that the drain timeout has ended
# What waits in the kernel between two accepts; the system caps it at somaxconn.
BACKLOG = 2048
# Files beside the connections: listening sockets, the layer, static files and connections that are being refused.
SPARE_DESCRIPTORS = 256


class InterfaceServer:
    """One interface server: ``run`` serves until ``stop`` is called.

    *layer* is not connected yet. Everything happens on the event loop that runs ``run``.
    """

    def __init__(
        self,
        settings: InterfaceSettings,
        project: ProjectConfiguration,
        layer: AsyncChannelLayer,
        clock: Clock | None = None,
        site: type[Site] = Site,
    ) -> None:
        self.settings = settings
        self.layer = layer
        self.replies = Replies(layer, clock)
        self.site = site(settings, project, self.replies, clock)
        self._stopping = asyncio.Event()
        self._drain_timeout = settings.drain_timeout
        self._servers: list[asyncio.Server] = []
        self._context = tls.build_context(settings)
        self._tasks: list[asyncio.Task[None]] = []
        self.metrics: MetricsServer | None = None

    @property
    def tick_interval(self) -> float:
        """Seconds between two looks at the deadlines: a quarter of the shortest, so that none is much overrun."""
        settings = self.settings
        shortest = min(
            settings.request_timeout, settings.handshake_timeout, settings.ping_timeout, settings.header_timeout,
            settings.body_timeout, settings.keep_alive_timeout,
        )  # fmt: skip
        if settings.ping_interval:
            shortest = min(shortest, settings.ping_interval)
        return min(LONGEST_TICK, max(0.02, shortest / 4))

    async def run(self, sockets: Sequence[socket.socket], on_ready: Callable[[], None] = lambda: None) -> None:
        """Connect the layer, serve on *sockets* (listening), and end when ``stop`` was called.

        Raises:
            LayerUnavailable: the layer was not reached at the start.
            ConfigurationError: metrics cannot be served where they are wanted.
        """
        if not await self._connect():
            return
        if self.settings.metrics_bind:
            self.metrics = MetricsServer(self.site)
            try:
                await self.metrics.start(self.settings.metrics_bind)
            except ConfigurationError:
                await self.layer.close()
                raise
        self._set_date()
        loop = asyncio.get_running_loop()
        if self.site.health_path:
            self._tasks.append(loop.create_task(self.site.survey.keep_asking()))
        for each in sockets:
            create = loop.create_unix_server if each.family == socket.AF_UNIX else loop.create_server
            listening = await create(lambda: HTTPProtocol(self.site), sock=each, backlog=BACKLOG, ssl=self._context)
            self._servers.append(listening)
        on_ready()
        logger.info("interface ready on %s", ", ".join(_name(each, self._context is not None) for each in sockets))
        try:
            while not self._stopping.is_set():
                await self._tick(self._stopping.wait())
        finally:
            await self._end()

    async def _connect(self) -> bool:
        """Connect the layer, unless ``stop`` is called first. Raises LayerUnavailable."""
        connecting = asyncio.ensure_future(self.layer.connect(CONNECT_TIMEOUT))
        stopping = asyncio.ensure_future(self._stopping.wait())
        try:
            await asyncio.wait((connecting, stopping), return_when=asyncio.FIRST_COMPLETED)
            if connecting.done():
                await connecting
                return True
            logger.info("interface stopped before it reached the channel layer")
            return False
        finally:
            connecting.cancel()
            stopping.cancel()
            await asyncio.wait((connecting, stopping), timeout=GIVE_UP_TIMEOUT)

    def stop(self, hurry: bool = False) -> None:
        """Begin the end: no new connections, sockets are closed with 1012, requests in progress may finish.

        With *hurry* nothing is waited for. Calling it again changes nothing else.
        """
        if hurry:
            self._drain_timeout = 0.0
        self._stopping.set()

    async def _tick(self, event: Any) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.tick_interval):
                await event
        self._set_date()
        now = self.site.now()
        self.replies.tick(now)
        for each in list(self.site.connections):
            if isinstance(each, HTTPProtocol):  # sockets are clients of the switchboard
                each.tick(now)

    def _set_date(self) -> None:
        self.site.date = formatdate(time.time(), usegmt=True).encode()

    async def _end(self) -> None:
        self.replies.is_stopping = True
        for server in self._servers:
            server.close()
        # What was accepted in this turn of the loop is told so in the next.
        await asyncio.sleep(0)
        for each in list(self.site.connections):
            each.shutdown()
        deadline = self.site.now() + self._drain_timeout
        while self.replies.clients and self.site.now() < deadline:
            await asyncio.sleep(0.02)
            self.replies.tick(self.site.now())
        await self._give_up()
        if self.metrics is not None:
            await self.metrics.stop()
        await self.site.survey.stop(self._tasks)
        if self.replies.farewells:
            await asyncio.wait(list(self.replies.farewells), timeout=GIVE_UP_TIMEOUT)
        await self.layer.close()
        logger.info("interface stopped")

    async def _give_up(self) -> None:
        """What the drain timeout did not see the end of: requests are told, connections dropped."""
        if self.replies.clients:
            left = len(self.replies.clients)
            logger.warning("interface stops with %d clients left after %.1f s", left, self._drain_timeout)
        for client in list(self.replies.clients.values()):
            client.on_stop()
        if self.site.connections:
            await asyncio.sleep(GIVE_UP_TIMEOUT if self._drain_timeout else 0)  # they may read what they were told
        for each in list(self.site.connections):
            each.abort()


def run_interface(settings: InterfaceSettings, project: ProjectConfiguration, sockets: list[socket.socket]) -> int:
    """Serve *project* on *sockets*, which are listening, until SIGTERM or SIGINT; the exit status."""
    settings = fit_descriptors(settings)
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(_serve(settings, project, sockets))


def fit_descriptors(settings: InterfaceSettings) -> InterfaceSettings:
    """*settings* with no more connections than files may be open; the soft limit is raised as far as it has to be."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = settings.max_connections + SPARE_DESCRIPTORS
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return settings
    allowed = max(1, soft - SPARE_DESCRIPTORS)
    logger.warning(
        "at most %d connections instead of %d: only %d files may be open (ulimit -n)",
        *(allowed, settings.max_connections, soft),
    )
    return dataclasses.replace(settings, max_connections=allowed)


async def _serve(settings: InterfaceSettings, project: ProjectConfiguration, sockets: list[socket.socket]) -> int:
    kind = Workplace if news.is_wanted() else Site
    server = InterfaceServer(settings, project, make_layer(project), site=kind)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        # A second signal changes nothing: whoever is in a hurry has SIGKILL.
        loop.add_signal_handler(number, server.stop)

    def supervisor_died() -> None:
        loop.call_soon_threadsafe(server.stop, True)

    lifetime.watch_lifetime(supervisor_died)
    site = server.site
    if isinstance(site, Workplace):
        follower = news.Follower(site)
        news.watch_news(lambda said: _call_in(loop, follower, said))
    try:
        await server.run(sockets, on_ready=lifetime.announce_ready)
    except (LayerError, ConfigurationError) as error:
        logger.error("%s", error)
        return 1
    return 0


def _call_in(loop: asyncio.AbstractEventLoop, function: Callable[..., None], *arguments: Any) -> None:
    with contextlib.suppress(RuntimeError):  # the loop has ended
        loop.call_soon_threadsafe(function, *arguments)


def make_layer(project: ProjectConfiguration) -> AsyncChannelLayer:
    """The client of *project*'s channel layer, not connected.

    Raises:
        ConfigurationError: the layer cannot be used by several processes, or is of an unknown kind.
    """
    from procman.layers.redis.hosts import is_redis

    if is_redis(project.layer):
        from procman.layers.redis.aio import AsyncRedisLayer

        return AsyncRedisLayer(**project.layer_config)
    if not project.layer.startswith("ipc://"):
        raise ConfigurationError(
            f"the interface server cannot use the channel layer {project.layer!r}; use one whose address is ipc://... "
            "or redis://..."
        )
    from procman.layers.ipc.aio import AsyncIPCLayer

    options = {name: value for name, value in project.layer_config.items() if name != "address"}
    return AsyncIPCLayer(project.layer, **options)


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    """What makes the event loop of an interface: uvloop's, where it is installed."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop


def _name(listening: socket.socket, is_secure: bool) -> str:
    name = listening.getsockname()
    if isinstance(name, tuple):
        host = f"[{name[0]}]" if ":" in name[0] else name[0]
        return f"{'https' if is_secure else 'http'}://{host}:{name[1]}"
    return f"unix:{name}"
