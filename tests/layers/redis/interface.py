"""An interface server as the Redis layer sees it."""

from procman.layers.redis.aio import AsyncRedisLayer
from tests.support.layers import RecordingInterface


class RedisInterface(RecordingInterface):
    """Records what it hears."""

    layer_class = AsyncRedisLayer

    def abandon(self) -> None:
        """End as a killed process does: silently."""
        self.layer._outbox.clear()
        self.layer._link = None  # no goodbye
        self.close()
