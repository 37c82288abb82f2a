"""One worker process survives whatever its consumers do to it."""

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.support.processes import PROJECT, Site, running_site

pytestmark = pytest.mark.slow
NAMES = re.findall(r"^def (\w+)\(message\):", (PROJECT / "mysite" / "hardships.py").read_text(), re.MULTILINE)
HARDSHIPS = [name for name in NAMES if name != "ws_receive"]
ANSWERED = {
    *("lower_recursion_limit", "fork_and_return", "fork_and_raise", "replace_signal_handlers", "change_directory"),
    *("close_stdout", "leave_transaction_open", "send_to_a_full_channel"),
}


@pytest.fixture(scope="module", params=[(), ("--threads", "2")], ids=["one thread", "two threads"])
def site(project: Path, request: pytest.FixtureRequest) -> Iterator[Site]:
    with running_site(project, "--workers", "1", *request.param) as site:
        yield site


def test_one_worker_survives_all_of_them(site: Site) -> None:
    worker = str(site.pid_of("worker.1"))
    told = {}
    for name in HARDSHIPS:
        with connect(f"{site.ws_url}/hard/") as socket:
            socket.send(name)
            with contextlib.suppress(ConnectionClosed):
                told[name] = socket.recv(20)
                if name not in ANSWERED:  # what could be sent came before the end
                    del told[name]
                    socket.recv(20)
            told.setdefault(name, str(socket.close_code))
        with connect(f"{site.ws_url}/hard/") as socket:
            socket.send("who is there")
            assert socket.recv(20) == worker, f"the worker has died of {name}"
    assert told == {name: worker if name in ANSWERED else "1011" for name in HARDSHIPS}
    assert str(site.pid_of("worker.1")) == worker
    assert "left a transaction open on database 'default'" in site.log
    assert "(logging failed: SystemExit)" in site.log
    assert site.stop() == 0
