import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from procman.errors import ConfigurationError
from procman.supervision.errors import AlreadyRunning, PortInUse
from procman.supervision.listeners import (
    Lock,
    activated_fds,
    inherited_listener,
    listen_tcp,
    listen_tcp_shared,
    listen_unix,
)


def test_port_0_lets_the_system_choose() -> None:
    with listen_tcp("127.0.0.1", 0) as listener:
        host, port = listener.getsockname()
        assert host == "127.0.0.1" and port > 0
        with socket.create_connection((host, port), 5):
            pass


def test_a_port_in_use_says_what_to_do() -> None:
    with listen_tcp("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(PortInUse, match=f"port {port} on 127.0.0.1 is in use: .* --port"):
            listen_tcp("127.0.0.1", port)


def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="--bind"):
        listen_tcp("192.0.2.1", 0)
    with pytest.raises(ConfigurationError, match="--bind"):
        listen_tcp("no such host", 0)


def test_a_dead_socket_is_replaced_and_the_new_one_is_the_users_alone(tmp_path: Path) -> None:
    path = tmp_path / "s"
    listen_unix(str(path)).close()
    with listen_unix(str(path)):
        assert path.stat().st_mode & 0o777 == 0o600
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))


def test_a_directory_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no/s: No such file"):
        listen_unix(str(tmp_path / "no" / "s"))
    with pytest.raises(ConfigurationError, match=r"no/l: No such file"):
        Lock(str(tmp_path / "no" / "l"), "ipc://x")


def test_a_lock_is_held_by_one_process_which_it_names(tmp_path: Path) -> None:
    path = str(tmp_path / "lock")
    lock = Lock(path, "ipc:///x.sock")
    with pytest.raises(AlreadyRunning, match=rf"already running \(pid {os.getpid()}\)") as error:
        Lock(path, "ipc:///x.sock")
    assert error.value.pid == os.getpid()
    assert "--layer ipc:///other/path.sock" in str(error.value)
    lock.release()
    assert not Path(path).exists()
    Lock(path, "ipc:///x.sock").release()


def test_a_lock_ends_with_its_process_however_that_ends(tmp_path: Path) -> None:
    path = str(tmp_path / "lock")
    code = (
        "import os, sys\nfrom procman.supervision.listeners import Lock\nLock(sys.argv[1], ''); os.kill(os.getpid(), 9)"
    )
    root = Path(__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code, path], cwd=root, check=False).returncode == -9
    assert Path(path).exists()
    Lock(path, "").release()


def test_a_lock_does_not_follow_links(tmp_path: Path) -> None:
    (tmp_path / "lock").symlink_to(tmp_path / "target")
    with pytest.raises(ConfigurationError):
        Lock(str(tmp_path / "lock"), "")
    assert not (tmp_path / "target").exists()


def test_a_listening_socket_is_taken_over_and_kept_private() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        fd = os.dup(server.fileno())
        os.set_inheritable(fd, True)
        with inherited_listener(fd) as listener:
            assert listener.getsockname() == server.getsockname()
            assert not listener.get_inheritable()


def test_what_does_not_listen_is_refused(tmp_path: Path) -> None:
    with socket.socket() as client, pytest.raises(ConfigurationError, match="does not listen"):
        inherited_listener(client.fileno())
    with (tmp_path / "file").open("w") as file, pytest.raises(ConfigurationError, match="is no socket"):
        inherited_listener(file.fileno())
    with pytest.raises(ConfigurationError, match="is no socket"):
        inherited_listener(9999)


def test_a_shared_port_is_refused_where_another_program_has_it_alone_or_shared() -> None:
    with listen_tcp("127.0.0.1", 0) as alone, pytest.raises(PortInUse):
        listen_tcp_shared("127.0.0.1", alone.getsockname()[1], 2)
    shared = listen_tcp_shared("127.0.0.1", 0, 2)
    with pytest.raises(PortInUse):
        listen_tcp_shared("127.0.0.1", shared[0].getsockname()[1], 2)
    for listener in shared:
        listener.close()


def test_sockets_of_systemd_are_those_from_3_on_if_they_are_for_this_process() -> None:
    assert activated_fds({"LISTEN_PID": "42", "LISTEN_FDS": "2"}, 42) == [3, 4]
    assert activated_fds({"LISTEN_PID": "41", "LISTEN_FDS": "2"}, 42) == []
    assert activated_fds({}, 42) == []
    with pytest.raises(ConfigurationError, match="LISTEN_FDS is 'x'"):
        activated_fds({"LISTEN_PID": "42", "LISTEN_FDS": "x"}, 42)
