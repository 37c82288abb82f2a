"""A hub on a thread of its own."""

from pathlib import Path

import pytest

from procman.errors import ConfigurationError
from procman.layers.errors import LayerUnavailable
from procman.layers.ipc import IPCChannelLayer
from procman.layers.ipc.embedded import HubThread


def test_clients_meet_in_it_until_it_is_stopped(tmp_path: Path) -> None:
    address = f"ipc://{tmp_path}/hub.sock"
    hub = HubThread(address)
    assert hub.is_needed()
    hub.start()
    assert not HubThread(address).is_needed()
    one, two = IPCChannelLayer(address), IPCChannelLayer(address, connect_timeout=0.1)
    one.send("chat", {"text": "hello"})
    assert two.receive_many(["chat"]) == ("chat", {"text": "hello"})
    one.close()
    hub.stop()
    assert hub.is_needed() and not (tmp_path / "hub.sock").exists()
    with pytest.raises(LayerUnavailable):
        two.send("chat", {"text": "hello"})
    two.close()


def test_a_second_hub_at_the_same_address_is_refused(tmp_path: Path) -> None:
    hub = HubThread(f"ipc://{tmp_path}/hub.sock")
    hub.start()
    try:
        with pytest.raises(ConfigurationError, match="already running"):
            HubThread(hub.address).start()
    finally:
        hub.stop()


def test_only_ipc_addresses_have_a_hub() -> None:
    with pytest.raises(ConfigurationError, match="ipc://"):
        HubThread("redis://localhost:6379/0")


def test_a_hub_that_was_never_started_may_be_stopped(tmp_path: Path) -> None:
    HubThread(f"ipc://{tmp_path}/hub.sock").stop()
