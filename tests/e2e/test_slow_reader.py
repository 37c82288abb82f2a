"""A WebSocket client that never reads, at a real site, while its group is sent large messages."""

import itertools
import json
import socket
import threading
import time
from pathlib import Path

import pytest
from websockets.sync.client import connect

from procman.layers.ipc.finishes import GRACE
from tests.support.processes import Site, memory_kib, running_site
from tests.support.waiting import wait_until

SENDS = 300
TEXT = "say " + "x" * 60_000
HANDSHAKE = (
    "GET /stuck/ HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


def open_stuck(site: Site) -> socket.socket:
    """A socket that shook hands and reads nothing more."""
    stuck = socket.socket()
    stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    stuck.settimeout(10)
    stuck.connect(("127.0.0.1", site.port))
    stuck.sendall(HANDSHAKE.format(port=site.port).encode())
    assert stuck.recv(12) == b"HTTP/1.1 101"
    return stuck


@pytest.mark.slow
def test_a_client_that_never_reads_is_closed_and_costs_the_others_nothing(project: Path) -> None:
    (project / "marks.jsonl").write_text("")
    with running_site(project, "--workers", "1") as site:
        # In its first second the layer keeps group sends for interfaces that may still come.
        started = time.monotonic()
        wait_until(lambda: time.monotonic() - started > GRACE, 5)
        pids = {name: site.pid_of(name) for name in ("interface.1", "layer")}
        with open_stuck(site), connect(f"{site.ws_url}/listener/", compression=None) as listener:
            # Its answer says that it is in the group.
            listener.send("ready")
            assert json.loads(listener.recv(10))["echo"] == "ready"
            got: list[float] = []

            def listen() -> None:
                for _ in range(SENDS):
                    assert len(listener.recv(20)) == len(TEXT)
                    got.append(time.monotonic())

            before = {name: memory_kib(pid)["VmRSS"] for name, pid in pids.items()}
            reader = threading.Thread(target=listen)
            reader.start()
            with connect(f"{site.ws_url}/talker/", compression=None) as talker:
                for number in range(SENDS):
                    talker.send(TEXT)
                    assert len(talker.recv(10)) == len(TEXT), number
                reader.join(30)
                assert len(got) == SENDS
                assert max(later - earlier for earlier, later in itertools.pairwise(got)) < 1.0
            site.wait_for_line(r"WARNING.*/stuck/ closed with 1013: its client has not read \d+ bytes")

            def left() -> list[dict[str, object]]:
                marks = (json.loads(line) for line in (project / "marks.jsonl").read_text().splitlines())
                return [mark for mark in marks if mark["event"] == "disconnect" and mark["path"] == "/stuck/"]

            assert [mark["code"] for mark in wait_until(left, 20)] == [1013]
            for name, pid in pids.items():
                # 18 MB were sent to each; the stuck one may hold write_limit (1 MiB) of them.
                assert memory_kib(pid)["VmHWM"] - before[name] < 12 * 1024, name
