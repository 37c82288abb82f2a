"""Other routes for a while: on which layers, how long, and around what."""

import inspect
import unittest
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured

from procman.channels import channel_layers, route
from procman.channels.asgi import ChannelLayerWrapper
from procman.channels.test import ChannelTestCase, Client, apply_routes
from tests.channels.layer import RecordingLayer
from tests.channels.test.test_base import assert_passed, run_test

pytestmark = pytest.mark.usefixtures("_migrated")


def one(message: Any) -> str:
    return "one"


def two(message: Any) -> str:
    return "two"


def consumer_of(channel: str, alias: str = "default") -> Any:
    return Client(alias).get_consumer_by_channel(channel)


@pytest.mark.parametrize(
    ("routes", "expected"),
    [
        (route("one", one), {"one": one, "two": None}),
        ([route("one", one), route("two", two)], {"one": one, "two": two}),
        ([[route("one", one)], [route("two", two)]], {"one": one, "two": two}),
        ([[route("one", one)], route("two", two)], {"one": one, "two": two}),
        ({"one": one}, {"one": one, "two": None}),
        ("tests.channels.test.test_routes.ROUTING", {"one": None, "two": two}),
        ([], {"one": None, "two": None}),
    ],
)
def test_routes_may_be_one_or_a_list_or_a_list_of_lists(
    wrapper: ChannelLayerWrapper, routes: Any, expected: dict[str, Any]
) -> None:
    before = wrapper.routing, wrapper.router
    with apply_routes(routes):
        assert {channel: consumer_of(channel) for channel in expected} == expected
    assert (wrapper.routing, wrapper.router) == before


ROUTING = [route("two", two)]


def test_only_the_named_aliases_are_patched(layer: RecordingLayer) -> None:
    channel_layers.set("second", ChannelLayerWrapper(layer, "second", []))
    try:
        for aliases in (["second"], "second"):
            with apply_routes([route("one", one)], aliases=aliases):
                assert consumer_of("one", "second") is one
                assert consumer_of("one") is None
            assert consumer_of("one", "second") is None
        with apply_routes([route("one", one)], ["default", "second"]):
            assert consumer_of("one", "second") is consumer_of("one") is one
    finally:
        channel_layers.set("second", None)


def test_routes_go_when_the_block_fails(wrapper: ChannelLayerWrapper) -> None:
    with pytest.raises(RuntimeError), apply_routes(route("one", one)):
        raise RuntimeError
    assert consumer_of("one") is None


def test_what_is_no_routing_changes_nothing(wrapper: ChannelLayerWrapper) -> None:
    before = wrapper.router
    with pytest.raises(ImproperlyConfigured), apply_routes(["no route"]):
        raise AssertionError("entered")
    assert wrapper.router is before


def test_inner_routes_hide_outer_ones_until_they_end(wrapper: ChannelLayerWrapper) -> None:
    with apply_routes(route("one", one)):
        with apply_routes(route("two", two)):
            assert (consumer_of("one"), consumer_of("two")) == (None, two)
        assert (consumer_of("one"), consumer_of("two")) == (one, None)


def test_decorated_function_has_the_routes_also_when_it_calls_itself(wrapper: ChannelLayerWrapper) -> None:
    @apply_routes(route("one", one))
    def check(depth: int) -> int:
        """What it checks."""
        if depth:
            check(depth - 1)
        assert consumer_of("one") is one
        return depth

    assert check(2) == 2
    assert check.__doc__ == "What it checks."
    assert consumer_of("one") is None


def test_decorated_coroutine_has_the_routes_while_it_runs(wrapper: ChannelLayerWrapper) -> None:
    @apply_routes(route("one", one))
    async def check() -> Any:
        return consumer_of("one")

    assert inspect.iscoroutinefunction(check)
    coroutine = check()
    assert consumer_of("one") is None
    with pytest.raises(StopIteration) as result:
        coroutine.send(None)
    assert result.value.value is one


def test_decorated_case_and_its_subclasses_have_the_routes(wrapper: ChannelLayerWrapper) -> None:
    @apply_routes([route("one", one)])
    class Case(ChannelTestCase):
        @classmethod
        def setUpTestData(cls) -> None:
            cls.in_class = consumer_of("one")

        def test(self) -> None:
            self.assertIs(consumer_of("one"), one)
            self.assertIs(self.in_class, one)

    class SubCase(Case):
        def setUp(self) -> None:
            """Without super()."""

        @apply_routes([route("two", two)])
        def test_with_routes_of_its_own(self) -> None:
            self.assertEqual((consumer_of("one"), consumer_of("two")), (None, two))

    assert_passed(run_test(Case))
    assert_passed(run_test(SubCase))
    assert_passed(run_test(SubCase, "test_with_routes_of_its_own"))
    assert consumer_of("one") is None


def test_routes_of_a_case_go_when_its_set_up_fails(wrapper: ChannelLayerWrapper) -> None:
    @apply_routes([route("one", one)])
    class Case(unittest.TestCase):
        @classmethod
        def setUpClass(cls) -> None:
            assert consumer_of("one") is one
            raise RuntimeError("fails")

        def test(self) -> None: ...

    assert len(run_test(Case).errors) == 1
    assert consumer_of("one") is None


def test_class_that_is_no_test_case_is_refused() -> None:
    with pytest.raises(TypeError, match="Plain is neither"):

        @apply_routes([])
        class Plain: ...
