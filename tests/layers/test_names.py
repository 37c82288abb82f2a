"""The grammar of names."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from procman.layers import names

CHARACTERS = "abzAZ09-_."


@given(st.text(max_size=110))
def test_a_name_passes_exactly_if_it_has_the_form_of_1x(name: str) -> None:
    fits = len(name) < 100 and bool(re.fullmatch(r"[a-zA-Z0-9._-]+([?!][a-zA-Z0-9._-]*)?", name, re.ASCII))
    if fits and not name.endswith("?"):
        names.check_channel(name)
    else:
        with pytest.raises(TypeError):
            names.check_channel(name)


@given(st.text(CHARACTERS, min_size=1, max_size=40), st.sampled_from("?!"))
def test_a_built_channel_extends_its_pattern_and_passes(stem: str, mark: str) -> None:
    name = names.build_channel(stem + mark)
    assert name.startswith(stem + mark)
    names.check_channel(name)


def test_kinds_follow_the_mark() -> None:
    assert [names.kind(name) for name in ("a", "a?b", "a!b")] == [
        names.NORMAL,
        names.SINGLE_READER,
        names.PROCESS_LOCAL,
    ]


def test_the_local_prefix_ends_at_the_mark() -> None:
    assert [names.local_prefix(name) for name in ("a", "a?b", "a!b", "a!")] == ["a", "a?b", "a!", "a!"]


def test_receiving_needs_at_least_one_name() -> None:
    with pytest.raises(AssertionError):
        names.check_receive([])


def test_the_channel_of_a_body_names_its_interface() -> None:
    channel = names.body_channel("interface.1.abcd!12")
    names.check_channel(channel, receive=True)
    assert names.body_owner(channel) == "interface.1.abcd"
    assert names.body_owner("interface.1.abcd!12") == names.body_owner("chat") == ""


def test_a_kind_of_str_becomes_a_str() -> None:
    class Safe(str):
        def __str__(self) -> str:
            return self

    assert type(names.plain(Safe("a"))) is str
    assert [type(name) for name in names.check_receive([Safe("a"), "b"])] == [str, str]


@pytest.mark.parametrize(
    ("name", "is_one"),
    [
        ("interface.1.0a1b2c3d!ws-4e5f6a1", True),
        ("interface.0a1b2c3d!ws-1", True),
        ("interface.0a1b2c3d!4e5f6a1", False),
        ("interface.0a1b2c3d!ws-4e5f6a1\n", False),
        ("mine!ws-1", False),
        ("interface.0a1b2c3d?ws-1", False),
        ("ws-1", False),
    ],
)
def test_the_reply_channels_of_sockets_are_known_by_their_names(name: str, is_one: bool) -> None:
    assert names.is_socket(name) is is_one


@pytest.mark.parametrize("name", ["chat\n", "chat!a\n", "chat?a\n", "chat!\u00e9", "chat?\u0663", "gr\u00fc\u00dfe"])
def test_a_newline_at_the_end_and_letters_beyond_ascii_are_refused(name: str) -> None:
    for check in (names.check_channel, names.check_group):
        with pytest.raises(TypeError):
            check(name)
