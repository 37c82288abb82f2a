"""How many connections there may be."""

from hypothesis import given
from hypothesis import strategies as st

from procman.interface.occupancy import WARN_INTERVAL, Occupancy


def test_one_address_may_have_so_many_and_others_as_many_again() -> None:
    occupancy = Occupancy(100, 2)
    assert [occupancy.enter("a") for _ in range(3)] == [True, True, False]
    assert occupancy.enter("b")
    occupancy.leave("a")  # the one that was refused
    occupancy.leave("a")
    assert occupancy.enter("a")


def test_nobody_and_no_limit_are_never_too_many() -> None:
    assert all(Occupancy(1, 1).enter("") for _ in range(5))
    unlimited = Occupancy(1, 0)
    assert all(unlimited.enter("a") for _ in range(5))
    unlimited.leave("a")


def test_the_total_is_over_its_limit_with_one_too_many() -> None:
    occupancy = Occupancy(2, 0)
    occupancy.total = 2
    assert not occupancy.is_full()
    occupancy.total = 3
    assert occupancy.is_full()


def test_a_warning_comes_once_in_a_while_for_each_limit() -> None:
    occupancy = Occupancy(1, 1)
    assert occupancy.should_warn("a", 0.0) and occupancy.should_warn("b", 0.0)
    assert not occupancy.should_warn("a", WARN_INTERVAL - 0.1)
    assert occupancy.should_warn("a", WARN_INTERVAL)


@given(st.lists(st.sampled_from(["a", "b", "c"])))
def test_an_address_without_connections_is_forgotten(addresses: list[str]) -> None:
    occupancy = Occupancy(1, 3)
    for address in addresses:
        occupancy.enter(address)
    assert all(occupancy.count(address) == addresses.count(address) for address in "abc")
    for address in addresses:
        occupancy.leave(address)
    assert not occupancy._addresses
