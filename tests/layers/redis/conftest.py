"""Redis servers of the tests' own, and layers that reach them."""

from collections.abc import Iterator
from typing import Any

import pytest

from procman.layers.redis import RedisChannelLayer
from tests.layers.conformance import Make
from tests.layers.redis.server import RedisProcess


@pytest.fixture(scope="session")
def shared_redis() -> Iterator[RedisProcess]:
    """One server for all tests that leave it alive."""
    server = RedisProcess().start()
    yield server
    server.close()


@pytest.fixture
def server() -> Iterator[RedisProcess]:
    """A server of this test's own, which may be stopped."""
    server = RedisProcess().start()
    yield server
    server.close()


@pytest.fixture
def make(shared_redis: RedisProcess) -> Iterator[Make]:
    """Blocking layers at the shared server, which is emptied first."""
    made: list[RedisChannelLayer] = []
    shared_redis.call("FLUSHALL")

    def make(**options: Any) -> RedisChannelLayer:
        layer = RedisChannelLayer(shared_redis.address, **options)
        made.append(layer)
        return layer

    yield make
    for layer in made:
        layer.close()


@pytest.fixture
def layer(make: Make) -> Any:
    return make()
