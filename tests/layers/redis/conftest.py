"""Redis servers of the tests' own, and layers that reach them."""

from collections.abc import Iterator
from typing import Any

import pytest

from procman.layers.redis import RedisChannelLayer
from tests.layers.conformance import Make
from tests.support.redis import RedisServer, running_redis


@pytest.fixture(scope="session")
def shared_redis() -> Iterator[RedisServer]:
    """One server for all tests that leave it alive."""
    with running_redis() as server:
        yield server


@pytest.fixture
def server() -> Iterator[RedisServer]:
    """A server of this test's own, which may be stopped."""
    with running_redis() as server:
        yield server


@pytest.fixture
def make(shared_redis: RedisServer) -> Iterator[Make]:
    """Blocking layers at the shared server, which is emptied first."""
    made: list[RedisChannelLayer] = []
    shared_redis.client.flushall()

    def make(**options: Any) -> RedisChannelLayer:
        layer = RedisChannelLayer(shared_redis.unix_url, **options)
        made.append(layer)
        return layer

    yield make
    for layer in made:
        layer.close()


@pytest.fixture
def layer(make: Make) -> Any:
    return make()
