"""A site in the process of the test: a real interface on a thread, workers on others, over each kind of layer."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from typing import Any

import uvloop
from websockets.sync.client import ClientConnection, connect

from procman.channels.asgi import ChannelLayerWrapper, channel_layers
from procman.channels.worker import Worker
from procman.interface.server import InterfaceServer, make_layer
from procman.layers.ipc import IPCChannelLayer
from procman.layers.memory import InMemoryChannelLayer
from procman.layers.memory_aio import AsyncInMemoryLayer
from procman.layers.redis import RedisChannelLayer
from procman.settings import InterfaceSettings, ProjectConfiguration
from tests.support.layers import running_hub
from tests.support.redis import RedisServer, running_redis

TIMEOUT = 10.0


class InProcessSite:
    """What a test needs: ``layer`` (blocking), ``server`` (the interface), ``url``; ``redis`` where there is one."""

    def __init__(self, layer: Any, project: ProjectConfiguration, redis: RedisServer | None = None) -> None:
        self.layer, self.redis = layer, redis
        settings = InterfaceSettings(drain_timeout=1.0, access_log=False)
        mine = AsyncInMemoryLayer(layer) if isinstance(layer, InMemoryChannelLayer) else make_layer(project)
        self.server = InterfaceServer(settings, project, mine)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"ws://127.0.0.1:{self.listener.getsockname()[1]}"
        self.workers: list[Worker] = []
        self._threads: list[threading.Thread] = []
        self._loop = uvloop.new_event_loop()

    def start(self, routing: Any, workers: int = 2) -> None:
        """Serve, with *routing* for the default layer."""
        wrapper = ChannelLayerWrapper(self.layer, "default", routing)
        wrapper.router.check_default()
        self._before = channel_layers.set("default", wrapper)
        is_ready = threading.Event()
        self._start(lambda: self._loop.run_until_complete(self.server.run([self.listener], is_ready.set)))
        assert is_ready.wait(TIMEOUT)
        for _ in range(workers):
            worker = Worker(wrapper, signal_handlers=False)
            self.workers.append(worker)
            self._start(worker.run)

    def _start(self, target: Any) -> None:
        thread = threading.Thread(target=target, daemon=True)
        thread.start()
        self._threads.append(thread)

    def connect(self, path: str = "/", **options: Any) -> ClientConnection:
        """An open WebSocket."""
        return connect(f"{self.url}{path}", proxy=None, open_timeout=TIMEOUT, close_timeout=1, **options)

    def held(self) -> tuple[int, int, int]:
        """Clients, offers and open sockets that the interface holds."""
        replies = self.server.replies
        return len(replies.clients), len(replies.offers), replies.socket_count

    def stop(self) -> None:
        """End the interface, then the workers."""
        self._loop.call_soon_threadsafe(self.server.stop)
        self._threads[0].join(TIMEOUT)
        for worker in self.workers:
            worker.stop()
        for thread in self._threads[1:]:
            thread.join(TIMEOUT)
        channel_layers.set("default", self._before)
        assert not any(thread.is_alive() for thread in self._threads)
        self._loop.close()
        self.listener.close()


@contextlib.contextmanager
def site_over(kind: str, routing: Any) -> Iterator[InProcessSite]:
    """A site over a layer of its own: ``memory``, ``ipc`` or ``redis``."""
    with contextlib.ExitStack() as stack:
        redis = None
        config: dict[str, Any] = {}
        layer: Any
        if kind == "memory":
            address, layer = "memory://", InMemoryChannelLayer()
        elif kind == "ipc":
            address = stack.enter_context(running_hub()).address
            layer = IPCChannelLayer(address)
        else:
            redis = stack.enter_context(running_redis())
            address, config = redis.unix_url, {"hosts": [redis.unix_url]}
            layer = RedisChannelLayer(**config)
        project = ProjectConfiguration("tests.settings", address, layer_config=config, allowed_hosts=["*"])
        site = InProcessSite(layer, project, redis)
        site.start(routing)
        try:
            yield site
        finally:
            site.stop()
            layer.close()
