"""One play of the fault tests: a hub, workers, senders and an interface that are busy while some of them are killed."""

import itertools
import multiprocessing
import random
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from procman.layers.base import Offer, OpenSocket
from procman.layers.errors import ChannelFull, LayerError
from procman.layers.ipc import IPCChannelLayer
from tests.faults import ledger
from tests.faults.crew import CAPACITY, CHILD, build_message, run_worker, work
from tests.support.layers import HubProcess, RecordingInterface
from tests.support.waiting import wait_until

LONELY = "crew.lonely"
CHANNELS = ("crew.a", "crew.b", CHILD)
FRAMES = ("websocket.connect", "websocket.receive", "websocket.disconnect", "http.request")
SOCKETS = 8
WORKERS = 3
_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(["tests.faults.crew"])
_DROPPED = re.compile(r"ERROR.*\(reply channel (\S+)\); the message is dropped")


class Interface(RecordingInterface):
    """Holds sockets that talk without end, one frame each at a time, and requests between them."""

    def __init__(self, address: str, book: ledger.Book, seed: int) -> None:
        self.book, self.random = book, random.Random(seed)
        self.names: dict[int, tuple[str, Callable[[], None] | None]] = {}  # of unfinished offers, and what follows
        self._numbers, self._socket_numbers = itertools.count(1), itertools.count(1)
        self.is_running = True
        super().__init__(address, capacity=CAPACITY, connect_timeout=30)
        for _ in range(SOCKETS):
            self.loop.call(self._open_socket)
        self.loop.call(self._request)

    def _later(self, function: Callable[..., None], *arguments: Any) -> None:
        self.loop.loop.call_later(self.random.uniform(0, 0.04), function, *arguments)

    def _put(
        self, channel: str, reply_channel: str, then: Callable[[], None] | None, is_safe: bool = True, **fields: Any
    ) -> Offer:
        number = next(self._numbers)
        name = f"f{number}"
        body = build_message(name, reply_channel, self._work(), self._some(f"{name}.c"), self._some(f"{name}.r"))
        offer = Offer(number, channel, self.layer.encode(body), reply_channel, is_safe, **fields)
        self.names[number] = name, then
        self.unfinished[number] = offer
        self.book.note("offering", m=name, channel=channel, reply_channel=reply_channel, safe=is_safe)
        return offer

    def _work(self) -> float:
        return self.random.choice([0.0, 0.001, 0.002, 0.02])

    def _some(self, prefix: str) -> list[str]:
        return [f"{prefix}{n}" for n in range(self.random.choice([0, 0, 1, 2]))]

    def _open_socket(self) -> None:
        name = f"s{next(self._socket_numbers)}"
        self.sockets[name] = OpenSocket(self.channel(name), "/", 0)
        self.layer.socket_opened(self.sockets[name])
        self._talk(name)

    def _talk(self, name: str) -> None:
        if not self.is_running:
            return
        if self.random.random() < 0.05:
            del self.sockets[name]
            offer = self._put("websocket.disconnect", self.channel(name), self._open_socket)
            self.layer.socket_closed(self.channel(name), offer)
        else:
            self.layer.offer(self._put("websocket.receive", self.channel(name), lambda: self._talk(name)))

    def _request(self) -> None:
        if not self.is_running:
            return
        reply_channel = self.channel(f"h{next(self._socket_numbers)}")
        is_safe = self.random.random() < 0.5
        self.layer.offer(self._put("http.request", reply_channel, None, is_safe, bounded=True))
        self._later(self._request)

    def on_reply(self, channel: str, message: dict[str, Any], token: int | None) -> None:
        self.book.note("reply", m=message["m"])

    def on_finished(self, offer_id: int, session: bytes | None) -> None:
        self._ended(offer_id, "finished")

    def on_failed(self, offer_id: int, reason: str) -> None:
        self._ended(offer_id, reason)

    def _ended(self, offer_id: int, how: str) -> None:
        name, then = self.names[offer_id]
        self.unfinished.pop(offer_id, None)
        self.book.note("ended", m=name, how=how)
        if then is not None:
            self._later(then)


