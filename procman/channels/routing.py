"""Channel name and filters -> consumer. The first match wins; nothing here runs a consumer or reads a layer."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from django.core.exceptions import ImproperlyConfigured

from procman.channels.message import Message
from procman.channels.utils import describe_asynchronous, is_synchronous, name_that_thing
from procman.errors import ConfigurationError
from procman.importing import import_object
from procman.layers import names

Match = tuple[Callable[..., Any], dict[str, Any]]
# Most routes do not match, and are passed over without a call: the key of the route's first filter with that filter,
# where it has one, and what tries them all.
_Gate = Callable[[str], re.Match[str] | None]
_Entry = tuple[str, _Gate | None, Callable[[Message, Mapping[str, Any]], Match | None]]


class Router:
    """The routing of one channel layer: a list, a dict ``{channel: consumer}`` or the dotted name of one of them.

    Raises:
        ImproperlyConfigured: the dotted name does not import, or what it names is no routing.
    """

    def __init__(self, routing: Any) -> None:
        self.root = Include(routing)
        self.channels: set[str] = self.root.channel_names()

    def add_route(self, route: Any) -> None:
        """Append *route*: it matches what no earlier one matched."""
        self.root.append(route)
        self.channels = self.root.channel_names()

    def match(self, message: Message) -> Match | None:
        """The consumer for *message* with its keyword arguments, or None."""
        return self.root.match_content(message, message.content)

    def check_default(self, http_consumer: Any = None) -> None:
        """Append what every project gets: its views for HTTP, and WebSockets that are accepted and ignored."""
        if http_consumer is None:
            from procman.channels.handler import ViewConsumer

            http_consumer = ViewConsumer()
        self.add_route(Route("http.request", http_consumer))
        self.add_route(Route("websocket.connect", connect_consumer))
        self.add_route(Route("websocket.receive", null_consumer))
        self.add_route(Route("websocket.disconnect", null_consumer))

    @classmethod
    def resolve_routing(cls, routing: Any) -> list[Any]:
        """*routing* as a list of routes. Raises ImproperlyConfigured."""
        if isinstance(routing, str):
            routing = _import(routing, "channel routing")
        if isinstance(routing, Mapping):
            return [Route(channel, consumer) for channel, consumer in routing.items()]
        if isinstance(routing, str | bytes) or not isinstance(routing, Iterable):
            raise ImproperlyConfigured(
                f"channel routing must be a list of routes or a dict of channel names to consumers, not {routing!r}"
            )
        routes = list(routing)
        for route in routes:
            if not callable(getattr(route, "match", None)) or not callable(getattr(route, "channel_names", None)):
                raise ImproperlyConfigured(f"{route!r} in channel routing is no route: write route(channel, consumer)")
        return routes

    @classmethod
    def normalise_re_arg(cls, value: Any) -> Any:
        """*value* as str if it is ASCII bytes; anything else as it is."""
        return value.decode("ascii") if isinstance(value, bytes) else value


def _import(path: str, what: str) -> Any:
    try:
        return import_object(path)
    except ConfigurationError as error:
        raise ImproperlyConfigured(f"{what} {path!r}: {error}") from error


def _compile(filters: Mapping[str, Any]) -> dict[str, re.Pattern[str]]:
    compiled = {}
    for name, pattern in filters.items():
        try:
            compiled[name] = re.compile(Router.normalise_re_arg(pattern))
        except (re.error, TypeError) as error:
            raise ValueError(f"filter {name}={pattern!r} is no regular expression: {error}") from error
        if compiled[name].groups != len(compiled[name].groupindex):
            raise ValueError(
                f"filter {name}={pattern!r} has a positional group: name it, (?P<name>...), or use (?:...)"
            )
    return compiled


def _text(value: Any) -> str | None:
    """What a filter is applied to; None never matches. A client's bytes need not be ASCII and must not raise."""
    if isinstance(value, str) or value is None:
        return value
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else str(value)


