"""Tools for the tests of projects: consumers run in the test's own thread, over a channel layer in memory.

Nothing here is part of a running site. ``ChannelTestCase`` and ``TransactionChannelTestCase`` give every test empty
layers, ``Client`` and ``WSClient`` stand for a browser, ``apply_routes`` puts other routes in place for a while.
"""

from procman.channels.test.base import ChannelTestCase, TransactionChannelTestCase
from procman.channels.test.client import Client
from procman.channels.test.http import HttpClient
from procman.channels.test.routes import apply_routes
from procman.channels.test.websocket import WSClient

__all__ = [
    "ChannelTestCase",
    "Client",
    "HttpClient",
    "TransactionChannelTestCase",
    "WSClient",
    "apply_routes",
]
