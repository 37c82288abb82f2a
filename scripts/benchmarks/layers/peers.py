"""Drivers of the peers' layers: ``inmemory`` (Channels 4), ``core`` and ``pubsub`` (channels_redis). Runs in .bench.

``pubsub`` has no channels that several workers read: each worker has one of its own, and requests go to them in turn.
"""

import argparse
import asyncio
import itertools
import os
import time
from collections.abc import Callable
from typing import Any

import uvloop
from channels.exceptions import ChannelFull
from channels.layers import InMemoryChannelLayer
from channels_redis.core import RedisChannelLayer
from channels_redis.pubsub import RedisPubSubChannelLayer

from benchmarks.layers import common
from benchmarks.layers.common import CAPACITY, Clock, Tally, reply, request


def make(asked: argparse.Namespace, capacity: int = CAPACITY) -> Any:
    """A layer of the contestant, for one process."""
    if asked.contestant == "inmemory":
        return InMemoryChannelLayer(capacity=capacity)
    if asked.contestant == "core":
        return RedisChannelLayer(hosts=[asked.address], capacity=capacity)
    return RedisPubSubChannelLayer(hosts=[asked.address])


async def work(layer: Any, channel: str, handle: Callable[[dict[str, Any]], Any]) -> None:
    """What a worker does: one message at a time, as a synchronous consumer."""
    while True:
        done = handle(await layer.receive(channel))
        if done is not None:
            await layer.send(*done)


def answer(message: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The reply to *message*, with where it goes."""
    return message["reply_channel"], reply(message)


class WorkerProcesses:
    """Worker processes at Redis, and the names of the channels that they read."""

    def __init__(self, asked: argparse.Namespace, count: int, handlers: list[Callable[[dict[str, Any]], Any]]) -> None:
        self.asked, self.count, self.handlers = asked, count, handlers
        self.reader, self.writer = os.pipe()

    def run(self, number: int) -> None:
        """The life of worker *number*."""

        async def live() -> None:
            layer = make(self.asked)
            channel = "work"
            if self.asked.contestant == "pubsub":
                channel = await layer.new_channel()
                await layer.send(channel, {})
                await layer.receive(channel)  # it is subscribed now
            os.write(self.writer, channel.encode() + b"\n")
            await work(layer, channel, self.handlers[number])

        uvloop.run(live())

    def channels(self) -> list[str]:
        """The channels of all workers, once they are there."""
        found = b""
        while found.count(b"\n") < self.count:
            found += os.read(self.reader, 4096)
        return found.decode().split()


async def trips(asked: argparse.Namespace, layer: Any, channels: list[str]) -> dict[str, float]:
    """Round trips: each coroutine has a reply channel and one request in flight."""
    clock = Clock(asked.seconds)
    turns = itertools.cycle(channels)

    async def ask() -> None:
        reply_channel = await layer.new_channel()
        while True:
            await layer.send(next(turns), request(reply_channel, time.perf_counter()))
            message = await layer.receive(reply_channel)
            if not clock.note(message["sent"]):
                return

    await asyncio.gather(*(ask() for _ in range(1 if asked.work == "idle" else common.IN_FLIGHT)))
    return clock.result(is_rate=asked.work == "flight")


async def send_for_ever(layer: Any, channel: str) -> None:
    """64 coroutines that send."""

    async def send() -> None:
        while True:
            try:
                await layer.send(channel, request("nobody", 0.0))
            except ChannelFull:
                await asyncio.sleep(common.FULL_PAUSE)

    await asyncio.gather(*(send() for _ in range(common.IN_FLIGHT)))


async def group_sends(asked: argparse.Namespace) -> dict[str, float]:
    """Sends to a group of channels of one process: CPU of the redis-server, or of this process for ``inmemory``.

    Nobody receives from Redis meanwhile: the capacity is large enough for all that is sent.
    """
    size = int(asked.work.removeprefix("group-"))
    layer = make(asked, capacity=10**9)
    is_local = asked.contestant == "inmemory"
    members = []
    for _ in range(size):
        members.append(await layer.new_channel())
        await layer.group_add("everybody", members[-1])
    calls: list[float] = []
    cpu, pid = 0.0, os.getpid() if is_local else asked.pid
    end = time.perf_counter() + asked.seconds
    while time.perf_counter() < end:
        started, cpu_before = time.perf_counter(), common.cpu_seconds(pid)
        await layer.group_send("everybody", common.GROUP_MESSAGE)
        calls.append(time.perf_counter() - started)
        cpu += common.cpu_seconds(pid) - cpu_before
        if is_local:
            for member in members:
                await layer.receive(member)
    return common.calls_result(calls, cpu)


async def in_one_process(asked: argparse.Namespace) -> dict[str, float]:
    """Channels' own layer: workers are tasks."""
    layer = make(asked)
    if asked.work == "oneway":
        tally = Tally()
        add = tally.counter(0)
        tasks = [
            asyncio.create_task(work(layer, "work", lambda message: add())),
            asyncio.create_task(send_for_ever(layer, "work")),
        ]
        result = await asyncio.to_thread(tally.rate, asked.seconds)
    else:
        count = 1 if asked.work == "idle" else common.WORKERS
        tasks = [asyncio.create_task(work(layer, "work", answer)) for _ in range(count)]
        result = await trips(asked, layer, ["work"])
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return result


def in_processes(asked: argparse.Namespace) -> dict[str, float]:
    """Round trips or one-way sends through Redis, with worker processes."""
    if asked.work == "oneway":
        tally = Tally()
        add = tally.counter(0)
        processes = WorkerProcesses(asked, 1, [lambda message: add()])
        with common.workers(1, processes.run):
            channel = processes.channels()[0]
            with common.workers(1, lambda number: uvloop.run(send_for_ever(make(asked), channel))):
                return tally.rate(asked.seconds)
    count = 1 if asked.work == "idle" else common.WORKERS
    processes = WorkerProcesses(asked, count, [answer] * count)
    with common.workers(count, processes.run):
        return uvloop.run(trips(asked, make(asked), processes.channels()))


def measure(asked: argparse.Namespace) -> dict[str, float]:
    """A sample of *asked.work* by *asked.contestant*."""
    if asked.work.startswith("group-"):
        return uvloop.run(group_sends(asked))
    if asked.contestant == "inmemory":
        return uvloop.run(in_one_process(asked))
    return in_processes(asked)


if __name__ == "__main__":
    common.run_driver(measure)