class Route:
    """One or more channels, with filters on the message's keys, to a consumer (a callable or its dotted name).

    Raises:
        ImproperlyConfigured: the consumer does not import, is not callable or is asynchronous, or a channel's name is
            not valid.
        ValueError: a filter has a positional group.
    """

    def __init__(self, channels: Any, consumer: Any, **filters: Any) -> None:
        if isinstance(channels, str | bytes):
            channels = [channels]
        if not isinstance(channels, Iterable) or not (channels := list(channels)):
            raise ImproperlyConfigured(f"route({channels!r}, ...): name a channel, or a list of channels, first")
        self.channels: set[str] = {Router.normalise_re_arg(channel) for channel in channels}
        for channel in self.channels:
            try:
                names.check_receive([channel])
            except TypeError as error:
                raise ImproperlyConfigured(f"route({channel!r}, ...): {error}") from None
        self.consumer = self._resolve_consumer(consumer)
        self.filters = _compile(filters)
        self.matchers = [(name, pattern.match) for name, pattern in self.filters.items()]

    @staticmethod
    def _resolve_consumer(consumer: Any) -> Any:
        if isinstance(consumer, str):
            consumer = _import(consumer, "consumer")
        if not callable(consumer):
            raise ImproperlyConfigured(f"consumer {consumer!r} is not callable")
        if not is_synchronous(consumer):
            raise ImproperlyConfigured(describe_asynchronous(name_that_thing(consumer)))
        return consumer

    def channel_names(self) -> set[str]:
        """Names of the channels that this route reads."""
        return self.channels

    def match(self, message: Message) -> Match | None:
        """The consumer and the named groups of all filters, or None."""
        return self.match_content(message, message.content) if message.channel.name in self.channels else None

    def match_content(self, message: Message, content: Mapping[str, Any]) -> Match | None:
        """As ``match``, for a message on a channel that this route reads, seen with *content*."""
        call_args: dict[str, Any] = {}
        for name, match in self.matchers:
            value = content.get(name)
            if not isinstance(value, str):
                value = _text(value)
            found = match(value) if value is not None else None
            if found is None:
                return None
            call_args.update(found.groupdict())
        return self.consumer, call_args

    def __str__(self) -> str:
        filters = "".join(f", {name}={pattern.pattern!r}" for name, pattern in self.filters.items())
        return f"{'/'.join(sorted(self.channels))}{filters} -> {name_that_thing(self.consumer)}"


class RouteClass(Route):
    """A route to a class-based consumer, which says itself what channels it reads.

    Raises:
        ValueError: the consumer has no callable ``channel_names``.
    """

    def __init__(self, consumer: Any, **filters: Any) -> None:
        consumer = self._resolve_consumer(consumer)
        if not callable(getattr(consumer, "channel_names", None)):
            raise ValueError(f"the consumer {consumer!r} passed to route_class has no channel_names() method")
        super().__init__(consumer.channel_names(), consumer, **filters)


class Include:
    """Another routing, behind prefixes: each must match, and is stripped from its key for the inner routes only.

    Raises:
        ImproperlyConfigured: the routing does not import.
        ValueError: a prefix has a positional group.
    """

    def __init__(self, routing: Any, **prefixes: Any) -> None:
        self.routing: tuple[Any, ...] = ()
        self.prefixes = _compile(prefixes)
        self.matchers = [(name, pattern.match) for name, pattern in self.prefixes.items()]
        # What reads other channels need not be asked; most of a routing does.
        self._by_channel: dict[str, list[_Entry]] = {}
        for route in Router.resolve_routing(routing):
            self.append(route)

    def append(self, route: Any) -> None:
        """Add *route* as the last one."""
        self.routing += (route,)
        entry: _Entry = "", None, functools.partial(_match_seen, route)
        if getattr(type(route), "match", None) in (Route.match, Include.match):
            gate = route.matchers[0] if route.matchers else ("", None)
            entry = *gate, route.match_content
        for channel in route.channel_names():
            self._by_channel.setdefault(channel, []).append(entry)

    def channel_names(self) -> set[str]:
        """Names of the channels that the inner routes read."""
        return {name for route in self.routing for name in route.channel_names()}

    def match(self, message: Message) -> Match | None:
        """The inner match with the named groups of the prefixes added, or None."""
        return self.match_content(message, message.content)

    def match_content(self, message: Message, content: Mapping[str, Any]) -> Match | None:
        """As ``match``, for a message seen with *content*."""
        routes = self._by_channel.get(message.channel.name)
        if routes is None:
            return None
        call_args: dict[str, Any] = {}
        if self.matchers:
            content = dict(content)
            for name, match_prefix in self.matchers:
                whole = _text(content.get(name))
                found = match_prefix(whole) if whole is not None else None
                if whole is None or found is None:
                    return None
                content[name] = whole[found.end() :]
                call_args.update(found.groupdict())
        last_key: str | None = None
        value: str | None = None
        for key, gate, match_route in routes:
            if gate is not None:
                if key != last_key:
                    last_key, value = key, _text(content.get(key))
                if value is None or gate(value) is None:
                    continue
            match = match_route(message, content)
            if match is not None:
                return match[0], {**call_args, **match[1]} if call_args else match[1]
        return None


def _match_seen(route: Any, message: Message, content: Mapping[str, Any]) -> Match | None:
    """The match of a route of somebody else's making, which knows only messages."""
    match: Match | None = route.match(message if content is message.content else message.overlaid(content))
    return match


def null_consumer(*args: Any, **kwargs: Any) -> None:
    """Do nothing."""


def connect_consumer(message: Message, *args: Any, **kwargs: Any) -> None:
    """Accept the WebSocket."""
    message.reply_channel.send({"accept": True})


route = Route
route_class = RouteClass
include = Include
