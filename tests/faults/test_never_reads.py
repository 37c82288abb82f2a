"""Clients of the hub that never read: they cost bounded memory, are cut, and nobody waits for them."""

import os
import socket
import time
from collections.abc import Callable
from typing import Any

import pytest

from procman.layers import codec
from procman.layers.ipc import IPCChannelLayer, frames
from procman.layers.limits import Limits
from tests.support.layers import HubProcess, RecordingInterface, running_hub
from tests.support.processes import memory_kib
from tests.support.waiting import wait_until

MIB = 1024 * 1024
# What the hub keeps for one that does not read (64 MiB), and as much again while it is copied and written.
BOUND_KIB = 2 * 64 * 1024


def connect(hub: HubProcess, role: str, name: str | None = None, *more: tuple[Any, ...]) -> socket.socket:
    """A connection that has greeted and said *more*, and whose answers nobody reads."""
    stuck = socket.socket(socket.AF_UNIX)
    stuck.settimeout(5)
    stuck.connect(hub.path)
    for frame in (frames.build_hello(role, Limits(), name, None), *more):
        stuck.sendall(codec.pack(frame))
    return stuck


def flood_until_cut(hub: HubProcess, flood: Callable[[int], None], layer: IPCChannelLayer) -> float:
    """Call *flood* with numbers until the log says that somebody was cut; the longest round trip meanwhile."""
    slowest = 0.0
    for number in range(4000):
        flood(number)
        started = time.monotonic()
        layer.send("others", {"n": number})
        assert layer.receive_many(["others"], block=True, timeout=10) == ("others", {"n": number})
        slowest = max(slowest, time.monotonic() - started)
        if "does not read" in hub.log:
            return slowest
    raise AssertionError("nobody was cut")


@pytest.mark.slow
def test_a_client_that_asks_and_never_reads_is_cut_and_others_do_not_notice() -> None:
    with running_hub() as hub:
        assert hub.process is not None
        pid, layer = hub.process.pid, IPCChannelLayer(hub.address)
        before = memory_kib(pid)["VmRSS"]
        with connect(hub, frames.CLIENT) as stuck:

            def ask(number: int) -> None:
                layer.send("large", {"data": os.urandom(MIB)})
                stuck.sendall(codec.pack((frames.RECEIVE, number, ["large"], False, None)))
                # The hub has handled it before the next round: else messages would wait for the stuck one's requests.
                wait_until(lambda: layer.channel_statistics("large")["messages_pending"] == 0)

            slowest = flood_until_cut(hub, ask, layer)
        assert slowest < 0.5
        assert layer.statistics()["connections_cut_count"] == 1
        assert memory_kib(pid)["VmHWM"] - before < BOUND_KIB
        layer.close()


@pytest.mark.slow
def test_an_interface_that_never_reads_is_cut_its_disconnects_run_and_other_members_get_everything() -> None:
    with running_hub() as hub:
        assert hub.process is not None
        pid, layer = hub.process.pid, IPCChannelLayer(hub.address)
        good = RecordingInterface(hub.address)
        good.open()
        layer.group_add("news", good.channel())
        own = "interface.stuck!1"
        before = memory_kib(pid)["VmRSS"]
        report = ((frames.OPENED, own, "/", 0, None), (frames.MEMBERS, "news", [own]), (frames.REPORTED,))
        with connect(hub, frames.INTERFACE, "interface.stuck", *report):
            wait_until(lambda: own in layer.group_channels("news"))
            sent = 0

            def tell(number: int) -> None:
                nonlocal sent
                layer.send_group("news", {"bytes": os.urandom(60_000)})
                sent += 1

            slowest = flood_until_cut(hub, tell, layer)
        assert slowest < 0.5
        assert layer.statistics()["connections_cut_count"] == 1
        assert memory_kib(pid)["VmHWM"] - before < BOUND_KIB
        good.heard("group", count=sent)
        assert layer.group_channels("news") == [good.channel()]
        _, message = layer.receive_many(["websocket.disconnect"], block=True, timeout=10)
        assert message is not None and (message["reply_channel"], message["code"]) == (own, 1006)
        good.close()
        layer.close()
