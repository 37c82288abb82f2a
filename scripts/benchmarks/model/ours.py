"""Drivers of procman's model: ``match`` (``flat``, ``include``) and ``dispatch`` (``plain``, ``session``)."""

import argparse
import asyncio
import contextlib
import time
from typing import Any

import uvloop

from benchmarks.layers.common import Clock, cpu_seconds, run_driver, workers
from benchmarks.layers.ours import Interface, asynchronous, meeting_place
from benchmarks.model import common
from procman.layers.base import Offer, OpenSocket
from procman.layers.sessions import pack

SESSION = pack({"room": b'"lobby"', "count": b"1"})


def configure(address: str = "") -> None:
    """The least of a project: a database that nobody opens, and the layer at *address*."""
    import django
    from django.conf import settings

    settings.configure(
        SECRET_KEY="bench",
        INSTALLED_APPS=["procman.channels"],
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
        CHANNEL_LAYERS={
            "default": {
                "BACKEND": "procman.layers.ipc.IPCChannelLayer",
                "ROUTING": [],
                "CONFIG": {"address": address} if address else {},
            }
        },
    )
    django.setup()


def echo(message: Any, **kwargs: Any) -> None:
    """A consumer that sends back what came."""
    message.reply_channel.send({"text": message["text"]})


def count(message: Any, **kwargs: Any) -> None:
    """A consumer with state."""
    message.channel_session["count"] = message.channel_session.get("count", 0) + 1
    message.reply_channel.send({"text": message["text"]})


def match(asked: argparse.Namespace) -> dict[str, float]:
    """The last of the routes, in a list or in an include."""
    configure()
    from procman.channels import include, route
    from procman.channels.message import Message
    from procman.channels.routing import Router

    routes = [route("websocket.connect", echo, path=path) for path in common.ROUTES]
    is_flat = asked.contestant == "flat"
    router = Router(routes if is_flat else [include(routes, path="^/ws")])
    content = {
        "reply_channel": "interface.0123abcd!1",
        "path": common.PATH if is_flat else "/ws" + common.PATH,
        "headers": common.HEADERS,
    }
    message = Message(content, "websocket.connect", None)
    assert router.match(message) == (echo, {"room": "django"})
    return common.cpu_per_call(lambda: router.match(message), asked.seconds)


class Sockets(Interface):
    """An interface with open sockets, each of which sends its next frame once the last one was consumed."""

    def __init__(self, address: str, clock: Clock) -> None:
        super().__init__(asynchronous(address), clock)
        self.sockets: dict[int, int] = {}
        self.finished = 0

    def begin(self) -> None:
        """Open all, and have each send a frame."""
        for socket in range(common.SOCKETS):
            self.layer.socket_opened(OpenSocket(f"{self.name}!{socket}", "/chat/", 0))
            self._send(socket)

    def _send(self, socket: int) -> None:
        number = next(self.numbers)
        self.sockets[number] = socket
        self.sent[number] = time.perf_counter()
        channel = f"{self.name}!{socket}"
        body = self.layer.encode({"reply_channel": channel, "path": "/chat/", "order": number, "text": "hello " * 10})
        self.layer.offer(Offer(number, "websocket.receive", body, channel, session=SESSION))

    def on_finished(self, offer_id: int, session: bytes | None) -> None:
        """Count it, and send the socket's next frame."""
        self.finished += 1
        socket = self.sockets.pop(offer_id)
        if self.clock.note(self.sent.pop(offer_id)):
            self._send(socket)
        elif not self.done.done():
            self.done.set_result(None)


def dispatch(asked: argparse.Namespace) -> dict[str, float]:
    """CPU of one worker process per frame, once it is warm."""

    def work(address: str) -> None:
        configure(address)
        from procman.channels.asgi import channel_layers
        from procman.channels.routing import Router, route
        from procman.channels.sessions import channel_session
        from procman.channels.worker import Worker

        layer = channel_layers["default"]
        consumer = channel_session(count) if asked.contestant == "session" else echo
        layer.router = Router([route("websocket.receive", consumer, path=r"^/(?P<room>[^/]+)/$")])
        Worker(layer, signal_handlers=False).run()

    async def run(address: str, pid: int) -> dict[str, float]:
        sockets = Sockets(address, Clock(3600.0))
        await sockets.layer.connect(10)
        sockets.begin()
        while sockets.finished < common.SOCKETS:  # the worker has yet to import Django
            await asyncio.sleep(0.01)
        sockets.clock = Clock(asked.seconds)
        await asyncio.sleep(max(0.0, sockets.clock.start - time.perf_counter()))
        cpu, finished = cpu_seconds(pid), sockets.finished
        await sockets.done
        return common.sample((cpu_seconds(pid) - cpu) / (sockets.finished - finished))

    with contextlib.ExitStack() as stack:
        address, _ = stack.enter_context(meeting_place(asked))
        (pid,) = stack.enter_context(workers(1, lambda number: work(address)))
        return uvloop.run(run(address, pid))


def measure(asked: argparse.Namespace) -> dict[str, float]:
    """A sample of *asked.work* by *asked.contestant*."""
    return (match if asked.work == "match" else dispatch)(asked)


if __name__ == "__main__":
    run_driver(measure)
