"""Frames of a client to messages; ours to bytes, read back by another library."""

import itertools
import json
import os
import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Close, Frame, Opcode
from websockets.protocol import CLIENT, Protocol

from procman.interface import frames
from procman.interface.frames import Closed, Deflater, Failure, FrameDecoder, Ping, Pong, build_close, build_control
from procman.interface.messages import build_frame

LIMIT = 10_000


def made(opcode: Opcode, payload: bytes = b"", fin: bool = True, rsv1: bool = False) -> bytes:
    data = Frame(opcode, payload, fin).serialize(mask=True)
    return bytes((data[0] | 0x40 * rsv1,)) + data[1:]


def read(*parts: bytes, deflates: bool = False, decoder: FrameDecoder | None = None) -> list[frames.Event]:
    """What comes out of *parts*; nothing is asked for after the end."""
    decoder = decoder or FrameDecoder(LIMIT, deflates)
    events: list[frames.Event] = []
    for part in parts:
        decoder.feed(part)
        while (event := decoder.next()) is not None:
            events.append(event)
            if isinstance(event, Closed | Failure):
                return events
    return events


STREAM = (
    made(Opcode.TEXT, "h\xe4llo".encode())
    + made(Opcode.BINARY, bytes(range(256)))
    + made(Opcode.TEXT)
    + made(Opcode.BINARY, b"", False)
    + made(Opcode.PING, b"hi")
    + made(Opcode.CONT, b"x" * 9000)
    + made(Opcode.TEXT, b"\xe2\x82", False)
    + made(Opcode.PONG)
    + made(Opcode.CONT, b"", False)
    + made(Opcode.CONT, b"\xac!")
    + made(Opcode.CLOSE, b"\x03\xe8bye")
)
EVENTS = ["h\xe4llo", bytes(range(256)), "", Ping(b"hi"), b"x" * 9000, Pong(), "\u20ac!", Closed(1000, "bye")]


def test_messages_come_out_whole_and_control_frames_between_their_fragments():
    assert read(STREAM) == EVENTS


@given(st.lists(st.integers(0, len(STREAM)), max_size=12))
def test_where_the_bytes_are_split_makes_no_difference(cuts: list[int]):
    edges = [0, *sorted(cuts), len(STREAM)]
    assert read(*(STREAM[start:end] for start, end in itertools.pairwise(edges))) == EVENTS


@given(st.integers(0, len(STREAM)))
def test_the_state_is_plain_data_at_any_byte(cut: int):
    decoder = FrameDecoder(LIMIT)
    before = read(STREAM[:cut], decoder=decoder)
    state = json.loads(json.dumps(decoder.dump(), default=lambda data: {"hex": data.hex()}))
    state = [bytes.fromhex(value["hex"]) if isinstance(value, dict) else value for value in state]
    if cut < len(STREAM):
        assert before + read(STREAM[cut:], decoder=FrameDecoder.load(state)) == EVENTS


def test_what_is_not_asked_for_stays_as_bytes():
    decoder = FrameDecoder(LIMIT)
    decoder.feed(made(Opcode.TEXT, b"a") * 3)
    assert decoder.next() == "a"
    decoder.feed(made(Opcode.TEXT, b"b"))
    assert decoder.unread == 3 * len(made(Opcode.TEXT, b"a"))
    assert [decoder.next() for _ in range(4)] == ["a", "a", "b", None]
    assert decoder.unread == 0


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\x81\x01a", 1002),  # not masked
        (b"\xc1\x81", 1002),  # RSV1 without compression
        (b"\xa1\x81", 1002),
        (b"\x91\x81", 1002),
        (b"\x83\x81", 1002),  # opcodes that mean nothing
        (b"\x8b\x81", 1002),
        (b"\x89\xfe\x00\x7e", 1002),  # a control frame that is too long
        (b"\x09\x81", 1002),  # or in fragments
        (made(Opcode.CONT, b"a"), 1002),
        (made(Opcode.TEXT, b"a", False) + made(Opcode.TEXT, b"b"), 1002),
        (made(Opcode.TEXT, b"\xff"), 1007),
        (made(Opcode.TEXT, b"\xed\xa0\x80"), 1007),  # a surrogate
        (made(Opcode.TEXT, b"\xe2", False) + made(Opcode.CONT, b"("), 1007),
        (made(Opcode.TEXT, b"\xe2", False) + made(Opcode.CONT, b"(", False), 1007),  # before the end of the message
        (made(Opcode.TEXT, b"\xe2"), 1007),
        (b"\x81\xfe" + (LIMIT + 1).to_bytes(2, "big"), 1009),  # before its content has come
        (b"\x81\xff" + (2**63).to_bytes(8, "big"), 1009),
        (made(Opcode.BINARY, b"x" * LIMIT, False) + b"\x80\x81", 1009),
        (made(Opcode.CLOSE, b"\x03"), 1002),
        (made(Opcode.CLOSE, b"\x03\xe8\xff"), 1007),
        *((made(Opcode.CLOSE, code.to_bytes(2, "big")), 1002) for code in (0, 999, 1004, 1005, 1006, 1015, 2999, 5000)),
    ],
    ids=str,
)
def test_what_breaks_the_protocol_is_a_failure_with_its_code(data: bytes, code: int):
    *_, failure = read(data)
    assert isinstance(failure, Failure) and failure.code == code and failure.text
    *_, failure = read(*(data[position : position + 1] for position in range(len(data))))
    assert isinstance(failure, Failure) and failure.code == code


