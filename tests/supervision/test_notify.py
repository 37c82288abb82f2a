import os
import socket
from pathlib import Path

import pytest

from procman.supervision.notify import READY, notify, watchdog_interval
from tests.support.supervised import kind, supervised


@pytest.mark.parametrize("is_abstract", [False, True])
def test_systemd_is_told_at_its_socket(tmp_path: Path, is_abstract: bool) -> None:
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as system:
        system.settimeout(5)
        system.bind("\0" + path if is_abstract else path)
        assert notify({"NOTIFY_SOCKET": f"@{path}" if is_abstract else path}, READY, "STATUS=ready")
        assert system.recv(1000).decode() == f"MAINPID={os.getpid()}\nREADY=1\nSTATUS=ready"


def test_nobody_is_told_where_nobody_listens(tmp_path: Path) -> None:
    assert not notify({}, READY)
    assert not notify({"NOTIFY_SOCKET": "no path"}, READY)
    assert notify({"NOTIFY_SOCKET": str(tmp_path / "gone")}, READY)


def test_systemd_says_how_often_it_wants_to_hear_that_all_is_well() -> None:
    assert watchdog_interval({"WATCHDOG_USEC": "30000000"}, 7) == 15.0
    assert watchdog_interval({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "7"}, 7) == 15.0
    assert watchdog_interval({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "8"}, 7) == 0.0
    assert watchdog_interval({}, 7) == watchdog_interval({"WATCHDOG_USEC": "x"}, 7) == 0.0


def test_a_supervisor_says_again_and_again_that_it_is_alive_and_its_children_know_nothing_of_it(tmp_path: Path) -> None:
    path = str(tmp_path / "notify")
    environ = {"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "200000"}
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as system:
        system.settimeout(10)
        system.bind(path)
        with supervised(tmp_path, kind("a", "environment"), environ=environ) as site:
            said = ""
            while said.count("WATCHDOG=1") < 4 or "READY=1" not in said:
                said += system.recv(1000).decode()
            site.find("PROCMAN_NAME=a.1")
            assert "NOTIFY_SOCKET" not in site.log and "WATCHDOG" not in site.log
            assert site.stop() == 0
