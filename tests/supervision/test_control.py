import socket
import threading
from pathlib import Path

import pytest

from procman.supervision import control
from procman.supervision.errors import NotRunning
from procman.supervision.listeners import listen_unix


def test_a_socket_that_nobody_serves_is_not_running(tmp_path: Path) -> None:
    path = str(tmp_path / "control")
    listen_unix(path).close()
    with pytest.raises(NotRunning) as error:
        control.call(path, "supervisor.getPID")
    assert error.value.path == path


def test_a_server_that_hangs_up_is_not_running(tmp_path: Path) -> None:
    path = str(tmp_path / "control")
    with listen_unix(path) as listener:

        def hang_up() -> None:
            connection: socket.socket = listener.accept()[0]
            connection.recv(65536)
            connection.close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        with pytest.raises(NotRunning):
            control.call(path, "supervisor.getPID")
        thread.join(5)
