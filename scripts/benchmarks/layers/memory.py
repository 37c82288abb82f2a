"""Memory of the hub while messages go through it: ``PYTHONPATH=scripts python -m benchmarks.layers.memory``.

Requests of an interface are answered by two workers; between them sockets open and close, groups get members and lose
them, and messages go to channels that are used once, so that anything which the hub keeps per name would show. A
request and its reply count as two messages. Prints JSON: resident memory of the hub in KiB after each step.
"""

import argparse
import asyncio
import json
import sys
from pathlib import Path

import uvloop

from benchmarks.layers import common
from benchmarks.layers.common import request
from benchmarks.layers.ours import Interface, answer, asynchronous, blocking, meeting_place
from procman.layers.base import AsyncChannelLayer, Offer, OpenSocket

OTHERS_EVERY = 20  # requests


def resident_kib(pid: int) -> int:
    """Resident memory of the process *pid*."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))


class Flow(Interface):
    """Offers requests without end, each with a reply channel of its own, and sometimes everything else."""

    def __init__(self, layer: AsyncChannelLayer, pid: int, messages: int, step: int) -> None:
        super().__init__(layer, None)  # type: ignore[arg-type]  # nothing is timed
        self.pid, self.messages, self.step = pid, messages, step
        self.count = 0
        self.samples: list[dict[str, int]] = []
        self.tasks: set[asyncio.Task[None]] = set()

    def offer(self) -> None:
        number = next(self.numbers)
        self.sent[number] = 0.0
        reply_channel = f"{self.name}!{number}"
        body = self.layer.encode(request(reply_channel, 0.0))
        self.layer.offer(Offer(number, "work", body, reply_channel, bounded=True))
        if number % OTHERS_EVERY == 0:
            task = asyncio.get_running_loop().create_task(self.do_others(number))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)

    def on_finished(self, offer_id: int, session: bytes | None) -> None:
        del self.sent[offer_id]
        self.count += 2
        if self.count % self.step == 0:
            self.samples.append({"messages": self.count, "rss_kib": resident_kib(self.pid)})
            print(f"{self.count:,} messages: {self.samples[-1]['rss_kib']:,} KiB", file=sys.stderr)
        if self.count + 2 * len(self.sent) < self.messages:
            self.offer()
        elif not self.sent and not self.done.done():
            self.done.set_result(None)

    async def do_others(self, number: int) -> None:
        """A socket, a group and a channel that are used once."""
        layer, channel, group, once = self.layer, f"{self.name}!s{number}", f"group{number}", f"once?{number}"
        layer.socket_opened(OpenSocket(channel, "/", 0, b"a session"))
        await layer.group_add(group, channel)
        await layer.group_add(group, once)
        await layer.send_group(group, {"text": "hello"})
        await layer.receive_many([once])
        await layer.group_discard(group, once)
        layer.socket_closed(channel, None)


def measure(messages: int, step: int) -> list[dict[str, int]]:
    """Samples after each *step* of *messages*."""

    async def run(address: str, pid: int) -> list[dict[str, int]]:
        flow = Flow(asynchronous(address), pid, messages, step)
        await flow.layer.connect(10)
        for _ in range(common.IN_FLIGHT):
            flow.offer()
        await flow.done
        await asyncio.gather(*flow.tasks)
        statistics = await flow.layer.statistics()
        left = {name: statistics[name] for name in ("messages_pending", "in_flight", "sockets", "groups")}
        if any(left.values()):
            raise SystemExit(f"something stayed in the hub: {left}")
        return flow.samples

    with meeting_place(argparse.Namespace(address=None)) as (address, pid):
        with common.workers(common.WORKERS, lambda number: answer(blocking(address))):
            return uvloop.run(run(address, pid))


def main() -> None:
    """Measure as asked on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("messages", type=int, nargs="?", default=1_000_000)
    parser.add_argument("--step", type=int, default=200_000, help="messages between two samples")
    asked = parser.parse_args()
    print(json.dumps(measure(asked.messages, asked.step)))


if __name__ == "__main__":
    main()
