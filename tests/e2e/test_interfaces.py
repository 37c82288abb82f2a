"""Several interface processes on one port, and the other ways to listen."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect, unix_connect

from procman.layers.ipc.finishes import GRACE
from tests.support.processes import Site, running_site
from tests.support.waiting import wait_until

SOCKETS = 120


@pytest.fixture
def site(project: Path) -> Iterator[Site]:
    (project / "marks.jsonl").unlink(missing_ok=True)
    with running_site(project, "--workers", "2", "--interfaces", "2") as site:
        yield site


def held_by(pid: int, port: int) -> set[int]:
    """Ports of the clients whose connections to *port* process *pid* holds."""
    found = psutil.Process(pid).net_connections("tcp")
    return {each.raddr.port for each in found if each.laddr.port == port and each.status == "ESTABLISHED"}


def opened(url: str) -> ClientConnection:
    """A WebSocket that is closed by hand."""
    client = connect(url, compression=None)
    client.pending_legacy_warning = False  # it wants a context manager
    return client


def hear(client: ClientConnection, text: str) -> None:
    """Read until *text* comes."""
    while client.recv(10) != text:
        pass


def how_many(client: ClientConnection) -> int:
    """How many sockets the group has, by the consumer of *client*."""
    client.send("how many")
    while not (text := str(client.recv(10))).endswith(" of us"):
        pass
    return int(text.removesuffix(" of us"))


def test_connections_are_spread_and_groups_and_disconnects_are_right_across_interfaces(site: Site) -> None:
    assert "ready: " in site.log and "(2 interfaces, 2 workers, ipc layer)" in site.log
    pids = [site.pid_of(name) for name in ("interface.1", "interface.2")]
    started = time.monotonic()
    wait_until(lambda: time.monotonic() - started > GRACE, 5)  # until then the layer keeps group sends for late comers
    clients = [opened(f"{site.ws_url}/{number}/") for number in range(SOCKETS)]
    for client in clients:  # the answer says that it is in the group
        client.send("ready")
        hear(client, json.dumps({"echo": "ready", "count": 1}))
    held = [held_by(pid, site.port) for pid in pids]
    assert sum(map(len, held)) == SOCKETS and all(len(each) > SOCKETS / 4 for each in held)

    clients[0].send("say hello")
    for client in clients:
        hear(client, "say hello")

    assert how_many(clients[0]) == how_many(clients[-1]) == SOCKETS

    os.kill(pids[0], signal.SIGKILL)
    staying = [client for client in clients if client.socket.getsockname()[1] in held[1]]
    leaving = [client for client in clients if client.socket.getsockname()[1] in held[0]]
    for client in leaving:
        with pytest.raises(ConnectionClosed):
            hear(client, "never")
    marks = site.directory / "marks.jsonl"

    def disconnects() -> list[str]:
        lines = marks.read_text().splitlines() if marks.exists() else []
        return [json.loads(line)["path"] for line in lines if '"disconnect"' in line]

    wait_until(lambda: len(disconnects()) == len(leaving), 15, what="every lost socket has its disconnect")
    assert len(set(disconnects())) == len(leaving)
    wait_until(lambda: how_many(staying[0]) == len(staying), 10)
    staying[0].send("say still here")
    for client in staying:
        hear(client, "say still here")
    site.wait_for_line(r"interface\.1 +\| interface ready[\s\S]*interface\.1 +\| interface ready")
    with connect(f"{site.ws_url}/back/", compression=None) as back:
        back.send("ready")
        hear(back, json.dumps({"echo": "ready", "count": 1}))
        assert how_many(back) == how_many(staying[0]) == len(staying) + 1
    for client in staying:
        client.close()


def ask(connection: socket.socket) -> int:
    """The status of a request over *connection*."""
    client = http.client.HTTPConnection("localhost")
    client.sock = connection
    client.request("GET", "/nowhere/")
    return client.getresponse().status


def test_a_site_on_a_unix_socket_serves_both_kinds_and_removes_it(project: Path, tmp_path: Path) -> None:
    path = tmp_path / "http.sock"
    site = Site(project, ["start", "--workers", "1", "--bind", f"unix:{path}"])
    try:
        with pytest.raises(ValueError, match="invalid literal"):  # there is no port in the URL
            site.start(r"ready: (unix:\S+)")
        assert path.stat().st_mode & 0o777 == 0o600
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(path))
            assert ask(connection) == 404
        with unix_connect(str(path), uri="ws://localhost/bare/", compression=None) as client:
            client.send("hello")
            assert client.recv(10) == "hello"
    finally:
        site.stop()
    assert not path.exists()


def test_a_socket_of_systemd_is_served(project: Path) -> None:
    code = (
        "import os, sys; fd = int(sys.argv[1]); os.dup2(fd, 3); os.environ |= {'LISTEN_PID': str(os.getpid()), "
        "'LISTEN_FDS': '1'}; os.execv(sys.executable, [sys.executable, '-m', 'procman', 'start', '--workers', '1'])"
    )
    with socket.create_server(("127.0.0.1", 0)) as listener, (project / "activated.log").open("wb") as log:
        fd = os.dup2(listener.fileno(), 63)
        process = subprocess.Popen(
            [sys.executable, "-c", code, str(fd)], cwd=project, pass_fds=(fd,), stdout=log, stderr=log
        )
        os.close(fd)
        try:
            with socket.create_connection(listener.getsockname(), 30) as connection:
                assert ask(connection) == 404
        finally:
            process.terminate()
            assert process.wait(30) == 0
