"""The floor: a Unix socket pair per worker process, one ``send`` and one ``recv`` per message, no layer at all."""

import argparse
import select
import socket
import time

from benchmarks.layers import common
from benchmarks.layers.common import Clock, Tally

REQUEST, REPLY = b"q" * common.REQUEST_BYTES, b"r" * common.REPLY_BYTES
ALL = socket.MSG_WAITALL


def measure(asked: argparse.Namespace) -> dict[str, float]:
    """A sample of *asked.work*: ``idle``, ``flight`` or ``oneway``."""
    if asked.work == "oneway":
        return _one_way(asked.seconds)
    count = 1 if asked.work == "idle" else common.WORKERS
    pairs = [socket.socketpair() for _ in range(count)]
    with common.workers(count, lambda number: _answer(pairs[number][1])):
        ours = [pair[0] for pair in pairs]
        clock = Clock(asked.seconds)
        if asked.work == "idle":
            _one_at_a_time(ours[0], clock)
        else:
            _many_at_once(ours, clock)
    return clock.result(is_rate=asked.work == "flight")


def _answer(theirs: socket.socket) -> None:
    while theirs.recv(len(REQUEST), ALL):
        theirs.sendall(REPLY)


def _one_at_a_time(ours: socket.socket, clock: Clock) -> None:
    sent = time.perf_counter()
    ours.sendall(REQUEST)
    while ours.recv(len(REPLY), ALL) and clock.note(sent):
        sent = time.perf_counter()
        ours.sendall(REQUEST)


def _many_at_once(ours: list[socket.socket], clock: Clock) -> None:
    poll = select.epoll()
    sockets = {one.fileno(): one for one in ours}
    sent: dict[int, list[float]] = {fd: [] for fd in sockets}
    for fd, one in sockets.items():
        poll.register(fd, select.EPOLLIN)
        for _ in range(common.IN_FLIGHT // len(ours)):
            sent[fd].append(time.perf_counter())
            one.sendall(REQUEST)
    while True:
        for fd, _ in poll.poll():
            one = sockets[fd]
            one.recv(len(REPLY), ALL)
            if not clock.note(sent[fd].pop(0)):
                return
            sent[fd].append(time.perf_counter())
            one.sendall(REQUEST)


def _one_way(seconds: float) -> dict[str, float]:
    ours, theirs = socket.socketpair()
    tally = Tally()

    def read(number: int) -> None:
        add = tally.counter(number)
        while theirs.recv(len(REQUEST), ALL):
            add()

    def write(number: int) -> None:
        while True:
            ours.sendall(REQUEST)

    with common.workers(1, read), common.workers(1, write):
        return tally.rate(seconds)


if __name__ == "__main__":
    common.run_driver(measure)
