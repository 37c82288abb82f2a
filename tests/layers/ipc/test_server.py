"""The hub process: its socket, its end, and peers that send rubbish."""

import contextlib
import os
import random
import resource
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from procman.clock import SystemClock
from procman.errors import ConfigurationError
from procman.layers import codec
from procman.layers.ipc import IPCChannelLayer, frames, server
from tests.layers.ipc.test_shapes import nonsense
from tests.support.layers import ROOT, HubProcess, running_hub
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
        assert "is 99" in answer[2]
        assert "restart all of" in answer[2]
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


def greet(hub: HubProcess, role: str = "client", size: int = 16 * 1024 * 1024) -> socket.socket:
    """A connection that has sent its greeting."""
    peer = socket.socket(socket.AF_UNIX)
    peer.connect(hub.path)
    limits = [60.0, 60.0, 100_000, size, []]
    peer.sendall(codec.pack((frames.HELLO, frames.VERSION, role, f"raw {role}", 7, limits, None, None, "p")))
    return peer


def is_alive(hub: HubProcess) -> bool:
    """Whether another client is served."""
    layer = IPCChannelLayer(hub.address)
    layer.send("alive", {})
    found = layer.receive_many(["alive"])
    layer.close()
    return found == ("alive", {})


@pytest.fixture
def strict_hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubProcess]:
    """A hub that gives up soon."""
    monkeypatch.setenv("PROCMAN_LAYER_STALL_TIMEOUT", "1")
    monkeypatch.setenv("PROCMAN_LAYER_MAX_UNSENT_BYTES", str(4 * 1024 * 1024))
    monkeypatch.setenv("PROCMAN_LAYER_MAX_CONNECTIONS", "8")
    with running_hub() as hub:
        yield hub


def test_a_connection_without_a_greeting_is_cut_after_five_seconds(hub: HubProcess) -> None:
    with socket.socket(socket.AF_UNIX) as peer:
        peer.connect(hub.path)
        begin = SystemClock.monotonic()
        assert is_cut(peer)
        assert 4.5 < SystemClock.monotonic() - begin < 8
    assert "no greeting within 5 s" in hub.log
    assert is_alive(hub)


def test_a_large_first_frame_is_cut_before_the_greeting(hub: HubProcess) -> None:
    with socket.socket(socket.AF_UNIX) as peer:
        peer.connect(hub.path)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            peer.sendall(b"\xc6\x03\xff\xff\xff" + bytes(1024 * 1024))  # the begin of 64 MiB of bytes
        assert is_cut(peer)
    assert "larger than the limit" in hub.log


def test_a_frame_that_is_not_finished_is_given_up(strict_hub: HubProcess) -> None:
    with greet(strict_hub) as peer:
        peer.sendall(codec.pack((frames.SEND, 1, "a", bytes(1000), None))[:-1])
        assert is_cut(peer)
    assert "sent nothing more of a frame for 1 s" in strict_hub.log
    assert is_alive(strict_hub)


def test_a_frame_that_goes_on_growing_in_small_pieces_is_cut_at_the_limit(hub: HubProcess) -> None:
    with greet(hub) as peer:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            peer.sendall(b"\xdd\x00\x00\xff\xff")  # a list, of lists, of lists
            for _ in range(1200):
                peer.sendall(b"\xdc\xff\xff" + b"\xc0" * 65535)
        assert is_cut(peer)
    assert "larger than the limit" in hub.log
    assert is_alive(hub)


def test_a_client_that_reads_nothing_is_given_up_and_the_others_are_served(strict_hub: HubProcess) -> None:
    layer = IPCChannelLayer(strict_hub.address, capacity=100_000)
    with greet(strict_hub) as peer:
        for number in range(5):
            peer.sendall(codec.pack((frames.RECEIVE, number, [f"never{number}"], True, None)))
        wait_until(lambda: layer.statistics()["connections"] == 2)
        for number in range(5):  # less than the bound on bytes: it is the time that counts
            layer.send(f"never{number}", {"data": bytes(500_000)})
        wait_until(lambda: layer.statistics()["connections_cut_count"] == 1, timeout=10)
        assert is_cut(peer)
    assert (
        "raw client (pid 7) does not read or write; its connection is cut: it has read nothing for 1 s"
        in strict_hub.log
    )
    layer.close()


