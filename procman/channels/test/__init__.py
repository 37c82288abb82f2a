"""Tools for the tests of projects: consumers run in the test's own thread, over a channel layer in memory.

Nothing here is part of a running site. ``ChannelTestCase`` and ``TransactionChannelTestCase`` give every test empty
layers, ``Client`` and ``WSClient`` stand for a browser, ``apply_routes`` puts other routes in place for a while.
``ChannelLiveServerTestCase`` is the exception: a real server for tests with a browser, loaded with its first use.
"""

from typing import TYPE_CHECKING, Any

from procman.channels.test.base import ChannelTestCase, TransactionChannelTestCase
from procman.channels.test.client import Client
from procman.channels.test.http import HttpClient
from procman.channels.test.routes import apply_routes
from procman.channels.test.websocket import WSClient

if TYPE_CHECKING:
    from procman.channels.test.liveserver import ChannelLiveServerTestCase

__all__ = [
    "ChannelLiveServerTestCase",
    "ChannelTestCase",
    "Client",
    "HttpClient",
    "TransactionChannelTestCase",
    "WSClient",
    "apply_routes",
]


def __getattr__(name: str) -> Any:
    if name == "ChannelLiveServerTestCase":
        from procman.channels.test.liveserver import ChannelLiveServerTestCase

        return ChannelLiveServerTestCase
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
