"""First match wins; filters, prefixes and their named groups."""

import pytest
from django.core.exceptions import ImproperlyConfigured
from hypothesis import given
from hypothesis import strategies as st

from procman.channels.message import Message
from procman.channels.routing import (
    Include,
    Route,
    Router,
    connect_consumer,
    include,
    null_consumer,
    route,
    route_class,
)


def first(message, **kwargs):
    """A consumer."""


def second(message, **kwargs):
    """Another."""


class ClassConsumer:
    """A class-based one."""

    @staticmethod
    def channel_names():
        return {"foo", "bar"}


chat_routing = [route("websocket.connect", second, path=r"^/chat/(?P<room>[^/]+)/$")]
dict_routing = {"http.request": first}


def message(channel, **content):
    return Message(content, channel, None)


def match(routing, channel, **content):
    return Router(routing).match(message(channel, **content))


def test_the_first_match_wins():
    routing = [route("a", first), route("a", second)]
    assert match(routing, "a") == (first, {})


def test_an_unrouted_channel_matches_nothing():
    assert match([route("a", first)], "b") is None


@pytest.mark.parametrize("pattern", [r"^/x/(?P<n>\d+)$", rb"^/x/(?P<n>\d+)$"])
@pytest.mark.parametrize("value", ["/x/12", b"/x/12"])
def test_patterns_and_values_mix_str_and_bytes(pattern, value):
    assert match([route("a", first, path=pattern)], "a", path=value) == (first, {"n": "12"})
    inner = [route("a", first, path=rb"^(?P<n>\d+)$")]
    assert match([include(inner, path=pattern.split(b"(" if isinstance(pattern, bytes) else "(")[0])], "a", path=value)


def test_bytes_beyond_ascii_from_a_client_do_not_raise():
    assert match([route("a", first, query_string="^x=1")], "a", query_string=b"\xff\xfe") is None


def test_a_missing_or_empty_key_is_no_match():
    routing = [route("a", first, path=".*")]
    assert match(routing, "a") is None
    assert match(routing, "a", path=None) is None


@pytest.mark.parametrize("make", [lambda: route("a", first, path="^/(x)"), lambda: include([], path=b"^/(x)")])
def test_a_positional_group_is_refused_at_construction(make):
    with pytest.raises(ValueError, match="positional group"):
        make()


def test_all_filters_must_match_and_all_named_groups_are_passed():
    routing = [route("a", first, path="^/(?P<room>[a-z]+)", method="^(?P<verb>GET)$")]
    assert match(routing, "a", path="/red", method="GET") == (first, {"room": "red", "verb": "GET"})
    assert match(routing, "a", path="/red", method="POST") is None


@pytest.mark.parametrize("outer", ["^/ws/v(?P<version>[0-9]+)", "/ws/v(?P<version>[0-9]+)"])
@pytest.mark.parametrize("inner", ["^/chat/(?P<room>[^/]+)/$", "/chat/(?P<room>[^/]+)/$"])
def test_an_include_strips_its_prefix_and_merges_its_groups(outer, inner):
    routing = [include([route("a", first, path=inner)], path=outer)]
    assert match(routing, "a", path="/ws/v2/chat/django/") == (first, {"version": "2", "room": "django"})
    assert match(routing, "a", path="/chat/django/") is None


def test_a_route_of_an_include_does_not_match_without_the_prefix():
    routing = [include(chat_routing, path="^/ws/v(?P<version>[0-9]+)")]
    assert match(routing, "websocket.connect", path="/chat/django/") is None
    assert match(routing, "websocket.connect", path="/ws/chat/django/") is None


def test_matching_copies_nothing_of_a_message():
    class Body(bytes):
        def __copy__(self):
            raise AssertionError

        def __deepcopy__(self, memo):
            raise AssertionError

    found = match([include(chat_routing, path="^/ws")], "websocket.connect", path="/ws/chat/a/", body=Body(b"x"))
    assert found == (second, {"room": "a"})


def test_the_consumer_gets_the_original_message():
    original = message("a", path="/ws/x")
    assert Router([include([route("a", first, path="^/x$")], path="^/ws")]).match(original) == (first, {})
    assert original["path"] == "/ws/x"


def test_the_inner_group_wins_over_the_prefix():
    routing = [include([route("a", first, path="^/(?P<n>[0-9]+)$")], path="^/(?P<n>[0-9]+)")]
    assert match(routing, "a", path="/1/2") == (first, {"n": "2"})


def test_an_include_without_a_matching_route_falls_through():
    routing = [include([route("a", first, path="^/x$")], path="^/ws"), route("a", second)]
    assert match(routing, "a", path="/ws/other") == (second, {})


def test_an_include_without_prefixes_is_transparent():
    assert match([include([route("a", first)])], "a") == (first, {})


def test_includes_nest_and_accept_dotted_names():
    routing = [include("tests.channels.test_routing.chat_routing", path="^/ws")]
    assert match(routing, "websocket.connect", path="/ws/chat/x/") == (second, {"room": "x"})
    assert match([include([include(routing, path="^/v1")])], "websocket.connect", path="/v1/ws/chat/x/")


