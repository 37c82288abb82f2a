"""Names for things in log lines."""

import functools

import pytest

from procman.channels.utils import describe_asynchronous, is_synchronous, name_that_thing, refuse_coroutine


class Thing:
    def method(self):
        """A method."""

    @classmethod
    def on_class(cls):
        """A class method."""


def test_functions_methods_classes_and_instances_have_names():
    here = __name__
    assert name_that_thing(test_functions_methods_classes_and_instances_have_names).startswith(f"{here}.test_func")
    assert name_that_thing(Thing) == name_that_thing(Thing()) == f"{here}.Thing"
    assert name_that_thing(Thing().method) == name_that_thing(Thing.method) == f"{here}.Thing.method"
    assert name_that_thing(Thing.on_class) == f"{here}.Thing.on_class"
    assert name_that_thing(functools.partial(Thing, 1)) == f"{here}.Thing"


async def coroutine(message):
    """A consumer that is none."""


def generator(message):
    yield message


async def asynchronous_generator(message):
    yield message


class Callable:
    async def __call__(self, message):
        """A consumer that is none."""


class Heir(Callable):
    """Inherits its call."""


@pytest.mark.parametrize(
    "consumer",
    [coroutine, generator, asynchronous_generator, Callable(), Heir(), functools.partial(coroutine, 1)],
    ids=name_that_thing,
)
def test_a_call_that_runs_nothing_is_no_consumer(consumer):
    assert not is_synchronous(consumer)
    with pytest.raises(TypeError, match="consumers are synchronous"):
        refuse_coroutine(consumer(1) if not isinstance(consumer, functools.partial) else consumer(), consumer)


@pytest.mark.parametrize("consumer", [print, Callable, Thing().method, lambda message: None, len])
def test_what_runs_when_it_is_called_is_synchronous(consumer):
    assert is_synchronous(consumer)
    refuse_coroutine(consumer, consumer)


def test_the_way_out_is_named():
    assert "async_to_sync" in describe_asynchronous("a.b")
