"""Names for things in log lines."""

import functools

from procman.channels.utils import name_that_thing


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
