"""A channel layer for tests of the interface: the test is the worker.

``FakeLayer`` is served by an interface on its event loop; the methods in the second half are for the test's thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import pickle
import queue
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from procman.layers.base import AsyncChannelLayer, InterfaceHandler, Offer, OpenSocket, Snapshot
from procman.layers.errors import MessageTooLarge

T = TypeVar("T")
TIMEOUT = 5.0


class FakeLayer(AsyncChannelLayer):
    """Keeps what the interface offers until the test answers it."""

    def __init__(self, max_size: int = 16 * 1024 * 1024) -> None:
        self.max_size = max_size
        self.offers: queue.Queue[Offer] = queue.Queue()
        self.sent: queue.Queue[tuple[str, dict[str, Any]]] = queue.Queue()
        self.opened: list[OpenSocket] = []
        self.ended: list[str] = []
        self.withdrawn: queue.Queue[int] = queue.Queue()
        self.settled: queue.Queue[int] = queue.Queue()
        self.answers: queue.Queue[tuple[int, bool]] = queue.Queue()
        self.gone: list[tuple[str, str]] = []
        self.is_closed = False
        self.is_silent = False  # it never answers a question for its statistics
        self.numbers: dict[str, Any] = {"workers": 1}
        self.send_error: Exception | None = None
        self.back: asyncio.Event | None = None  # the layer is away until it is set
        self.handler: InterfaceHandler
        self.loop: asyncio.AbstractEventLoop

    # -- AsyncChannelLayer -------------------------------------------------------------------------------------------

    def serve(self, handler: InterfaceHandler) -> str:
        self.handler = handler
        return "fake"

    async def connect(self, timeout: float | None = None) -> None:
        self.loop = asyncio.get_running_loop()
        self.handler.on_layer_found()

    async def close(self) -> None:
        self.is_closed = True

    async def statistics(self) -> dict[str, Any]:
        if self.is_silent:
            await asyncio.Event().wait()
        return dict(self.numbers)

    def encode(self, message: Mapping[str, Any]) -> bytes:
        body = pickle.dumps(message)
        if len(body) > self.max_size:
            raise MessageTooLarge(len(body), self.max_size)
        return body

    def offer(self, offer: Offer) -> None:
        self.offers.put(offer)

    def withdraw(self, offer_id: int) -> None:
        self.withdrawn.put(offer_id)
        if any(offer.id == offer_id for offer in list(self.offers.queue)):  # the test may take it all the same
            with contextlib.suppress(RuntimeError):  # a test without a loop hears of nothing
                asyncio.get_running_loop().call_soon(self.handler.on_failed, offer_id, "withdrawn")

    def settle(self, offer_id: int) -> None:
        self.settled.put(offer_id)

    def socket_opened(self, socket: OpenSocket) -> None:
        self.opened.append(socket)

    def socket_closed(self, reply_channel: str, disconnect: Offer | None) -> None:
        self.ended.append(reply_channel)
        if disconnect is not None:
            self.offers.put(disconnect)

    def group_gone(self, group: str, channel: str) -> None:
        self.gone.append((group, channel))

    def written(self, token: int, delivered: bool) -> None:
        self.answers.put((token, delivered))

    async def send(self, channel: str, message: Mapping[str, Any]) -> None:
        if self.back is not None:
            await self.back.wait()
        self.sent.put((channel, dict(message)))

    async def send_when_room(self, channel: str, message: Mapping[str, Any]) -> None:
        if self.send_error is not None:
            raise self.send_error
        self.sent.put((channel, dict(message)))

    # -- for the test's thread ---------------------------------------------------------------------------------------

    def take(self, channel: str | None = None, timeout: float = TIMEOUT) -> tuple[Offer, dict[str, Any]]:
        """The next offer and its message."""
        offer = self.offers.get(timeout=timeout)
        assert channel is None or offer.channel == channel, offer
        return offer, pickle.loads(offer.body)

    def run(self, function: Callable[..., T], *arguments: Any) -> T:
        """Call *function* on the interface's loop."""

        async def call() -> T:
            return function(*arguments)

        return asyncio.run_coroutine_threadsafe(call(), self.loop).result(TIMEOUT)

    def reply(self, channel: str, message: dict[str, Any], token: int | None = None) -> None:
        """A send to a reply channel."""
        self.run(self.handler.on_reply, channel, message, token)

    def finish(self, offer: Offer, *replies: dict[str, Any], session: bytes | None = None) -> None:
        """The consumer of *offer* ends; its *replies* go to its own reply channel."""

        def end() -> None:
            if self.handler.is_unfinished(offer.id):
                for message in replies:
                    self.handler.on_reply(offer.reply_channel, message, None)
                self.handler.on_finished(offer.id, session)

        self.run(end)

    def fail(self, offer: Offer, reason: str) -> None:
        """*offer* will not be worked on."""
        self.run(self.handler.on_failed, offer.id, reason)

    def begin(self, offer: Offer) -> None:
        """A worker gets *offer*."""
        self.run(self.handler.on_begun, offer.id)

    def add(self, group: str, channels: Sequence[str]) -> None:
        """Members join *group*."""
        for channel in channels:
            self.run(self.handler.on_group_add, group, channel)

    def send_to_group(self, group: str, message: dict[str, Any]) -> None:
        """A group send arrives."""
        self.run(self.handler.on_group_send, group, message)

    def lose(self) -> None:
        """The layer goes away."""
        self.run(self.handler.on_layer_lost)

    def find(self) -> Snapshot:
        """It is back and asks what the interface holds."""
        return self.run(self.handler.on_layer_found)