@pytest.mark.parametrize("code", [1000, 1001, 1003, 1007, 1011, 1012, 1014, 3000, 4999])
def test_a_close_code_that_may_be_sent_is_read(code: int):
    assert read(made(Opcode.CLOSE, code.to_bytes(2, "big"))) == [Closed(code, "")]


def test_a_close_frame_without_a_code_is_1005():
    assert read(made(Opcode.CLOSE)) == [Closed(1005, "")]
    assert build_close(1005) == b"\x88\x00"


@given(st.binary(max_size=200))
def test_no_bytes_break_the_decoder(data: bytes):
    read(data)
    read(data, deflates=True)


@given(
    st.lists(st.tuples(st.sampled_from([Opcode.TEXT, Opcode.BINARY, Opcode.PING]), st.text(max_size=40)), max_size=6)
)
def test_it_understands_what_another_library_sends(messages: list[tuple[Opcode, str]]):
    client = Protocol(CLIENT)
    for opcode, text in messages:
        if opcode is Opcode.TEXT:
            client.send_text(text.encode())
        elif opcode is Opcode.BINARY:
            client.send_binary(text.encode())
        else:
            client.send_ping(text.encode()[:125])
    expected = {
        Opcode.TEXT: lambda text: text,
        Opcode.BINARY: lambda text: text.encode(),
        Opcode.PING: lambda text: Ping(text.encode()[:125]),
    }
    assert read(*client.data_to_send()) == [expected[opcode](text) for opcode, text in messages]


def test_another_library_understands_what_is_built():
    client = Protocol(CLIENT)
    client.receive_data(
        build_control(frames.PING, b"x") + build_frame(b"a" * 70_000, True) + build_close(1012, "\u20ac" * 60)
    )
    ping, text, close = client.events_received()
    assert isinstance(ping, Frame) and ping.opcode is Opcode.PING and ping.data == b"x"
    assert isinstance(text, Frame) and text.data == b"a" * 70_000
    assert isinstance(close, Frame) and Close.parse(close.data) == Close(1012, "\u20ac" * 41)


def test_empty_fragments_without_end_take_no_memory():
    decoder = FrameDecoder(LIMIT)
    decoder.feed(made(Opcode.TEXT, b"", False))
    assert decoder.next() is None
    empty = made(Opcode.CONT, b"", False)
    tracemalloc.start()
    for _ in range(10_000):
        decoder.feed(empty)
        assert decoder.next() is None
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert used < 10_000


# -- compression -----------------------------------------------------------------------------------------------------


def deflated(data: bytes) -> bytes:
    deflater = zlib.compressobj(wbits=-15)
    return (deflater.compress(data) + deflater.flush(zlib.Z_SYNC_FLUSH))[:-4]


def test_a_compressed_message_is_read_whole_or_in_fragments():
    data = deflated(b"hello " * 100)
    whole = made(Opcode.TEXT, data, rsv1=True)
    parts = made(Opcode.TEXT, data[:5], False, rsv1=True) + made(Opcode.CONT, data[5:])
    assert read(whole, parts, made(Opcode.TEXT, b"plain"), deflates=True) == ["hello " * 100] * 2 + ["plain"]


@pytest.mark.parametrize(
    ("payload", "code"),
    [(b"\xff\xff\xff", 1002), (deflated(b"\xff" * 10), 1007), (deflated(b"x" * (LIMIT + 1)), 1009)],
    ids=["no deflate", "no utf-8", "too large"],
)
def test_a_compressed_message_that_is_none_or_no_text_or_a_bomb_is_refused(payload: bytes, code: int):
    (failure,) = read(made(Opcode.TEXT, payload, rsv1=True), deflates=True)
    assert isinstance(failure, Failure) and failure.code == code


def test_a_bomb_is_not_unpacked_further_than_its_limit():
    bomb = deflated(b"x" * 50_000_000)
    decoder = FrameDecoder(100_000, deflates=True)
    decoder.feed(made(Opcode.BINARY, bomb, rsv1=True))
    tracemalloc.start()
    assert isinstance(decoder.next(), Failure)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2_000_000


@pytest.mark.parametrize("bits", [9, 12, 15])
@pytest.mark.parametrize("is_text", [True, False])
def test_a_compressed_frame_is_read_by_another_library(bits: int, is_text: bool):
    payload = b"all the same " * 8000
    client = Protocol(CLIENT)
    client.extensions = [PerMessageDeflate(True, True, bits, 15)]
    deflater = Deflater()
    frame = build_frame(payload, is_text)
    compressed = deflater.compress(frame, bits)
    assert len(compressed) < len(payload) / 10
    client.receive_data(compressed * 2)
    for event in client.events_received():
        assert (
            isinstance(event, Frame)
            and event.data == payload
            and event.opcode is (Opcode.TEXT if is_text else Opcode.BINARY)
        )


def test_a_frame_for_many_is_compressed_once_per_window():
    deflater = Deflater()
    frame = build_frame(b"all the same " * 100, True)
    assert deflater.compress(frame, 15) is deflater.compress(frame, 15)
    assert deflater.compress(frame, 9) is deflater.compress(frame, 9)
    other = build_frame(b"something else " * 100, True)
    assert deflater.compress(other, 15) != deflater.compress(frame, 15)


@pytest.mark.parametrize(("payload", "bits"), [(b"short", 15), (os.urandom(1000), 15), (b"a" * 1000, 8)])
def test_what_would_not_become_smaller_is_sent_as_it_is(payload: bytes, bits: int):
    frame = build_frame(payload, False)
    assert Deflater().compress(frame, bits) is frame
