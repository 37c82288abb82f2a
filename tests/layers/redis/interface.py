"""An interface server as the Redis layer sees it."""

from typing import Any

from procman.layers.redis.aio import AsyncRedisLayer
from tests.support.layers import RecordingInterface


class RedisInterface(RecordingInterface):
    """Records what it hears."""

    def __init__(self, address: str | None, **options: Any) -> None:
        super().__init__(AsyncRedisLayer(address, **options))

    def abandon(self) -> None:
        """End as a killed process does: silently."""
        self.layer._serving.link = None  # no goodbye
        self.close()
