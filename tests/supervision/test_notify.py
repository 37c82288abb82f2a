import os
import socket
from pathlib import Path

import pytest

from procman.supervision.notify import READY, notify


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
