"""The test cases: empty layers per class and per test, and what surrounds them."""

import unittest
from typing import Any

import pytest
from django.db import connection, transaction
from django.test import SimpleTestCase

import procman.channels.tests
from procman.channels import Channel, channel_layers, route, test
from procman.channels.asgi import ChannelLayerWrapper, InvalidChannelLayerError
from procman.channels.test import ChannelTestCase, Client, TransactionChannelTestCase
from procman.channels.test.base import CAPACITY, ChannelTestCaseMixin
from procman.layers.errors import ChannelFull
from procman.layers.memory import InMemoryChannelLayer
from tests.channels.layer import RecordingLayer

pytestmark = pytest.mark.usefixtures("_migrated")


def run_test(case: type[unittest.TestCase], name: str = "test") -> unittest.TestResult:
    """Run one test of *case* with the set-up of its class, as a runner does."""
    result = unittest.TestResult()
    unittest.TestSuite([case(name)]).run(result)
    assert result.testsRun or result.errors
    return result


def assert_passed(result: unittest.TestResult) -> None:
    assert not result.errors + result.failures, (result.errors + result.failures)[0][1]


def test_layers_of_the_settings_are_neither_read_nor_written(layer: RecordingLayer) -> None:
    seen: list[Any] = []

    class Case(ChannelTestCase):
        @classmethod
        def setUpTestData(cls) -> None:
            Channel("of.the.class").send({"a": 1})
            seen.append(channel_layers["default"])

        def test(self) -> None:
            self.assertIsNone(self.get_next_message("of.the.class"))
            Channel("of.the.test").send({"a": 1})
            seen.append(channel_layers["default"])

    before = channel_layers["default"]
    assert_passed(run_test(Case))
    assert channel_layers["default"] is before and not layer.log
    assert len({id(wrapper) for wrapper in [before, *seen]}) == 3
    assert all(isinstance(wrapper.channel_layer, InMemoryChannelLayer) for wrapper in seen)


@pytest.mark.parametrize("base", [ChannelTestCase, TransactionChannelTestCase])
def test_layers_come_back_whatever_fails(layer: RecordingLayer, base: Any) -> None:
    before = channel_layers["default"]

    class BrokenClass(base):
        @classmethod
        def setUpClass(cls) -> None:
            if base is TransactionChannelTestCase:  # nothing would roll the transaction of the other one back
                super().setUpClass()
            raise RuntimeError("in the class")

        def test(self) -> None: ...

    class BrokenSetUp(base):
        def setUp(self) -> None:
            raise RuntimeError("in setUp, without super()")

        def test(self) -> None: ...

    class BrokenTest(base):
        def test(self) -> None:
            raise RuntimeError("in the test")

    for case in (BrokenClass, BrokenSetUp, BrokenTest):
        assert len(run_test(case).errors) == 1
        assert channel_layers["default"] is before


def test_layers_come_back_when_errors_are_let_through(layer: RecordingLayer) -> None:
    before = channel_layers["default"]

    class Case(ChannelTestCaseMixin, SimpleTestCase):
        def test(self) -> None:
            assert channel_layers["default"] is not before
            raise RuntimeError("in the test")

    with pytest.raises(RuntimeError, match="in the test"):
        Case("test").debug()
    assert channel_layers["default"] is before


def test_routing_of_the_settings_is_kept(layer: RecordingLayer) -> None:
    def consumer(message: Any) -> None: ...

    channel_layers.set("default", ChannelLayerWrapper(layer, "default", [route("chat", consumer)]))

    class Case(ChannelTestCase):
        def test(self) -> None:
            self.assertIs(Client().get_consumer_by_channel("chat"), consumer)

    assert_passed(run_test(Case))


def test_every_named_alias_gets_a_layer(layer: RecordingLayer) -> None:
    channel_layers.set("second", ChannelLayerWrapper(layer, "second", []))

    class Case(ChannelTestCase):
        test_channel_aliases = ["default", "second"]

        def test(self) -> None:
            Channel("chat", alias="second").send({"n": 1})
            self.assertIsNone(self.get_next_message("chat"))
            found = self.get_next_message("chat", alias="second", require=True)
            assert found is not None
            self.assertEqual((found["n"], found.channel.name), (1, "chat"))

    try:
        assert_passed(run_test(Case))
        assert not layer.log
    finally:
        channel_layers.set("second", None)


def test_unknown_alias_is_named() -> None:
    class Case(ChannelTestCase):
        test_channel_aliases = ["nowhere"]

        def test(self) -> None: ...

    ((_, text),) = run_test(Case).errors
    assert InvalidChannelLayerError.__name__ in text and "'nowhere'" in text


class GetNextMessageTests(ChannelTestCase):
    def test_without_a_message_it_is_none_or_a_failed_test(self) -> None:
        self.assertIsNone(self.get_next_message("chat"))
        with self.assertRaisesRegex(self.failureException, "Expected a message on channel chat, got none"):
            self.get_next_message("chat", require=True)

    def test_each_channel_has_room_for_ten_messages(self) -> None:
        for number in range(CAPACITY):
            Channel("chat").send({"n": number})
        with self.assertRaises(ChannelFull):
            Channel("chat").send({"n": "one too many"})
        self.assertEqual(CAPACITY, 10)


class CommitTests(TransactionChannelTestCase):
    def test_commits_are_real(self) -> None:
        with transaction.atomic():
            Channel("chat").send({"n": 1}, on_commit=True)
            self.assertIsNone(self.get_next_message("chat"))
        self.assertIsNotNone(self.get_next_message("chat"))
        self.assertFalse(connection.in_atomic_block)


class CapturedCommitTests(ChannelTestCase):
    def test_sends_on_commit_leave_when_django_is_asked_to_play_the_commit(self) -> None:
        with self.captureOnCommitCallbacks(execute=True):
            Channel("chat").send({"n": 1}, on_commit=True)
            self.assertIsNone(self.get_next_message("chat"))
        self.assertIsNotNone(self.get_next_message("chat"))
        Channel("chat").send({"n": 2}, on_commit=True)
        self.assertIsNone(self.get_next_message("chat"))


def test_old_name_of_the_package_has_the_same_names() -> None:
    assert {name: getattr(procman.channels.tests, name) for name in test.__all__} == {
        name: getattr(test, name) for name in test.__all__
    }
