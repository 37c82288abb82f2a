"""The rows of ``scripts/bench layers``: what each driver is asked."""

import importlib.util
import sys

from benchmarks import drivers
from benchmarks.layers.common import GROUP_SIZES
from benchmarks.rows import PEERS, Row, Server

_OURS = (sys.executable, "-m", "benchmarks.layers.ours")
_PEERS = (str(PEERS / "python"), "-m", "benchmarks.layers.peers")
_NO_REDIS_LAYER = "" if importlib.util.find_spec("procman.layers.redis") else "there is no such layer yet"

IPC = Server("procman ipc, interface", (*_OURS, "interface", "{work}", "{seconds}"))
SENDER = Server("procman ipc, blocking sender", (*_OURS, "sender", "{work}", "{seconds}"))
REDIS = Server(
    "procman redis, interface", (*_OURS, "interface", "{work}", "{seconds}", *drivers.REDIS), _NO_REDIS_LAYER
)
MEMORY = Server("procman memory", (*_OURS, "memory", "{work}", "{seconds}"))
RAW = Server("raw socket pair", (sys.executable, "-m", "benchmarks.layers.raw", "raw", "{work}", "{seconds}"))
INMEMORY = Server("Channels 4 InMemory", (*_PEERS, "inmemory", "{work}", "{seconds}"))
CORE = Server("channels_redis core", (*_PEERS, "core", "{work}", "{seconds}", *drivers.REDIS))
PUBSUB = Server("channels_redis pubsub", (*_PEERS, "pubsub", "{work}", "{seconds}", *drivers.REDIS))
_LAYERS = (REDIS, MEMORY, INMEMORY, CORE, PUBSUB)


def _row(work: str, title: str, servers: tuple[Server, ...], unit: str) -> Row:
    return Row(work, title, lambda server, seconds: drivers.measure(work, server, seconds), servers, unit)


LAYER_ROWS = {
    row.name: row
    for row in (
        _row(
            "idle",
            "Layer round trip, one at a time, 1 worker: 800 bytes there, 300 back",
            (IPC, SENDER, RAW, *_LAYERS),
            "median us",
        ),
        _row(
            "flight",
            "Layer round trips, 64 in flight, 2 workers: 800 bytes there, 300 back",
            (IPC, SENDER, RAW, *_LAYERS),
            "per second",
        ),
        _row(
            "oneway",
            "Layer one-way, 800 bytes, 1 sender, 1 worker",
            (Server("procman ipc, asyncio sender", IPC.command), SENDER, RAW, *_LAYERS),
            "per second",
        ),
        *(
            _row(
                f"group-{size}",
                f"Group send to {size:,} members of one process: CPU of what holds the group",
                (IPC, *_LAYERS),
                "us per send",
            )
            for size in GROUP_SIZES
        ),
    )
}
