"""Small things that several modules need."""

import functools
from typing import Any


def name_that_thing(thing: Any) -> str:
    """A dotted name for a function, method, class or instance (its class), for log lines and messages."""
    while isinstance(thing, functools.partial):
        thing = thing.func
    owner = getattr(thing, "__self__", None)
    if owner is not None and hasattr(thing, "__name__"):  # a bound method
        kind = owner if isinstance(owner, type) else type(owner)
        return f"{kind.__module__}.{kind.__qualname__}.{thing.__name__}"
    if not hasattr(thing, "__qualname__"):
        thing = type(thing)
    return f"{thing.__module__}.{thing.__qualname__}"
