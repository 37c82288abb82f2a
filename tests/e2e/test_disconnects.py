"""Every connect consumer that accepts is followed by a disconnect consumer, however its client behaves."""

import random
import signal
import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.e2e.test_kill import marks
from tests.support.processes import Site, running_site
from tests.support.redis import running_redis
from tests.support.waiting import wait_until

HANDSHAKE = (
    "GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


@pytest.fixture(params=["ipc", "redis"])
def site(request: pytest.FixtureRequest, project: Path) -> Iterator[Site]:
    (project / "marks.jsonl").unlink(missing_ok=True)
    with ExitStack() as stack:
        layer = ["--layer", stack.enter_context(running_redis()).url] if request.param == "redis" else []
        yield stack.enter_context(running_site(project, "--workers", "2", *layer))


def asked(site: Site, path: str) -> socket.socket:
    """A connection that has asked for a WebSocket."""
    client = socket.create_connection(("127.0.0.1", site.port), 10)
    client.sendall(HANDSHAKE.format(path=path, port=site.port).encode())
    return client


def paths(site: Site, event: str) -> Counter[object]:
    return Counter(mark["path"] for mark in marks(site, event))


def test_clients_that_leave_while_they_are_being_accepted_leave_nothing_behind(site: Site) -> None:
    dice = random.Random(3)
    for number in range(60):
        with asked(site, f"/{number}/") as client:
            client.settimeout(dice.random() * 0.03 + 0.0001)
            try:
                client.recv(12)  # or it leaves before the answer
            except TimeoutError:
                pass
    with asked(site, "/last/") as client:
        assert client.recv(12) == b"HTTP/1.1 101"
    wait_until(lambda: paths(site, "connect")["/last/"] and paths(site, "connect") == paths(site, "disconnect"), 20)
    assert set(paths(site, "connect").values()) == {1}


@pytest.mark.slow
def test_clients_that_do_not_answer_the_close_frame_have_their_disconnects_run_at_a_stop(site: Site) -> None:
    with ExitStack() as stack:
        for number in range(20):
            client = stack.enter_context(asked(site, f"/{number}/"))
            assert client.recv(12) == b"HTTP/1.1 101"
        assert site.process is not None
        site.process.send_signal(signal.SIGTERM)
        assert site.process.wait(15) == 0
        assert len(paths(site, "disconnect")) == 20
