"""What all drivers share: the messages, the worker processes, the counted time, the result. Standard library only.

A driver is ``python -m benchmarks.layers.<module> CONTESTANT WORK SECONDS [ADDRESS PID]`` and prints one JSON object.
ADDRESS and PID are those of the redis-server, where the contestant needs one.
"""

import argparse
import contextlib
import json
import mmap
import os
import signal
import struct
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

WARM_UP = 1.0  # seconds, at most a quarter of the counted time
WORKERS = 2
IN_FLIGHT = 64
CAPACITY = 1000  # of each channel, for every layer
FULL_PAUSE = 0.001  # seconds before a sender tries a full channel again
REQUEST_BYTES, REPLY_BYTES, GROUP_BYTES = 800, 300, 100
GROUP_SIZES = (10, 1000, 10_000)

# 25 headers, as a browser behind a proxy sends; with "sent" and a reply channel it takes about 800 bytes encoded.
REQUEST = {
    "type": "work",
    "method": "GET",
    "path": "/articles/2024/november/",
    "headers": [[b"x-header-%02d" % number, b"v" * 11] for number in range(25)],
    "body": b"",
}
REPLY = {
    "type": "work",
    "status": 200,
    "headers": [[b"content-type", b"text/html; charset=utf-8"], [b"x-frame-options", b"DENY"]],
    "content": b"x" * 180,
}
GROUP_MESSAGE = {"type": "work", "text": "x" * (GROUP_BYTES - 20)}


class Clock:
    """Says when the counted time begins (after the warm-up) and ends; round trips outside of it are not noted."""

    def __init__(self, seconds: float) -> None:
        self.start = time.perf_counter() + min(WARM_UP, seconds / 4)
        self.end = self.start + seconds
        self.seconds = seconds
        self.times: list[float] = []

    def note(self, sent: float) -> bool:
        """Note a round trip that began at *sent* and ends now; whether there is time left."""
        now = time.perf_counter()
        if self.start <= sent and now < self.end:
            self.times.append(now - sent)
        return now < self.end

    def result(self, is_rate: bool) -> dict[str, float]:
        """A sample: ``rate`` is round trips per second, or their median in microseconds."""
        if not self.times:
            raise SystemExit("no round trip was completed in the counted time")
        times = sorted(self.times)
        median, late = times[len(times) // 2], times[len(times) * 99 // 100]
        rate = len(times) / self.seconds if is_rate else median * 1e6
        return {"rate": rate, "p50_ms": median * 1e3, "p99_ms": late * 1e3}


class Tally:
    """Counts that worker processes keep and the driver reads: one slot for each, in memory that a fork shares."""

    def __init__(self, slots: int = WORKERS) -> None:
        self._memory = mmap.mmap(-1, 8 * slots)
        self._slots = slots

    def counter(self, slot: int) -> Callable[[], None]:
        """What *slot*'s worker calls for each message."""
        count, pack, memory = 0, struct.Struct("q").pack_into, self._memory

        def add() -> None:
            nonlocal count
            count += 1
            pack(memory, 8 * slot, count)

        return add

    def total(self) -> int:
        """The sum of all slots."""
        return sum(struct.unpack_from(f"{self._slots}q", self._memory))

    def rate(self, seconds: float) -> dict[str, float]:
        """Sleep through warm-up and counted time; messages per second of the latter. For a thread of its own."""
        time.sleep(min(WARM_UP, seconds / 4))
        before, started = self.total(), time.perf_counter()
        time.sleep(seconds)
        return one_way_result(self.total() - before, time.perf_counter() - started)


def one_way_result(count: int, seconds: float) -> dict[str, float]:
    """A sample of work that has no round trips."""
    if not count:
        raise SystemExit("no message arrived in the counted time")
    return {"rate": count / seconds, "p50_ms": float("nan"), "p99_ms": float("nan")}


def calls_result(calls: list[float], cpu: float) -> dict[str, float]:
    """A sample of group sends: microseconds of CPU per send, and how long the calls took."""
    calls.sort()
    median, late = calls[len(calls) // 2], calls[len(calls) * 99 // 100]
    return {"rate": cpu / len(calls) * 1e6, "p50_ms": median * 1e3, "p99_ms": late * 1e3}


def cpu_seconds(pid: int) -> float:
    """CPU time that the process *pid* has used so far, in seconds; Linux gives it in nanoseconds."""
    return time.clock_gettime((~pid << 3) | 2)


@contextlib.contextmanager
def workers(count: int, run: Callable[[int], None]) -> Iterator[list[int]]:
    """The ids of *count* forked processes, each in ``run(number)``; killed at the end.

    Fork before there are threads or loops.
    """
    pids = []
    try:
        for number in range(count):
            pid = os.fork()
            if not pid:
                _run_worker(run, number)
            pids.append(pid)
        yield pids
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def _run_worker(run: Callable[[int], None], number: int) -> None:
    try:
        run(number)
    except BaseException as error:  # noqa: BLE001 - whatever it was, no part of the driver may go on in a fork
        print(f"worker {number}: {error!r}", file=sys.stderr, flush=True)
    finally:
        os._exit(1)


def run_driver(measure: Callable[[argparse.Namespace], dict[str, float]]) -> None:
    """Take the command line apart, measure, print the sample."""
    parser = argparse.ArgumentParser()
    parser.add_argument("contestant")
    parser.add_argument("work")
    parser.add_argument("seconds", type=float)
    parser.add_argument("address", nargs="?", default="")
    parser.add_argument("pid", nargs="?", type=int, default=0)
    print(json.dumps(measure(parser.parse_args())))


def request(reply_channel: str, sent: float) -> dict[str, Any]:
    """A request that is answered on *reply_channel*."""
    return {**REQUEST, "reply_channel": reply_channel, "sent": sent}


def reply(message: dict[str, Any]) -> dict[str, Any]:
    """The answer to a request."""
    return {**REPLY, "sent": message["sent"]}
