"""A channel layer over Redis or Valkey, where several hosts take part."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from procman.layers.redis.sync import RedisChannelLayer

__all__ = ["RedisChannelLayer"]


def __getattr__(name: str) -> Any:
    # Who only asks whether an address is a Redis server's does not pay for its client.
    if name != "RedisChannelLayer":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from procman.layers.redis.sync import RedisChannelLayer

    return RedisChannelLayer
