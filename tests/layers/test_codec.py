"""Messages to bytes and back."""

from typing import Any

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from procman.layers import codec
from procman.layers.errors import MessageTooLarge

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=["Cs"]))
    | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", max_size=3), inner, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(st.text("abc", max_size=3), VALUES, max_size=4))
def test_a_message_comes_back_as_it_was(message: dict[str, Any]) -> None:
    assert codec.decode(codec.encode(message)) == message


@given(st.integers())
def test_integers_pass_exactly_if_they_have_64_bits_with_sign(value: int) -> None:
    if -(2**63) <= value < 2**63:
        assert codec.decode(codec.encode({"n": value})) == {"n": value}
    else:
        with pytest.raises(TypeError, match=r"message\['n'\]"):
            codec.encode({"n": value})


class Text(str):
    """As Django's SafeString."""


def test_subclasses_become_their_base() -> None:
    found = codec.decode(codec.encode({"t": Text("a"), Text("k"): [Text("b")]}))
    assert found == {"t": "a", "k": ["b"]}
    assert type(found["t"]) is str


@pytest.mark.parametrize("value", [{1}, object(), {"a": {1: 2}}, [({b"k": 1},)], b"x".__class__])
def test_other_types_are_refused(value: Any) -> None:
    with pytest.raises(TypeError, match=r"message\['k'\]"):
        codec.encode({"k": value})


def test_a_message_that_contains_itself_is_refused() -> None:
    message: dict[str, Any] = {}
    message["self"] = [message]
    with pytest.raises(TypeError, match="contains itself"):
        codec.encode(message)


@pytest.mark.parametrize("message", [None, [], "text", 5])
def test_only_mappings_are_messages(message: Any) -> None:
    with pytest.raises(TypeError, match="must be a dict"):
        codec.encode(message)


def test_a_message_over_the_limit_is_refused_with_both_sizes() -> None:
    assert len(codec.encode({"b": b"x" * 90}, 100)) <= 100
    with pytest.raises(MessageTooLarge) as caught:
        codec.encode({"b": b"x" * 100}, 100)
    assert (caught.value.size_bytes, caught.value.limit_bytes) == (105, 100)


@given(st.lists(st.lists(st.integers(0, 9) | st.binary(max_size=50), max_size=4), max_size=8), st.data())
def test_frames_come_out_whole_however_the_bytes_arrive(frames: list[Any], data: st.DataObject) -> None:
    stream = b"".join(map(codec.pack, frames))
    unpacker = codec.Unpacker(10_000)
    found = []
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        unpacker.feed(stream[:size])
        stream = stream[size:]
        found += list(unpacker.frames())
    assert found == frames


def test_more_than_the_limit_is_not_buffered() -> None:
    unpacker = codec.Unpacker(1000)
    with pytest.raises(ValueError, match="larger than the limit"):
        unpacker.feed(b"\xc6\x00\x01\x00\x00" + b"x" * 2000)


def test_many_connections_take_little_memory_also_when_much_has_passed_through_them() -> None:
    unpackers = [codec.Unpacker(10_000_000) for _ in range(50)]
    frames = b"".join([codec.pack((7, "websocket.receive", b"x" * 900))] * 50)
    process = psutil.Process()
    before = process.memory_info().rss
    for unpacker in unpackers:
        for _ in range(30):
            unpacker.feed(frames)
            assert sum(1 for _ in unpacker.frames()) == 50
    assert process.memory_info().rss - before < 50 * 300_000


def test_an_array_of_millions_is_refused_before_it_is_made() -> None:
    unpacker = codec.Unpacker(1000)
    unpacker.feed(b"\xdd\x7f\xff\xff\xff")
    with pytest.raises(ValueError, match="max_array_len"):
        list(unpacker.frames())
