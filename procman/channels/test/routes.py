"""``apply_routes``: other routes for a test, a class of tests or a block."""

from __future__ import annotations

import functools
import inspect
import unittest
from collections.abc import Iterable, Mapping
from typing import Any

from procman.channels import DEFAULT_CHANNEL_LAYER
from procman.channels.asgi import channel_layers
from procman.channels.routing import Include, Router


class apply_routes:
    """Have the layers of *aliases* route by *routes* only; a context manager and a decorator.

    *routes* is one route, a list of routes, or whatever ``ROUTING`` may be; in a list, lists stand for an ``include``
    of theirs. Decorates functions, coroutine functions and test cases, whose subclasses have the routes too.
    """

    def __init__(self, routes: Any, aliases: str | Iterable[str] = (DEFAULT_CHANNEL_LAYER,)) -> None:
        self.routes = routes
        self.aliases = (aliases,) if isinstance(aliases, str) else tuple(aliases)
        # The layers with what they had before; a decorated function may call itself.
        self._before: list[list[tuple[Any, Any, Router]]] = []

    def _routing(self) -> Any:
        routes = self.routes
        if isinstance(routes, str | Mapping):
            return routes
        if not isinstance(routes, list | tuple):
            return [routes]
        return [Include(each) if isinstance(each, list | tuple) else each for each in routes]

    def enter(self) -> None:
        """Put the routes in place. Raises ImproperlyConfigured for what is no routing."""
        routing = self._routing()
        layers = [channel_layers[alias] for alias in self.aliases]
        self._before.append([(layer, layer.routing, layer.router) for layer in layers])
        for layer in layers:
            layer.routing, layer.router = routing, Router(routing)

    def exit(self, exc_type: Any = None, exc_val: Any = None, exc_tb: Any = None) -> None:
        """Put back what was there before."""
        for layer, routing, router in self._before.pop():
            layer.routing, layer.router = routing, router

    def __enter__(self) -> None:
        self.enter()

    def __exit__(self, *error: Any) -> None:
        self.exit()

    def __call__(self, decorated: Any) -> Any:
        """*decorated*, a function or a test case, with the routes while it runs. Raises TypeError for another class."""
        if isinstance(decorated, type):
            return self._decorate_class(decorated)
        if inspect.iscoroutinefunction(decorated):

            @functools.wraps(decorated)
            async def inner_coroutine(*args: Any, **kwargs: Any) -> Any:
                with self:
                    return await decorated(*args, **kwargs)

            return inner_coroutine

        @functools.wraps(decorated)
        def inner(*args: Any, **kwargs: Any) -> Any:
            with self:
                return decorated(*args, **kwargs)

        return inner

    def _decorate_class(self, case: type) -> type:
        if not issubclass(case, unittest.TestCase):
            raise TypeError(f"apply_routes decorates functions and test cases, and {case.__qualname__} is neither")
        own: Any = case.setUpClass
        aliases, routes = self.aliases, self.routes

        def set_up_class(cls: Any) -> None:
            # Before the class's own: the layers that it makes take over the routing that they find.
            cls.enterClassContext(apply_routes(routes, aliases))
            own.__func__(cls)

        setattr(case, "setUpClass", classmethod(set_up_class))  # noqa: B010 - type checkers refuse the assignment
        return case