def test_a_client_with_too_much_to_read_is_cut_at_once(strict_hub: HubProcess) -> None:
    layer = IPCChannelLayer(strict_hub.address, capacity=100_000)
    with greet(strict_hub) as peer:
        for number in range(8):
            peer.sendall(codec.pack((frames.RECEIVE, number, [f"never{number}"], True, None)))
        wait_until(lambda: layer.statistics()["connections"] == 2)
        for number in range(8):
            layer.send(f"never{number}", {"data": bytes(2_000_000)})
        assert layer.statistics()["connections_cut_count"] == 1
        assert is_cut(peer)
    assert "bytes to read" in strict_hub.log
    layer.close()


def test_a_client_that_reads_slowly_is_not_cut(strict_hub: HubProcess) -> None:
    layer = IPCChannelLayer(strict_hub.address, capacity=100_000)
    with greet(strict_hub) as peer:
        for number in range(3):
            peer.sendall(codec.pack((frames.RECEIVE, number, [f"slow{number}"], True, None)))
        wait_until(lambda: layer.statistics()["connections"] == 2)
        for number in range(3):
            layer.send(f"slow{number}", {"data": bytes(1_000_000)})
        unpacker = codec.Unpacker(10_000_000)
        answers: list[object] = []

        def has_all() -> bool:
            unpacker.feed(peer.recv(20_000))
            answers.extend(unpacker.frames())
            return len(answers) == 4

        wait_until(has_all, timeout=20)
    assert layer.statistics()["connections_cut_count"] == 0
    layer.close()


def test_connections_past_the_bound_are_refused_with_one_line_a_second(strict_hub: HubProcess) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(8):
            stack.enter_context(greet(strict_hub)).recv(1000)
        for _ in range(20):
            with socket.socket(socket.AF_UNIX) as peer:
                peer.connect(strict_hub.path)
                assert is_cut(peer)
        assert 1 <= strict_hub.log.count("a connection was refused: the channel layer has 8") <= 4
    wait_until(lambda: is_alive(strict_hub))


def test_real_nonsense_over_many_connections_disturbs_nobody(hub: HubProcess) -> None:
    generator = random.Random(11)
    assert hub.process is not None
    layer = IPCChannelLayer(hub.address)
    for round_number in range(300):
        role = generator.choice(["client", "worker", "watcher"])
        with greet(hub, role) as peer:
            data = b"".join(codec.pack(nonsense(generator, role)) for _ in range(generator.randrange(1, 30)))
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                peer.sendall(data[: generator.randrange(len(data)) + 1])
        if round_number % 50 == 0:
            layer.group_add("quiet", f"member{round_number}")  # a flush may be among the nonsense
            assert layer.group_channels("quiet") in ([], [f"member{round_number}"])
            layer.group_discard("quiet", f"member{round_number}")
    wait_until(lambda: layer.statistics()["connections"] == 1, timeout=20)
    assert hub.process.poll() is None
    assert "Traceback" not in hub.log
    layer.close()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
def test_a_process_of_another_user_is_refused_although_it_can_reach_the_socket(hub: HubProcess) -> None:
    Path(hub.path).chmod(0o777)
    for directory in (Path(hub.path).parent, *Path(hub.path).parent.parents):
        if directory.stat().st_uid == os.getuid() and directory != Path("/"):
            directory.chmod(directory.stat().st_mode | 0o011)
    code = (
        "import os, socket, sys\n"
        "os.setgid(65534); os.setuid(65534)\n"
        "peer = socket.socket(socket.AF_UNIX)\n"
        "peer.connect(sys.argv[1])\n"
        "peer.settimeout(10)\n"
        "try:\n"
        "    data = peer.recv(100)\n"
        "except ConnectionResetError:\n"
        "    data = b''\n"
        "print('refused' if data == b'' else data)\n"
    )
    found = subprocess.run([sys.executable, "-I", "-c", code, hub.path], capture_output=True, text=True, timeout=30)
    assert found.stdout == "refused\n", found.stderr
    assert "a process of another user tried to connect and was refused" in hub.log
    assert is_alive(hub)


def test_descriptors_suffice_for_the_connections(hub: HubProcess) -> None:
    assert hub.process is not None
    soft, hard = resource.prlimit(hub.process.pid, resource.RLIMIT_NOFILE)
    assert soft >= min(hard, 4096)
