"""A channel layer over Redis or Valkey, where several hosts take part."""

from procman.layers.redis.sync import RedisChannelLayer

__all__ = ["RedisChannelLayer"]
