"""``HttpClient``, the name of 1.0 for ``WSClient``."""

from procman.channels.test.websocket import WSClient

HttpClient = WSClient
