"""The processes of the fault tests: a worker that keeps a ledger, and those who send to it.

A message says what its consumer does: ``m`` its name, ``work`` seconds, ``sends`` names of messages to send to
``crew.child`` at its end, ``replies`` names of replies to its reply channel.
"""

import itertools
import os
import select
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from procman.layers.base import Send
from procman.layers.errors import LayerError
from procman.layers.ipc import IPCChannelLayer
from tests.faults.ledger import Book, reply_channel_of

CHILD = "crew.child"
CAPACITY = 100_000  # full channels are not the subject: what is dropped there has no name in the log
_runs = itertools.count(1)


def work(seconds: float) -> None:
    """What a consumer does."""
    select.select([], [], [], seconds)


def run_worker(address: str, directory: Path, channels: Sequence[str], threads: int = 1) -> None:
    """The life of a worker process: it ends when it is killed."""
    layer = IPCChannelLayer(address, capacity=CAPACITY, connect_timeout=30)
    book = Book(directory / f"worker-{os.getpid()}.book")
    others = [threading.Thread(target=_take_forever, args=(layer, book, channels)) for _ in range(threads - 1)]
    for thread in others:
        thread.start()
    _take_forever(layer, book, channels)


def _take_forever(layer: IPCChannelLayer, book: Book, channels: Sequence[str]) -> None:
    while True:
        try:
            delivery = layer.take(channels, 60)
        except LayerError:
            continue
        if delivery is None:
            continue
        run, message = f"{os.getpid()}.{next(_runs)}", delivery.message
        name = message["m"]
        book.note("begin", m=name, run=run, pid=os.getpid(), redelivered=delivery.redelivered)
        work(message["work"])
        reply_channel = message["reply_channel"]
        sends = [Send(CHILD, build_message(child)) for child in message["sends"]]
        sends += [Send(reply_channel, {"m": reply}) for reply in message["replies"]]
        book.note("finishing", m=name, run=run, sends=message["sends"], replies=message["replies"])
        while True:
            try:
                layer.finish(delivery, sends)
                break
            except LayerError:
                continue
        book.note("finished", m=name, run=run)


def build_message(
    name: str,
    reply_channel: str | None = None,
    work: float = 0.0,
    sends: Sequence[str] = (),
    replies: Sequence[str] = (),
) -> dict[str, Any]:
    """A message of the crew's."""
    return {
        "m": name,
        "reply_channel": reply_channel or reply_channel_of(name),
        "work": work,
        "sends": list(sends),
        "replies": list(replies),
    }
