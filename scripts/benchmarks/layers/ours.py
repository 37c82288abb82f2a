"""Drivers of procman's layers: ``interface`` (asyncio, as an interface server), ``sender`` (blocking), ``memory``.

Workers take, finish and so acknowledge each message, as they do in a site. ADDRESS of a Redis makes them meet there
(once that layer exists), otherwise a hub process is started.
"""

import argparse
import asyncio
import contextlib
import itertools
import os
import secrets
import select
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import uvloop

from benchmarks.layers import common
from benchmarks.layers.common import CAPACITY, Clock, Tally, reply, request
from procman.importing import import_object
from procman.layers.base import AsyncChannelLayer, ChannelLayer, Offer, OpenSocket, Send, Snapshot
from procman.layers.errors import ChannelFull
from procman.layers.memory import InMemoryChannelLayer

# Blocking and asyncio client by the address's scheme.
CLIENTS = {
    "ipc": ("procman.layers.ipc:IPCChannelLayer", "procman.layers.ipc.aio:AsyncIPCLayer"),
    "unix": ("procman.layers.redis:RedisChannelLayer", "procman.layers.redis.aio:AsyncRedisLayer"),
}
_HUB = "import sys; from procman.layers.ipc.server import run_hub; run_hub(sys.argv[1])"


def blocking(address: str) -> ChannelLayer:
    """The blocking client of *address*."""
    made: ChannelLayer = import_object(CLIENTS[address.partition(":")[0]][0])(address, capacity=CAPACITY)
    return made


def asynchronous(address: str) -> AsyncChannelLayer:
    """The asyncio client of *address*."""
    made: AsyncChannelLayer = import_object(CLIENTS[address.partition(":")[0]][1])(address, capacity=CAPACITY)
    return made


@contextlib.contextmanager
def meeting_place(asked: argparse.Namespace) -> Iterator[tuple[str, int]]:
    """Address and process id of what holds the messages: the Redis that was named, or a hub of its own."""
    if asked.address:
        yield asked.address, asked.pid
        return
    with tempfile.TemporaryDirectory(prefix="bench") as directory:
        address = f"ipc://{directory}/hub.sock"
        reader, writer = os.pipe()
        environ = os.environ | {"PROCMAN_READY_FD": str(writer)}
        hub = subprocess.Popen([sys.executable, "-c", _HUB, address], pass_fds=[writer], env=environ)
        os.close(writer)
        try:
            if not select.select([reader], [], [], 20)[0] or os.read(reader, 1) != b"1":
                raise SystemExit("the hub did not start")
            yield address, hub.pid
        finally:
            os.close(reader)
            hub.terminate()
            hub.wait()


def answer(layer: ChannelLayer) -> None:
    """What a worker does with requests."""
    while True:
        delivery = layer.take(["work"])
        if delivery is not None:
            layer.finish(delivery, [Send(delivery.message["reply_channel"], reply(delivery.message))])


def swallow(layer: ChannelLayer, add: Callable[[], None]) -> None:
    """What a worker does with messages that nobody waits for."""
    while True:
        delivery = layer.take(["work"])
        if delivery is not None:
            layer.finish(delivery)
            add()


class Interface:
    """Offers requests and hears of their ends; all that an interface server must answer to its layer."""

    def __init__(self, layer: AsyncChannelLayer, clock: Clock) -> None:
        self.layer, self.clock = layer, clock
        self.name = layer.serve(self)
        self.sent: dict[int, float] = {}
        self.numbers = itertools.count(1)
        self.reply_channel = f"{self.name}!1"
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.members = 0

    def offer(self) -> None:
        """Offer one request."""
        number, sent = next(self.numbers), time.perf_counter()
        self.sent[number] = sent
        body = self.layer.encode(request(self.reply_channel, sent))
        self.layer.offer(Offer(number, "work", body, self.reply_channel))

    def on_finished(self, offer_id: int, session: bytes | None) -> None:
        if self.clock.note(self.sent.pop(offer_id)):
            self.offer()
        elif not self.done.done():
            self.done.set_result(None)

    def is_unfinished(self, offer_id: int) -> bool:
        return offer_id in self.sent

    def on_failed(self, offer_id: int, reason: str) -> None:
        if not self.done.done():
            self.done.set_exception(SystemExit(f"a request failed: {reason}"))

    def on_reply(self, channel: str, message: dict[str, Any], token: int | None) -> None: ...
    def on_begun(self, offer_id: int) -> None: ...
    def on_group_discard(self, group: str, channel: str) -> None: ...
    def on_group_send(self, group: str, message: dict[str, Any]) -> None: ...
    def on_flush(self) -> None: ...
    def on_declared_dead(self) -> None: ...
    def on_layer_lost(self) -> None: ...

    def on_group_add(self, group: str, channel: str) -> None:
        self.members += 1

    def on_layer_found(self) -> Snapshot:
        return Snapshot()


def interface_trips(asked: argparse.Namespace) -> dict[str, float]:
    """``idle`` and ``flight``: offers of an interface, answered by worker processes."""
    is_idle = asked.work == "idle"

    async def run(address: str) -> dict[str, float]:
        clock = Clock(asked.seconds)
        interface = Interface(asynchronous(address), clock)
        await interface.layer.connect(10)
        for _ in range(1 if is_idle else common.IN_FLIGHT):
            interface.offer()
        await interface.done
        return clock.result(is_rate=not is_idle)

    with meeting_place(asked) as (address, _):
        with common.workers(1 if is_idle else common.WORKERS, lambda number: answer(blocking(address))):
            return uvloop.run(run(address))


