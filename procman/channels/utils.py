"""Small things that several modules need."""

import functools
import inspect
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


def refuse_coroutine(result: Any, consumer: Any) -> None:
    """Raise TypeError if *result*, what *consumer* returned, is a coroutine or generator: none of it has run."""
    if inspect.iscoroutine(result):
        result.close()  # else Python warns of it, long after
    elif not (inspect.isgenerator(result) or inspect.isasyncgen(result)):
        return
    raise TypeError(describe_asynchronous(name_that_thing(consumer)))


def is_synchronous(consumer: Any) -> bool:
    """Whether calling *consumer* runs it, as far as can be seen without a call."""
    kinds = (inspect.iscoroutinefunction, inspect.isgeneratorfunction, inspect.isasyncgenfunction)
    call = inspect.getattr_static(type(consumer), "__call__", None)
    return not any(is_kind(consumer) or is_kind(call) for is_kind in kinds)


def describe_asynchronous(name: str) -> str:
    """What is wrong with a consumer called *name* that is no plain function, and what to do."""
    return (
        f"consumer {name} is a coroutine or generator function, and calling it runs nothing: consumers are "
        "synchronous. Write `def` without `yield`; asgiref.sync.async_to_sync calls what has to be awaited"
    )
