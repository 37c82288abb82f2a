"""What the drivers of both sides share: the routes and their message, and how CPU time is taken. Standard library."""

import time
from collections.abc import Callable

ROUTES = [rf"^/app{number}/(?P<room>[^/]+)/$" for number in range(20)]
PATH = "/app19/django/"  # the last one
HEADERS = [[b"x-header-%02d" % number, b"v" * 11] for number in range(25)]
SOCKETS = 64
_BATCH = 500  # calls between looks at the clock


def cpu_per_call(call: Callable[[], object], seconds: float) -> dict[str, float]:
    """A sample: microseconds of this process's CPU per *call*, the median of batches over *seconds* of wall time."""
    batches = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(batches) < 3:
        started = time.process_time()
        for _ in range(_BATCH):
            call()
        batches.append((time.process_time() - started) / _BATCH)
    return sample(sorted(batches)[len(batches) // 2])


def sample(cpu: float) -> dict[str, float]:
    """A sample of *cpu* seconds; nothing is known of how long a caller waited."""
    return {"rate": cpu * 1e6, "p50_ms": float("nan"), "p99_ms": float("nan")}
