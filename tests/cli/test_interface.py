import os
import socket
from pathlib import Path

import pytest

from procman.cli.interface import inherited_listener
from procman.errors import ConfigurationError


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
