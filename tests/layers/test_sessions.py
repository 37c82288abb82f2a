"""Sessions as bytes: changes, and how two consumers' changes come together."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from procman.layers import codec, sessions
from procman.layers.sessions import Changes, Read

VALUES = st.dictionaries(st.sampled_from("abcdef"), st.binary(max_size=3))


@given(VALUES)
def test_a_session_is_what_it_was_when_it_is_unpacked(values: dict[str, bytes]) -> None:
    assert sessions.unpack(sessions.pack(values)) == values


def test_an_empty_session_takes_no_bytes() -> None:
    assert sessions.pack({}) == b"" and sessions.unpack(b"") == {}


@pytest.mark.parametrize("data", [b"no session", codec.pack(("odd",)), b"\xc1", codec.pack((1, 2))[:1]])
def test_other_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError):
        sessions.unpack(data)


@given(VALUES, VALUES)
def test_the_changes_make_one_session_of_the_other(before: dict[str, bytes], after: dict[str, bytes]) -> None:
    changed = sessions.apply_changes(sessions.pack(before), sessions.find_changes(before, after))
    assert sessions.unpack(changed) == after


def test_clearing_goes_before_everything_else() -> None:
    changed = sessions.apply_changes(sessions.pack({"a": b"1"}), Changes({"b": b"2"}, [], is_cleared=True))
    assert sessions.unpack(changed) == {"b": b"2"}


def test_a_key_that_has_gone_already_may_be_deleted() -> None:
    assert sessions.apply_changes(b"", Changes({}, ["a"])) == b""


@given(VALUES, VALUES, VALUES)
def test_a_rebase_keeps_each_key_of_the_last_who_changed_it(
    before: dict[str, bytes], after: dict[str, bytes], current: dict[str, bytes]
) -> None:
    found = sessions.unpack(sessions.rebase(*map(sessions.pack, (before, after, current))))
    for key in "abcdef":
        changed = before.get(key) != after.get(key)
        assert found.get(key) == (after if changed else current).get(key)


@pytest.mark.parametrize("read", [Read("answers?x", 7)])
def test_a_question_says_where_its_answer_goes(read: Read) -> None:
    message = sessions.build_read(read)
    assert sessions.parse_request(message[sessions.REQUEST]) == read
    assert sessions.build_answer(read, b"s") == {"number": 7, "session": b"s"}


@pytest.mark.parametrize("changes", [Changes({"a": b"1"}, ["b"]), Changes({}, [], True)])
def test_changes_arrive_as_they_were_sent(changes: Changes) -> None:
    assert sessions.parse_request(sessions.build_merge(changes)[sessions.REQUEST]) == changes


@pytest.mark.parametrize("value", ["text", {"answer": "x?1"}, codec.pack(("x?1",)), codec.pack(({}, {}, 1)), None])
def test_what_an_application_passes_on_from_a_client_is_no_request(value: object) -> None:
    with pytest.raises(ValueError, match="no request"):
        sessions.parse_request(value)
