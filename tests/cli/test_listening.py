"""Which sockets a command listens on."""

import os
import socket
from pathlib import Path

import pytest

from procman.cli.listening import open_listeners
from procman.errors import ConfigurationError
from procman.settings import SupervisorSettings


def settings(**values: object) -> SupervisorSettings:
    return SupervisorSettings.load({}, **({"port": 0} | values))


def test_a_port_is_listened_on_once_for_one_interface_and_shared_by_several() -> None:
    one = open_listeners(settings(), (), {})
    assert len(one.sockets) == 1 and one.url() == f"http://127.0.0.1:{one.sockets[0].getsockname()[1]}/"
    one.close()
    three = open_listeners(settings(interfaces=3), (), {})
    assert len(three.sockets) == 3 and all(len(each) == 1 for each in three.each)
    assert len({listener.getsockname() for listener in three.sockets}) == 1
    assert three.url("https").startswith("https://127.0.0.1:")
    three.close()
    assert all(listener.fileno() == -1 for listener in [*three.each[0], *three.each[2]])


def test_an_address_of_ip_6_is_in_brackets() -> None:
    listening = open_listeners(settings(bind="::1"), (), {})
    assert listening.url().startswith("http://[::1]:")
    listening.close()


def test_a_unix_socket_has_its_mode_is_shared_and_removed_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "http.sock"
    listening = open_listeners(settings(bind=f"unix:{path}", socket_mode="660", interfaces=2), (), {})
    assert path.stat().st_mode & 0o777 == 0o660
    assert len(listening.sockets) == 1 and listening.each[0] == listening.each[1]
    assert listening.url() == f"unix:{path}"
    listening.close()
    assert not path.exists()


@pytest.mark.parametrize("mode", ["abc", "888", "060", "1777", "-1", ""])
def test_permissions_that_make_no_sense_are_refused(tmp_path: Path, mode: str) -> None:
    with pytest.raises(ConfigurationError, match="--socket-mode is"):
        open_listeners(settings(bind=f"unix:{tmp_path}/s", socket_mode=mode), (), {})
    assert not (tmp_path / "s").exists()


def test_a_path_that_is_relative_taken_or_no_socket_is_refused_and_nothing_lost(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="absolute path"):
        open_listeners(settings(bind="unix:http.sock"), (), {})
    file = tmp_path / "precious"
    file.write_text("data")
    with pytest.raises(ConfigurationError, match="no socket is in the way"):
        open_listeners(settings(bind=f"unix:{file}"), (), {})
    assert file.read_text() == "data"
    taken = open_listeners(settings(bind=f"unix:{tmp_path}/s"), (), {})
    with pytest.raises(ConfigurationError, match="another process listens"):
        open_listeners(settings(bind=f"unix:{tmp_path}/s"), (), {})
    taken.close()


def test_descriptors_that_are_given_are_served_by_every_interface() -> None:
    with socket.create_server(("127.0.0.1", 0)) as first, socket.create_server(("127.0.0.1", 0)) as second:
        fds = (os.dup(first.fileno()), os.dup(second.fileno()))
        listening = open_listeners(settings(interfaces=2), fds, {})
        assert [listener.fileno() for listener in listening.sockets] == list(fds)
        assert listening.each[0] == listening.each[1]
        assert listening.url() == f"http://127.0.0.1:{first.getsockname()[1]}/"
        listening.close()


def test_sockets_of_systemd_that_are_meant_for_another_process_are_left_alone() -> None:
    listening = open_listeners(settings(), (), {"LISTEN_FDS": "1", "LISTEN_PID": "1"})
    assert listening.sockets[0].fileno() != 3
    listening.close()
