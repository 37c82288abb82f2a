"""The contract of the blocking client over every way to set Redis up: Valkey, TLS, Sentinel, all of it encrypted."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any, ClassVar

import pytest

from procman.layers.redis import RedisChannelLayer
from tests.layers.conformance import ConformanceSuite, Make, WorkerSuite
from tests.support.redis import RedisServer, running_redis, running_sentinels, running_tls

pytestmark = pytest.mark.slow
KEYS = ["the key that encrypts", "the key before"]


class Setup(ConformanceSuite, WorkerSuite):
    """A class per set-up: ``begin`` starts what the layer is made for."""

    begin: ClassVar[Callable[[], AbstractContextManager[Any]]]

    @pytest.fixture(scope="class")
    @classmethod
    def started(cls) -> Iterator[Any]:
        with cls.begin() as started:
            yield started

    @pytest.fixture
    def make(self, started: Any) -> Iterator[Make]:
        made: list[RedisChannelLayer] = []
        server: RedisServer = getattr(started, "master", started)
        server.client.flushall()

        def make(**options: Any) -> RedisChannelLayer:
            made.append(RedisChannelLayer(started.url, symmetric_encryption_keys=KEYS, **options))
            return made[-1]

        yield make
        for layer in made:
            layer.close()


class TestValkey(Setup):
    begin = staticmethod(lambda: running_redis("valkey-server"))


class TestTLS(Setup):
    begin = staticmethod(running_tls)


class TestSentinel(Setup):
    begin = staticmethod(running_sentinels)
