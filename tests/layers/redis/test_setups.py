"""The contract of both clients over every way to set Redis up: Valkey, TLS, Sentinel, all of it encrypted."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any, ClassVar

import pytest

from procman.layers.redis import RedisChannelLayer
from procman.layers.redis.aio import AsyncRedisLayer
from tests.layers.conformance import Blocking, ConformanceSuite, Make, WorkerSuite
from tests.layers.conformance_interface import InterfaceSuite, MakeInterface
from tests.layers.redis.interface import RedisInterface
from tests.support.layers import LoopThread
from tests.support.redis import RedisServer, running_redis, running_sentinels, running_tls

pytestmark = pytest.mark.slow
KEYS = ["the key that encrypts", "the key before"]


class Setup:
    """A way to set Redis up: ``begin`` starts what the layers are made for."""

    begin: ClassVar[Callable[[], AbstractContextManager[Any]]]

    @pytest.fixture(scope="class")
    @classmethod
    def started(cls) -> Iterator[Any]:
        with cls.begin() as started:
            yield started

    @pytest.fixture
    def options(self, started: Any) -> dict[str, Any]:
        server: RedisServer = getattr(started, "master", started)
        server.client.flushall()
        return {"address": started.url, "symmetric_encryption_keys": KEYS}


class BlockingClient(Setup, ConformanceSuite, WorkerSuite):
    @pytest.fixture
    def make(self, options: dict[str, Any]) -> Iterator[Make]:
        made: list[RedisChannelLayer] = []

        def make(**more: Any) -> RedisChannelLayer:
            made.append(RedisChannelLayer(**options, **more))
            return made[-1]

        yield make
        for layer in made:
            layer.close()


class AsyncClient(Setup, ConformanceSuite):
    @pytest.fixture
    def make(self, options: dict[str, Any]) -> Iterator[Make]:
        made: list[AsyncRedisLayer] = []
        loop = LoopThread()

        def make(**more: Any) -> Blocking:
            layer = AsyncRedisLayer(**options, **more)
            loop.run(layer.connect(10))
            made.append(layer)
            return Blocking(layer, loop)

        yield make
        for layer in made:
            loop.run(layer.close())
        loop.close()


class Interface(Setup, InterfaceSuite):
    @pytest.fixture
    def make(self, options: dict[str, Any]) -> Iterator[Make]:
        made: list[RedisChannelLayer] = []

        def make(**more: Any) -> RedisChannelLayer:
            made.append(RedisChannelLayer(**options, **more))
            return made[-1]

        yield make
        for layer in made:
            layer.close()

    @pytest.fixture
    def make_interface(self, options: dict[str, Any]) -> Iterator[MakeInterface]:
        made: list[RedisInterface] = []

        def make_interface(**more: Any) -> RedisInterface:
            made.append(RedisInterface(**options, lease=0.5, **more))
            return made[-1]

        yield make_interface
        for interface in made:
            interface.close()


class TestValkey(BlockingClient):
    begin = staticmethod(lambda: running_redis("valkey-server"))


class TestTLS(BlockingClient):
    begin = staticmethod(running_tls)


class TestSentinel(BlockingClient):
    begin = staticmethod(running_sentinels)


class TestAsyncSentinel(AsyncClient):
    begin = staticmethod(running_sentinels)


class TestInterfaceOverSentinel(Interface):
    begin = staticmethod(running_sentinels)
