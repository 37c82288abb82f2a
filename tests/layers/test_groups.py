"""Membership."""

from hypothesis import given
from hypothesis import strategies as st

from procman.layers.groups import Groups, HeldMembers


def test_a_member_leaves_when_it_is_discarded_or_expires() -> None:
    groups = Groups()
    groups.add("g", "a", 10)
    groups.add("g", "b", 20)
    groups.add("g", "c", 20)
    groups.discard("g", "c")
    groups.discard("g", "never")
    groups.discard("nothing", "a")
    assert (groups.channels("g", 5), groups.size("g", 5)) == (["a", "b"], 2)
    assert (groups.channels("g", 10), groups.size("g", 10)) == (["b"], 1)
    assert groups.size("nothing", 5) == 0


def test_adding_again_renews_a_membership() -> None:
    groups = Groups()
    groups.add("g", "a", 10)
    groups.add("g", "a", 30)
    assert groups.channels("g", 20) == ["a"]


def test_a_sweep_forgets_what_has_expired() -> None:
    groups = Groups()
    groups.add("g", "a", 10)
    groups.sweep(10)
    assert len(groups) == 0


def test_members_below_a_prefix_can_be_taken_out() -> None:
    groups = Groups()
    for channel in ("i!1", "i!2", "j!1"):
        groups.add("g", channel, 10)
    assert sorted(groups.take_prefix("i!")) == [("g", "i!1"), ("g", "i!2")]
    assert groups.channels("g", 0) == ["j!1"]


STEP = st.tuples(
    st.sampled_from(["add", "discard", "channel", "interface"]),
    st.sampled_from(["g", "h"]),
    st.sampled_from(["i", "j"]),
    st.sampled_from(["1", "2", "3"]),
)


@given(st.lists(STEP, max_size=40))
def test_the_mirror_agrees_with_a_plain_set(steps: list[tuple[str, str, str, str]]) -> None:
    mirror, plain = HeldMembers(), set()
    for step, group, interface, number in steps:
        channel = f"{interface}!{number}"
        if step == "add":
            mirror.add(group, interface, channel)
            plain.add((group, interface, channel))
        elif step == "discard":
            assert mirror.discard(group, interface, channel) == ((group, interface, channel) in plain)
            plain.discard((group, interface, channel))
        elif step == "channel":
            mirror.remove_channel(interface, channel)
            plain = {member for member in plain if member[2] != channel}
        else:
            mirror.remove_interface(interface)
            plain = {member for member in plain if member[1] != interface}
        for name in ("g", "h"):
            assert sorted(mirror.channels(name)) == sorted(c for g, _, c in plain if g == name)
            assert set(mirror.interfaces(name)) == {i for g, i, _ in plain if g == name}
            assert all(mirror.has(name, i) == any(m[:2] == (name, i) for m in plain) for i in ("i", "j"))
    assert len(mirror) == len({group for group, _, _ in plain})
