"""The thread that hears the hub while the others work, at real hubs."""

from typing import Any

import pytest

from procman.layers import codec
from procman.layers.errors import LayerUnavailable
from procman.layers.ipc import frames
from procman.layers.ipc.connection import Connection, connect
from procman.layers.ipc.watcher import Watcher
from procman.layers.limits import Limits
from procman.layers.wake import WakePipe
from tests.support.layers import HubProcess
from tests.support.waiting import wait_until


def test_a_watcher_reports_to_every_hub_and_hands_on_what_it_hears(hub: HubProcess) -> None:
    hubs: list[str] = []
    heard: list[Any] = []

    def open_connection(wake: WakePipe) -> Connection:
        hello = frames.build_hello(frames.WATCHER, Limits(), None, None, "a process")
        return connect(hub.path, hub.address, hello, 1000, 5.0, wake)

    def report(connection: Connection) -> None:
        hubs.append(connection.hub_id)
        connection.write(codec.pack((frames.FLUSH, len(hubs))))

    watcher = Watcher(open_connection, report, lambda _, frame: heard.append(frame))
    wait_until(lambda: heard == [[frames.OK, 1, None]])
    hub.kill()
    hub.start()
    wait_until(lambda: heard[1:] == [[frames.OK, 2, None]])
    assert len(set(hubs)) == 2
    watcher.stop()
    assert not watcher._thread.is_alive()


@pytest.mark.parametrize("error", [LayerUnavailable("nobody"), OSError("no more descriptors")])
def test_a_watcher_tries_again_after_a_failure_and_stops_when_told(error: Exception) -> None:
    attempts: list[WakePipe] = []

    def fail(wake: WakePipe) -> Connection:
        attempts.append(wake)
        raise error

    watcher = Watcher(fail, lambda _: None, lambda _, frame: None)
    wait_until(lambda: len(attempts) >= 2)
    watcher.stop()
    assert not watcher._thread.is_alive()
