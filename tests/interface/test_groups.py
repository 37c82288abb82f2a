"""Local membership."""

from hypothesis import given
from hypothesis import strategies as st

from procman.interface.groups import Groups


def test_a_member_added_twice_is_a_member_once():
    groups = Groups()
    groups.add("news", "a!1", "A")
    groups.add("news", "a!1", "A")
    assert groups.members("news") == ["A"]


def test_a_client_that_ends_leaves_every_group():
    groups = Groups()
    for group in ("one", "two"):
        groups.add(group, "a!1", "A")
        groups.add(group, "a!2", "B")
    groups.forget("a!1")
    assert set(groups.memberships()) == {("one", "a!2"), ("two", "a!2")}


def test_members_may_end_while_a_message_is_sent_to_them():
    groups = Groups()
    groups.add("news", "a!1", "A")
    for _ in groups.members("news"):
        groups.forget("a!1")
    assert groups.members("news") == []


NAMES = st.sampled_from("abc")
STEPS = st.lists(st.tuples(st.sampled_from(["add", "discard", "forget"]), NAMES, NAMES))


@given(STEPS)
def test_membership_is_a_relation_and_nothing_of_the_gone_remains(steps):
    groups, model = Groups(), set()
    for step, group, channel in steps:
        if step == "add":
            groups.add(group, channel, channel)
            model.add((group, channel))
        elif step == "discard":
            groups.discard(group, channel)
            model.discard((group, channel))
        else:
            groups.forget(channel)
            model = {pair for pair in model if pair[1] != channel}
        assert set(groups.memberships()) == model
    for group, channel in model:
        assert channel in groups.members(group)
    for channel in "abc":
        groups.forget(channel)
    assert (groups._members, groups._groups) == ({}, {})
