"""Drivers of the peers, in .bench: ``match`` (``router``, ``resolver``) and ``dispatch`` (``worker``: Channels 4)."""

import argparse
import asyncio
import os
import time
from typing import Any

import uvloop
from channels.consumer import SyncConsumer
from channels.routing import ChannelNameRouter, URLRouter
from channels.worker import Worker
from channels_redis.core import RedisChannelLayer
from django.conf import settings
from django.urls import re_path, resolve

from benchmarks.layers.common import CAPACITY, Clock, cpu_seconds, run_driver, workers
from benchmarks.model import common


def configure(address: str = "") -> None:
    """The least of a project: a database that nobody opens, and the layer at *address*."""
    import django

    settings.configure(
        SECRET_KEY="bench",
        ROOT_URLCONF=__name__,
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
        CHANNEL_LAYERS={
            "default": {
                "BACKEND": "channels_redis.core.RedisChannelLayer",
                "CONFIG": {"hosts": [address], "capacity": CAPACITY},
            }
        },
    )
    django.setup()


async def application(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """What the routes lead to."""


urlpatterns = [re_path("^" + path.removeprefix("^/"), application) for path in common.ROUTES]


def match(asked: argparse.Namespace) -> dict[str, float]:
    """The last of the routes; the application that it leads to returns at once."""
    configure()
    if asked.contestant == "resolver":
        assert resolve(common.PATH).kwargs == {"room": "django"}
        return common.cpu_per_call(lambda: resolve(common.PATH), asked.seconds)
    router = URLRouter(urlpatterns)
    scope = {"type": "websocket", "path": common.PATH, "headers": common.HEADERS}

    def route() -> None:
        try:
            router(scope, None, None).send(None)
        except StopIteration:
            return
        raise SystemExit("the application waits")

    return common.cpu_per_call(route, asked.seconds)


class Echo(SyncConsumer):
    """A synchronous consumer, which runs in a thread, as the peer's users write it."""

    def echo(self, message: dict[str, Any]) -> None:
        """Send back what came."""
        from asgiref.sync import async_to_sync

        async_to_sync(self.channel_layer.send)(message["reply_channel"], {"type": "echo", "text": message["text"]})


def dispatch(asked: argparse.Namespace) -> dict[str, float]:
    """CPU of one worker process per message; as many in flight as ours has sockets."""

    def work(number: int) -> None:
        configure(asked.address)
        from channels.layers import get_channel_layer

        worker = Worker(ChannelNameRouter({"work": Echo.as_asgi()}), ["work"], get_channel_layer())
        uvloop.run(worker.handle())

    async def run(pid: int) -> dict[str, float]:
        layer = RedisChannelLayer(hosts=[asked.address], capacity=CAPACITY)
        clock = Clock(asked.seconds)
        finished = 0

        async def socket() -> None:
            nonlocal finished
            reply_channel = await layer.new_channel()
            while time.perf_counter() < clock.end:
                await layer.send("work", {"type": "echo", "reply_channel": reply_channel, "text": "hello " * 10})
                await layer.receive(reply_channel)
                finished += 1

        async def counted() -> tuple[float, int]:
            await asyncio.sleep(max(0.0, clock.start - time.perf_counter()))
            return cpu_seconds(pid), finished

        (cpu, before), *_ = await asyncio.gather(counted(), *(socket() for _ in range(common.SOCKETS)))
        return common.sample((cpu_seconds(pid) - cpu) / (finished - before))

    with workers(1, work) as (pid,):
        return uvloop.run(run(pid))


def measure(asked: argparse.Namespace) -> dict[str, float]:
    """A sample of *asked.work* by *asked.contestant*."""
    return (match if asked.work == "match" else dispatch)(asked)


if __name__ == "__main__":
    run_driver(measure)
    os._exit(0)  # its threads wait for ever
