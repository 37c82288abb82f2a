"""A class as a consumer: its methods by channel. Knows nothing of WebSockets."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from types import MethodType
from typing import Any, ClassVar

from procman.channels.auth import channel_session_user
from procman.channels.message import Message
from procman.channels.routing import Route, route_class
from procman.channels.sessions import channel_session
from procman.channels.utils import describe_asynchronous, is_synchronous, refuse_coroutine

# What subclasses of the classes in this package override.
_METHODS = ("dispatch", "connect", "receive", "disconnect")
Handler = Callable[..., Any]
Decorator = Callable[[Handler], Handler]


class BaseConsumer:
    """A consumer whose methods consume one channel each. Making an instance handles the message.

    ``method_mapping`` names the method for each channel. ``channel_session`` and ``channel_session_user`` put the
    decorators of these names around every method. An instance has the ``message`` and, in ``kwargs``, what the route
    found::

        class Orders(BaseConsumer):
            method_mapping = {"orders.paid": "paid"}

            def paid(self, message, **kwargs):
                Channel("mail.send").send({"order": message["order"]})

        channel_routing = [Orders.as_route()]
    """

    method_mapping: ClassVar[Mapping[str, str]] = {}
    channel_session: bool = False
    channel_session_user: bool = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name in {*cls.method_mapping.values(), *_METHODS}:
            if name in cls.__dict__ and not is_synchronous(getattr(cls, name)):
                raise TypeError(describe_asynchronous(f"{cls.__qualname__}.{name}"))

    def __init__(self, message: Message, **kwargs: Any) -> None:
        self.message = message
        self.kwargs = kwargs
        result = self.dispatch(message, **kwargs)
        if result is not None:
            refuse_coroutine(result, self)

    @classmethod
    def channel_names(cls) -> set[str]:
        """Names of the channels that the class consumes."""
        return set(cls.method_mapping)

    @classmethod
    def as_route(cls, attrs: dict[str, Any] | None = None, **filters: Any) -> Route:
        """A route to this class, or with *attrs* to a subclass that has these attributes.

        Raises:
            TypeError: *attrs* is no dict. ValueError: a filter has a positional group.
        """
        if attrs is None:
            return route_class(cls, **filters)
        if not isinstance(attrs, dict):
            raise TypeError(f"attrs of as_route() must be a dict of attributes, not {attrs!r}")
        return route_class(type(cls.__name__, (cls,), {"__module__": cls.__module__, **attrs}), **filters)

    def decorators(self, message: Message) -> tuple[Decorator, ...]:
        """What is put around the method that handles *message*, the innermost first."""
        if self.channel_session_user:
            return (channel_session_user,)
        return (channel_session,) if self.channel_session else ()

    def get_handler(self, message: Message, **kwargs: Any) -> Handler:
        """The method for *message*, decorated; to be called with the message and *kwargs*.

        Raises:
            KeyError: the message's channel is not in ``method_mapping``.
        """
        handler: Handler = getattr(self, self.method_mapping[message.channel.name])
        decorators = self.decorators(message)
        if not decorators:
            return handler
        if isinstance(handler, MethodType):
            return MethodType(_decorated(handler.__func__, decorators), handler.__self__)
        return _decorate(handler, decorators)

    def dispatch(self, message: Message, **kwargs: Any) -> Any:
        """Have the method for *message* handle it."""
        return self.get_handler(message, **kwargs)(message, **kwargs)


def _decorate(handler: Handler, decorators: tuple[Decorator, ...]) -> Handler:
    for decorator in decorators:
        handler = decorator(handler)
    return handler


# Decorating takes longer than most consumers: functions are decorated once, not with each message.
_decorated = functools.lru_cache(maxsize=512)(_decorate)
