"""The rows of ``scripts/bench model``: what each driver is asked."""

import sys

from benchmarks import drivers
from benchmarks.rows import PEERS, Row, Server

_OURS = (sys.executable, "-m", "benchmarks.model.ours")
_VIEWS = (sys.executable, "-m", "benchmarks.model.views")
_PEERS = (str(PEERS / "python"), "-m", "benchmarks.model.peers")
_ASKED = ("{work}", "{seconds}")


def _row(work: str, title: str, servers: tuple[Server, ...]) -> Row:
    return Row(work, title, lambda server, seconds: drivers.measure(work, server, seconds), servers, "us of CPU")


MODEL_ROWS = {
    row.name: row
    for row in (
        _row(
            "match",
            "Routing: 20 routes with a path, the last one matches, 25 headers",
            (
                Server("procman, one list", (*_OURS, "flat", *_ASKED)),
                Server("procman, in an include", (*_OURS, "include", *_ASKED)),
                Server("Channels 4 URLRouter", (*_PEERS, "router", *_ASKED)),
                Server("Django URL resolver", (*_PEERS, "resolver", *_ASKED)),
            ),
        ),
        _row(
            "view",
            "HTTP request through the default middleware to a trivial view",
            (
                Server("procman AsgiHandler", (*_VIEWS, "ours", *_ASKED)),
                Server("Django WSGIHandler", (*_VIEWS, "wsgi", *_ASKED)),
            ),
        ),
        _row(
            "dispatch",
            "WebSocket message: layer, echo consumer, layer; of the worker, 64 sockets, consumer included",
            (
                Server("procman, IPC", (*_OURS, "plain", *_ASKED)),
                Server("procman, IPC, channel_session", (*_OURS, "session", *_ASKED)),
                Server("Channels 4 runworker, channels_redis", (*_PEERS, "worker", *_ASKED, *drivers.REDIS)),
            ),
        ),
    )
}