class Sender(threading.Thread):
    """Sends background messages until told to stop."""

    def __init__(self, address: str, book: ledger.Book, prefix: str, seed: int) -> None:
        super().__init__(daemon=True)
        self.layer = IPCChannelLayer(address, capacity=CAPACITY, connect_timeout=30)
        self.book, self.prefix, self.random = book, prefix, random.Random(seed)
        self.is_running = True
        self.start()

    def run(self) -> None:
        for number in itertools.count(1):
            if not self.is_running:
                return
            channel = self.random.choice(["crew.a", "crew.b", LONELY])
            name = f"{self.prefix}{number}"
            children = [f"{name}.c{n}" for n in range(self.random.choice([0, 0, 1, 2]))]
            message = build_message(name, work=self.random.choice([0.0, 0.001, 0.01]), sends=children)
            self.book.note("sending", m=name, channel=channel, reply_channel=message["reply_channel"])
            try:
                self.layer.send(channel, message)
            except ChannelFull:
                self.book.note("refused", m=name)
            except LayerError:
                self.book.note("unknown", m=name)
            else:
                self.book.note("accepted", m=name)
            work(self.random.uniform(0, 0.02))

    def stop(self) -> None:
        self.is_running = False
        self.join(40)
        self.layer.close()


class Play:
    """The company; ``act`` kills somebody, ``end`` lets the rest come to an end and gives the ledger."""

    def __init__(self, directory: Path, hub: HubProcess, seed: int) -> None:
        self.directory, self.hub, self.random = directory, hub, random.Random(seed)
        self.book = ledger.Book(directory / "play.book")
        self.is_closed = False
        self._log_start = hub.log_path.stat().st_size
        self.workers = [self._start_worker(number) for number in range(WORKERS)]
        self.senders = [Sender(hub.address, self.book, prefix, seed + ord(prefix)) for prefix in "ab"]
        self.interface = Interface(hub.address, self.book, seed)

    def _start_worker(self, number: int) -> Any:
        channels = [*CHANNELS, *FRAMES, *([LONELY] if number == 0 else [])]
        arguments = (self.hub.address, self.directory, channels, 2 if number == 1 else 1)
        process = _processes.Process(target=run_worker, args=arguments, daemon=True)
        process.start()
        return process

    def act(self) -> str:
        """Kill somebody at some moment; says whom."""
        work(self.random.uniform(0, 0.5))
        what = self.random.choice(
            ["worker"] * 6 + ["workers"] * 2 + ["hub"] * 3 + ["hub, worker", "worker, hub", "boot"]
        )
        number, delay = self.random.randrange(WORKERS), self.random.choice([0.0, 0.001, 0.01])
        if what == "worker":
            self._kill_worker(number)
        elif what == "workers":
            self._kill_worker(number)
            work(delay)
            self._kill_worker((number + 1) % WORKERS)
        elif what == "hub":
            self._kill_hub()
            self.hub.start()
        elif what == "hub, worker":
            self._kill_hub()
            work(delay)
            self._kill_worker(number)
            self.hub.start()
        elif what == "worker, hub":
            self._kill_worker(number)
            work(delay)
            self._kill_hub()
            self.hub.start()
        else:  # in the time in which a hub rebuilds what its predecessor held
            self._kill_hub()
            self.hub.start()
            work(delay * 10)
            self._kill_worker(number)
        return what

    def _kill_hub(self) -> None:
        assert self.hub.process is not None
        self.book.note("killing", who="hub", pid=self.hub.process.pid)
        self.hub.kill()

    def _kill_worker(self, number: int) -> None:
        worker = self.workers[number]
        self.book.note("killing", who="worker", pid=worker.pid)
        worker.kill()
        self.workers[number] = self._start_worker(number)
        worker.join(10)
        worker.close()

    def end(self, timeout: float = 30.0) -> list[ledger.Event]:
        """Let everything that has begun come to its end; the ledger."""
        for sender in self.senders:
            sender.stop()
        self.interface.is_running = False
        watcher = IPCChannelLayer(self.hub.address, connect_timeout=30)

        def is_quiet() -> bool:
            found = watcher.statistics()
            if self.interface.unfinished or found["messages_pending"] or found["in_flight"]:
                return False
            events = ledger.read(self.directory)
            return time.monotonic() - events[-1]["t"] > 0.5

        try:
            wait_until(is_quiet, timeout, 0.05)
        except AssertionError:
            pass  # the audit tells what has not ended
        finally:
            watcher.close()
            self.close()
        with self.hub.log_path.open() as log:
            log.seek(self._log_start)
            for line in log:
                found = _DROPPED.search(line)
                if found:
                    self.book.note("dropped", reply_channel=found[1], line=line.strip())
        self.book.close()
        return ledger.read(self.directory)

    def close(self) -> None:
        """End what still runs; twice is fine."""
        if self.is_closed:
            return
        self.is_closed = True
        for sender in self.senders:
            sender.stop()
        for worker in self.workers:
            worker.kill()
            worker.join(10)
            worker.close()
        self.interface.close()
