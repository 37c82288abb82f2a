"""A hub process for the tests of this directory, and layers that reach it."""

from collections.abc import Iterator
from typing import Any

import pytest

from procman.layers.ipc import IPCChannelLayer
from tests.layers.conformance import Make
from tests.support.layers import HubProcess, running_hub


@pytest.fixture(scope="session")
def shared_hub() -> Iterator[HubProcess]:
    """One hub for all tests that leave it alive."""
    with running_hub() as hub:
        yield hub


@pytest.fixture
def hub() -> Iterator[HubProcess]:
    """A hub of this test's own, which may be killed."""
    with running_hub() as hub:
        yield hub


@pytest.fixture
def make(shared_hub: HubProcess) -> Iterator[Make]:
    """Blocking layers at the shared hub, which is flushed first."""
    made: list[IPCChannelLayer] = []

    def make(**options: Any) -> IPCChannelLayer:
        layer = IPCChannelLayer(shared_hub.address, **options)
        if not made:
            layer.flush()
        made.append(layer)
        return layer

    yield make
    for layer in made:
        layer.close()


@pytest.fixture
def layer(make: Make) -> Any:
    return make()