def test_a_dict_routes_whole_channels_without_arguments():
    assert match(dict_routing, "http.request", path="/any/") == (first, {})
    assert match("tests.channels.test_routing.dict_routing", "http.request", a=1) == (first, {})


def test_consumers_may_be_dotted_names():
    assert match([route("a", "tests.channels.test_routing.first")], "a") == (first, {})


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Router("tests.channels.no_such.routing"), "tests.channels.no_such"),
        (lambda: Router("tests.channels.test_routing.no_such"), "no attribute 'no_such'"),
        (lambda: route("a", "tests.channels.test_routing.no_such"), "no attribute 'no_such'"),
        (lambda: route("a", "nodots"), "dotted path"),
        (lambda: route("a", 5), "not callable"),
        (lambda: Router(5), "list of routes"),
        (lambda: Router([first]), "write route"),
        (lambda: route("websocket connect", first), "'websocket connect'"),
    ],
)
def test_what_does_not_import_is_named(make, text):
    with pytest.raises(ImproperlyConfigured, match=text):
        make()


def test_an_import_that_fails_within_a_module_of_the_project_is_not_hidden(tmp_path, monkeypatch):
    (tmp_path / "broken_routing.py").write_text("import no_such_dependency\nchannel_routing = []\n")
    monkeypatch.syspath_prepend(tmp_path)
    for make in (lambda: Router("broken_routing.channel_routing"), lambda: route("a", "broken_routing.consumer")):
        with pytest.raises(ImproperlyConfigured, match="No module named 'no_such_dependency'"):
            make()


def test_several_channels_may_share_a_route():
    router = Router([route(["a", b"b"], first)])
    assert router.channels == {"a", "b"}
    assert router.match(message("b")) == (first, {})


def test_channels_are_the_union_of_routes_includes_and_classes():
    router = Router([route("a", first), include([route("b", first)], path="x"), route_class(ClassConsumer)])
    assert router.channels == {"a", "b", "foo", "bar"}
    router.add_route(route("c", second))
    assert "c" in router.channels


def test_a_class_without_channel_names_is_refused():
    with pytest.raises(ValueError, match="channel_names"):
        route_class(first)


def test_class_routes_match_with_filters():
    assert match([route_class(ClassConsumer, path="^/(?P<id>[0-9]+)")], "foo", path="/789") == (
        ClassConsumer,
        {"id": "789"},
    )


def test_any_object_with_the_two_methods_is_a_route():
    class Everything:
        def channel_names(self):
            return {"z"}

        def match(self, message):
            return first, {"path": message["path"]}

    router = Router([include([Everything()], path="^/p")])
    assert router.channels == {"z"}
    assert router.match(message("z", path="/p/q")) == (first, {"path": "/q"})


def test_a_route_is_asked_only_for_channels_that_it_names():
    asked = []

    class Curious:
        def channel_names(self):
            return {"z"}

        def match(self, message):
            asked.append(message.channel.name)
            return None

    router = Router([Curious()])
    router.add_route(route("a", first))
    assert router.match(message("a"))[0] is first
    assert router.match(message("z")) is None
    assert asked == ["z"]


def test_default_routes_come_last_and_in_order():
    router = Router([route("websocket.receive", first)])
    router.check_default(http_consumer=second)
    assert router.match(message("http.request"))[0] is second
    assert router.match(message("websocket.connect"))[0] is connect_consumer
    assert router.match(message("websocket.receive"))[0] is first
    assert router.match(message("websocket.disconnect"))[0] is null_consumer
    assert "http.disconnect" not in router.channels


def test_the_types_behind_the_lower_case_names():
    assert isinstance(route("a", first), Route)
    assert isinstance(include([]), Include)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["^/", "^/x", "^/y$"])), max_size=6), st.text())
def test_the_first_route_that_matches_alone_is_the_one_that_is_chosen(parts, tail):
    consumers = [lambda message, number=number: number for number in range(len(parts))]
    routes = [route(name, consumer, path=path) for (name, path), consumer in zip(parts, consumers, strict=True)]
    wanted = message("a", path="/" + tail)
    expected = next((found for entry in routes if (found := entry.match(wanted))), None)
    assert Router([include(routes)]).match(wanted) == expected


def test_an_asynchronous_consumer_is_refused_when_it_is_routed():
    async def consumer(message):
        """Never runs."""

    with pytest.raises(ImproperlyConfigured, match=r"consumer .*consumer is a coroutine.* Write `def`"):
        route("test", consumer)


@pytest.mark.parametrize("channels", [None, 4, [], first])
def test_a_route_needs_a_channel(channels):
    with pytest.raises(ImproperlyConfigured, match="name a channel"):
        route(channels, second)


def test_a_filter_must_be_a_pattern():
    with pytest.raises(ValueError, match="path=4 is no regular expression"):
        route("a", first, path=4)
