"""The limits of a sender."""

import re
from typing import Any

import pytest

from procman.errors import ConfigurationError
from procman.layers.limits import Limits


def test_the_first_pattern_that_matches_wins() -> None:
    limits = Limits(capacity=7, channel_capacity={"http.*": 1, re.compile("http.request$"): 2, "chat?*": 3})
    assert [limits.capacity_of(name) for name in ("http.request", "chatty", "chat", "other")] == [1, 3, 7, 7]


def test_limits_survive_the_wire() -> None:
    limits = Limits(1.5, 2, 3, {"a*": 4, re.compile("B", re.IGNORECASE): 5}, 6)
    again = Limits.from_wire(limits.to_wire())
    assert again.to_wire() == limits.to_wire()
    assert [again.capacity_of(name) for name in ("ab", "b", "c")] == [4, 5, 3]


def test_capacities_are_remembered_for_a_bounded_number_of_names() -> None:
    limits = Limits(channel_capacity={"a*": 1})
    for number in range(5000):
        assert limits.capacity_of(f"a{number}") == 1
    assert len(limits._cache) <= 1024


@pytest.mark.parametrize(
    "options",
    [
        {"capacity": 0},
        {"expiry": -1},
        {"expiry": "60"},
        {"group_expiry": None},
        {"capacity": True},
        {"channel_capacity": {"a": 0}},
        {"channel_capacity": {5: 1}},
        {"channel_capacity": ["a"]},
        {"expiry": float("inf")},
        {"group_expiry": float("nan")},
        {"capacity": 10**30},
    ],
)
def test_values_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        Limits(**options)