def sender_trips(asked: argparse.Namespace) -> dict[str, float]:
    """``idle`` and ``flight``: ``send`` and ``receive_many`` of one thread, answered by worker processes."""
    with meeting_place(asked) as (address, _):
        with common.workers(1 if asked.work == "idle" else common.WORKERS, lambda number: answer(blocking(address))):
            return _trips(blocking(address), asked)


def _trips(layer: ChannelLayer, asked: argparse.Namespace) -> dict[str, float]:
    """Round trips of one thread that receives what it is answered, and sends anew for each."""
    reply_channel = layer.new_channel("reply?")
    clock = Clock(asked.seconds)
    for _ in range(1 if asked.work == "idle" else common.IN_FLIGHT):
        layer.send("work", request(reply_channel, time.perf_counter()))
    while True:
        _, message = layer.receive_many([reply_channel], block=True, timeout=20)
        if message is None:
            raise SystemExit("a request was not answered within 20 s")
        if not clock.note(message["sent"]):
            return clock.result(is_rate=asked.work == "flight")
        layer.send("work", request(reply_channel, time.perf_counter()))


def sender_one_way(asked: argparse.Namespace) -> dict[str, float]:
    """One thread of one process sends, one after the other; one worker process takes and finishes."""
    tally = Tally()
    with meeting_place(asked) as (address, _):
        with (
            common.workers(1, lambda number: swallow(blocking(address), tally.counter(number))),
            common.workers(1, lambda number: _send_for_ever(blocking(address))),
        ):
            return tally.rate(asked.seconds)


def _send_for_ever(layer: ChannelLayer) -> None:
    while True:
        try:
            layer.send("work", request("nobody", 0.0))
        except ChannelFull:
            time.sleep(common.FULL_PAUSE)


def interface_one_way(asked: argparse.Namespace) -> dict[str, float]:
    """64 coroutines of one process send; one worker process takes and finishes."""
    tally = Tally()

    async def send(layer: AsyncChannelLayer) -> None:
        while True:
            try:
                await layer.send("work", request("nobody", 0.0))
            except ChannelFull:
                await asyncio.sleep(common.FULL_PAUSE)

    async def run(address: str) -> None:
        layer = asynchronous(address)
        await layer.connect(10)
        await asyncio.gather(*(send(layer) for _ in range(common.IN_FLIGHT)))

    with meeting_place(asked) as (address, _):
        with (
            common.workers(1, lambda number: swallow(blocking(address), tally.counter(number))),
            common.workers(1, lambda number: uvloop.run(run(address))),
        ):
            return tally.rate(asked.seconds)


def group_sends(asked: argparse.Namespace) -> dict[str, float]:
    """Sends to a group of sockets of one interface: the CPU time of what holds the group."""
    size = int(asked.work.removeprefix("group-"))

    async def run(address: str, pid: int) -> dict[str, float]:
        interface = Interface(asynchronous(address), Clock(0.0))
        await interface.layer.connect(10)
        for number in range(size):
            channel = f"{interface.name}!{number}"
            interface.layer.socket_opened(OpenSocket(channel, "/", 0))
            await interface.layer.group_add("everybody", channel)
        # A layer may tell the interface a moment after it has told the caller.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(10):
                while interface.members != size:
                    await asyncio.sleep(0.01)
        if interface.members != size:
            raise SystemExit(f"{interface.members} of {size} members were added")
        calls: list[float] = []
        cpu = common.cpu_seconds(pid)
        end = time.perf_counter() + asked.seconds
        while time.perf_counter() < end:
            started = time.perf_counter()
            await interface.layer.send_group("everybody", common.GROUP_MESSAGE)
            calls.append(time.perf_counter() - started)
        return common.calls_result(calls, common.cpu_seconds(pid) - cpu)

    with meeting_place(asked) as (address, pid):
        return uvloop.run(run(address, pid))


def memory(asked: argparse.Namespace) -> dict[str, float]:
    """All works in one process: workers are threads."""
    layer = InMemoryChannelLayer(capacity=10**6 if asked.work.startswith("group-") else CAPACITY)
    if asked.work.startswith("group-"):
        return _memory_group(layer, int(asked.work.removeprefix("group-")), asked.seconds)
    tally = Tally()
    if asked.work == "oneway":
        threading.Thread(target=swallow, args=(layer, tally.counter(0)), daemon=True).start()
        threading.Thread(target=_send_for_ever, args=(layer,), daemon=True).start()
        return tally.rate(asked.seconds)
    for _ in range(1 if asked.work == "idle" else common.WORKERS):
        threading.Thread(target=answer, args=(layer,), daemon=True).start()
    return _trips(layer, asked)


def _memory_group(layer: ChannelLayer, size: int, seconds: float) -> dict[str, float]:
    prefix = f"interface.{secrets.token_hex(4)}!"
    for number in range(size):
        layer.group_add("everybody", f"{prefix}{number}")
    calls: list[float] = []
    cpu = 0.0
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        started, cpu_before = time.perf_counter(), time.process_time()
        layer.send_group("everybody", common.GROUP_MESSAGE)
        calls.append(time.perf_counter() - started)
        cpu += time.process_time() - cpu_before
        for _ in range(size):
            layer.receive_many([prefix])
    return common.calls_result(calls, cpu)


def measure(asked: argparse.Namespace) -> dict[str, float]:
    """A sample of *asked.work* by *asked.contestant*."""
    if asked.contestant == "memory":
        return memory(asked)
    if asked.work.startswith("group-"):
        return group_sends(asked)
    if asked.work == "oneway":
        return (interface_one_way if asked.contestant == "interface" else sender_one_way)(asked)
    return (interface_trips if asked.contestant == "interface" else sender_trips)(asked)


if __name__ == "__main__":
    common.run_driver(measure)
    # The memory layer's threads wait for ever.
    sys.stdout.flush()
    os._exit(0)
