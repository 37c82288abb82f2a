"""Class-based consumers, at their 1.x names."""

from procman.channels.generic.base import BaseConsumer

__all__ = ["BaseConsumer"]
