"""The hub process: its socket, its end, and peers that send rubbish."""

import os
import random
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from procman.errors import ConfigurationError
from procman.layers import codec
from procman.layers.ipc import IPCChannelLayer, frames, server
from tests.support.layers import ROOT, HubProcess
from tests.support.waiting import wait_until

RUN = """
import logging, sys
from procman.layers.ipc.server import run_hub
logging.basicConfig(level=logging.INFO)
run_hub(sys.argv[1])
"""


def is_cut(connection: socket.socket) -> bool:
    """Whether the other end has closed; waits for it."""
    connection.settimeout(10)
    try:
        while connection.recv(65536):
            pass
    except ConnectionResetError:
        pass
    return True


def test_peers_that_send_rubbish_are_cut_and_the_hub_lives_on(shared_hub: HubProcess) -> None:
    generator = random.Random(7)
    layer = IPCChannelLayer(shared_hub.address)
    hello = codec.pack((frames.HELLO, frames.VERSION, "client", "rubbish", 1, [60, 60, 100, 1000, []], None, None, ""))
    for count in range(60):
        with socket.socket(socket.AF_UNIX) as peer:
            peer.connect(shared_hub.path)
            data = generator.randbytes(generator.randrange(1, 400)) + b"\xc1"
            peer.sendall(hello + data if count % 2 else data)
            peer.shutdown(socket.SHUT_WR)  # rubbish may be the begin of a long frame: this is its end
            assert is_cut(peer)
    layer.send("alive", {})
    assert layer.receive_many(["alive"]) == ("alive", {})
    layer.close()


@pytest.mark.parametrize(
    "frame",
    [
        (999,),
        (frames.SEND, 1),
        (frames.SEND, 1, ["list"], b"", None),
        (frames.OFFER, 1, "a", b"", "r", True, False, None, False, False),
        (frames.FINISH, "k", [["a", "not bytes", False]], None, False),
        (frames.TAKE, 5),
        "not a frame",
    ],
)
def test_a_frame_that_is_not_understood_ends_its_connection(shared_hub: HubProcess, frame: object) -> None:
    with socket.socket(socket.AF_UNIX) as peer:
        peer.connect(shared_hub.path)
        hello = (frames.HELLO, frames.VERSION, "client", "odd", 1, [60, 60, 100, 1000, []], None, None, "")
        peer.sendall(codec.pack(hello) + codec.pack(frame))  # type: ignore[arg-type]
        assert is_cut(peer)


def test_a_client_of_another_version_is_told_so(shared_hub: HubProcess) -> None:
    with socket.socket(socket.AF_UNIX) as peer:
        peer.connect(shared_hub.path)
        peer.sendall(codec.pack((frames.HELLO, 99)))
        unpacker = codec.Unpacker(100_000)
        unpacker.feed(peer.recv(65536))
        (answer,) = unpacker.frames()
        assert answer[0] == frames.REFUSED
        assert "restart the older one" in answer[2]
        assert is_cut(peer)


def test_a_hub_of_its_own_makes_a_private_socket_and_removes_it_at_its_end(hub: HubProcess) -> None:
    path = Path(hub.path).with_name("own.sock")
    path.touch()
    path.unlink()
    with socket.socket(socket.AF_UNIX) as stale:  # a socket file that nobody answers on
        stale.bind(str(path))
    process = subprocess.Popen(
        [sys.executable, "-c", RUN, f"ipc://{path}"], cwd=ROOT, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    assert f"layer ready at ipc://{path}" in process.stderr.readline()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(ConfigurationError, match="already running"):
        server.run_hub(f"ipc://{path}")
    process.terminate()
    process.communicate(timeout=10)
    assert process.returncode == 0
    assert not path.exists()


def test_run_hub_refuses_other_addresses() -> None:
    with pytest.raises(ConfigurationError, match="ipc://"):
        server.run_hub("redis://localhost")


def test_a_supervised_hub_ignores_signals_and_ends_with_its_lifetime_pipe(hub: HubProcess) -> None:
    path = Path(hub.path).with_name("kept.sock")
    reader, writer = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-c", RUN, f"ipc://{path}"],
        cwd=ROOT,
        env=os.environ | {"PROCMAN_LIFETIME_FD": str(reader)},
        pass_fds=(reader,),
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(reader)
    assert process.stderr is not None
    assert "layer ready" in process.stderr.readline()
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGINT)
    layer = IPCChannelLayer(f"ipc://{path}")
    layer.send("alive", {})
    assert layer.receive_many(["alive"]) == ("alive", {})
    layer.close()
    os.close(writer)
    process.communicate(timeout=10)
    assert process.returncode == 0


def test_an_idle_hub_uses_no_cpu_for_waiting_receivers(hub: HubProcess) -> None:
    assert hub.process is not None
    layer = IPCChannelLayer(hub.address)

    def cpu() -> int:
        fields = Path(f"/proc/{hub.process.pid}/stat").read_text().rpartition(")")[2].split()  # type: ignore[union-attr]
        return int(fields[11]) + int(fields[12])

    layer.send("a", {})
    wait_until(lambda: layer.receive_many(["a"]))
    before = cpu()
    assert layer.receive_many(["never"], block=True, timeout=0.5) == (None, None)
    assert cpu() - before <= 2  # ticks of 10 ms
    layer.close()
