"""Test cases whose channel layers are empty and in memory; also the 1.x place of ``Client`` and ``apply_routes``.

The layers of the settings are never reached: neither by a test nor by the set-up of its class. Each test has layers of
its own, with the routing of the settings.
"""

from __future__ import annotations

import unittest
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from django.test import SimpleTestCase, TestCase, TransactionTestCase

from procman.channels import DEFAULT_CHANNEL_LAYER
from procman.channels.asgi import ChannelLayerWrapper, channel_layers
from procman.channels.message import Message
from procman.channels.test.client import Client
from procman.channels.test.routes import apply_routes
from procman.layers.memory import InMemoryChannelLayer

__all__ = ["ChannelTestCase", "ChannelTestCaseMixin", "Client", "TransactionChannelTestCase", "apply_routes"]

# Small, as in 1.x: a test that never reads what its consumers send is told so.
CAPACITY = 10

if TYPE_CHECKING:
    _Base = SimpleTestCase
else:
    _Base = object


@contextmanager
def _empty_layers(aliases: Iterable[str]) -> Iterator[None]:
    """Fresh layers in memory in the place of those of *aliases*. Raises InvalidChannelLayerError for no alias."""
    before: dict[str, ChannelLayerWrapper] = {}
    try:
        for alias in aliases:
            wrapper = before[alias] = channel_layers[alias]
            routing = list(wrapper.routing) if isinstance(wrapper.routing, list | tuple) else wrapper.routing
            fresh = ChannelLayerWrapper(InMemoryChannelLayer(capacity=CAPACITY), alias, routing)
            channel_layers.set(alias, fresh)
        yield
    finally:
        for alias, wrapper in before.items():
            channel_layers.set(alias, wrapper)


class ChannelTestCaseMixin(_Base):
    """Gives a Django test case empty channel layers: one set for its class, and another one for each test.

    ``test_channel_aliases`` are the layers that the tests use.
    """

    test_channel_aliases: Sequence[str] = [DEFAULT_CHANNEL_LAYER]

    @classmethod
    def setUpClass(cls) -> None:
        """Put layers in place for ``setUpTestData`` and fixtures, whose saves may send."""
        cls.enterClassContext(_empty_layers(cls.test_channel_aliases))
        super().setUpClass()

    # Not setUp, which test cases override, and not _pre_setup, which is Django's own business.
    def run(self, result: unittest.TestResult | None = None) -> unittest.TestResult | None:
        """Run the test with layers of its own."""
        with _empty_layers(self.test_channel_aliases):
            outcome: unittest.TestResult | None = super().run(result)
            return outcome

    def debug(self) -> None:
        """As ``run``, but let errors through."""
        with _empty_layers(self.test_channel_aliases):
            super().debug()

    def get_next_message(
        self, channel: str, alias: str = DEFAULT_CHANNEL_LAYER, require: bool = False
    ) -> Message | None:
        """The next message that was sent to *channel*; without one None, or with *require* a failed test."""
        name, content = channel_layers[alias].receive_many([channel])
        if name is None:
            if require:
                self.fail(f"Expected a message on channel {channel}, got none")
            return None
        return Message(content, name, channel_layers[alias])


class ChannelTestCase(ChannelTestCaseMixin, TestCase):
    """Django's ``TestCase`` with empty channel layers.

    Its transaction is never committed, so sends with ``on_commit`` stay away, as everything that waits for a commit:
    ``with self.captureOnCommitCallbacks(execute=True):`` around the consumer lets them out.
    """


class TransactionChannelTestCase(ChannelTestCaseMixin, TransactionTestCase):
    """Django's ``TransactionTestCase`` with empty channel layers: commits are real here."""
