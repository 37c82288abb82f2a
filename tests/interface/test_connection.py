"""The rules of one socket's life: no sockets, no clock."""

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from procman.interface.actions import (
    Abort,
    Accept,
    AcceptLate,
    Close,
    Count,
    End,
    Mirror,
    Offer,
    PauseReading,
    Ping,
    Refuse,
    Report,
    ResumeReading,
    Withdraw,
    Write,
)
from procman.interface.connection import CLOSE_TIMEOUT, HELD_REPLIES, Connection, Limits, State
from procman.interface.messages import SocketReply, parse_socket_reply
from procman.layers import sessions

LIMITS = Limits(4, 100, handshake_timeout=20, ping_interval=10, ping_timeout=5)


def connecting(limits=LIMITS, now=0.0):
    socket = Connection(limits, now)
    assert socket.connect() == [Offer(0, None)]
    return socket


def opened(limits=LIMITS, now=0.0):
    socket = connecting(limits, now)
    assert socket.reply(SocketReply(accept=True), now) == [Accept()]
    assert socket.finished(None) == []
    return socket


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ({"accept": True}, ["101"]),
        ({"accept": True, "text": "hi"}, ["101", b"\x81\x02hi"]),
        ({"accept": True, "bytes": b"hi"}, ["101", b"\x82\x02hi"]),
        ({"accept": True, "text": ""}, ["101", b"\x81\x00"]),
        ({"accept": True, "close": True}, ["101", 1000]),
        ({"accept": False}, ["403"]),
        ({"accept": False, "text": "hi"}, ["403"]),
        ({"text": "hi"}, ["101", b"\x81\x02hi"]),
        ({"bytes": b"hi"}, ["101", b"\x82\x02hi"]),
        ({"text": ""}, []),
        ({"close": True}, ["403"]),
        ({"close": 3000}, ["403"]),
        ({"close": 1011}, ["500"]),
        ({"close": False}, []),
        ({"text": "hi", "close": 0}, ["101", b"\x81\x02hi"]),
        ({"close": True, "text": "hi"}, ["101", b"\x81\x02hi", 1000]),
        ({"close": 4001, "bytes": b"hi"}, ["101", b"\x82\x02hi", 4001]),
    ],
)
def test_the_handshake_table_of_channels_1(message, expected):
    seen = []
    for action in connecting().reply(parse_socket_reply(message), 1.0):
        match action:
            case Accept():
                seen.append("101")
            case Refuse(status, _, _):
                seen.append(str(status))
            case Write(frame):
                seen.append(frame)
            case Close(code):
                seen.append(code)
    assert seen == expected


def test_an_open_socket_ignores_accept():
    assert opened().reply(SocketReply(accept=False), 1.0) == []


def test_a_frame_waits_until_the_consumer_of_the_previous_one_has_ended():
    socket = opened()
    assert socket.receive("a", 0.0) == [Offer(1, "a")]
    assert socket.receive("b", 0.0) == []
    assert socket.finished(None) == [Offer(2, "b")]


def test_a_frame_waits_while_the_connect_consumer_that_accepted_still_runs():
    socket = connecting()
    socket.reply(SocketReply(accept=True), 0.0)
    assert socket.receive("a", 0.0) == []
    assert socket.finished(None) == [Offer(1, "a")]


def test_the_session_is_that_of_the_last_finish_which_changed_it():
    socket = opened()
    socket.receive("a", 0.0)
    socket.finished(b"one")
    socket.receive("b", 0.0)
    socket.finished(None)
    assert socket.session == b"one"


def values(**given_):
    return sessions.pack({key: b"%d" % value for key, value in given_.items()})


def merging(changed=None, deleted=()):
    return sessions.Changes({key: b"%d" % value for key, value in (changed or {}).items()}, list(deleted))


def test_the_layers_record_gets_the_session_of_the_connect_consumer():
    socket = connecting()
    socket.reply(SocketReply(accept=True), 0.0)
    assert socket.finished(b"one") == [Mirror(0, b"one")]
    assert socket.receive("a", 0.0) == [Offer(1, "a")]
    assert socket.finished(b"two") == []


def test_what_is_merged_is_mirrored_with_the_order_of_the_next_frame():
    socket = opened()
    assert socket.merge(merging({"a": 1})) == [Mirror(0, values(a=1))]
    socket.receive("x", 0.0)
    socket.finished(None)
    assert socket.merge(merging({"b": 2}, ["a"])) == [Mirror(1, values(b=2))]
    assert socket.session == values(b=2)


def test_a_merge_while_a_frame_is_unfinished_and_the_frames_finish_keep_each_others_changes():
    socket = opened()
    socket.merge(merging({"both": 0, "frame": 0, "merged": 0}))
    socket.receive("x", 0.0)
    socket.receive("y", 0.0)
    assert socket.merge(merging({"both": 1, "merged": 1})) == [Mirror(1, values(both=1, frame=0, merged=1))]
    socket.merge(merging({"late": 1}))
    done = socket.finished(values(both=2, frame=2, merged=0))
    expected = {"both": b"2", "frame": b"2", "merged": b"1", "late": b"1"}
    mirror, offer = done
    assert (sessions.unpack(mirror.session), mirror.order, offer) == (expected, 1, Offer(2, "y"))
    # What the next frame finishes with was made of all that.
    assert socket.finished(b"") == []
    assert socket.session == b""


def test_a_frame_that_leaves_the_session_alone_keeps_what_was_merged():
    socket = opened()
    socket.receive("x", 0.0)
    socket.merge(merging({"a": 1}))
    assert socket.finished(None) == [Mirror(1, values(a=1))]
    assert socket.session == values(a=1)


def test_a_merge_after_the_client_has_left_is_in_the_disconnects_session():
    socket = opened()
    socket.receive("x", 0.0)
    socket.lost(1000)
    assert socket.merge(merging({"a": 1})) == []
    assert socket.finished(values(b=1)) == [End(1000, 2)]
    assert sessions.unpack(socket.session) == {"a": b"1", "b": b"1"}


def test_a_merge_before_the_accept_needs_no_record_of_its_own():
    socket = connecting()
    assert socket.merge(merging({"a": 1})) == []
    assert socket.reply(SocketReply(accept=True), 0.0) == [Accept()]
    assert socket.finished(values(b=1)) == [Mirror(0, values(a=1, b=1))]


def test_a_merge_that_lets_the_session_grow_too_large_is_dropped_with_an_error():
    socket = opened()
    large = sessions.Changes({"a": b"x" * sessions.MAX_MERGED_BYTES}, [])
    (report,) = socket.merge(large)
    assert (report.level, socket.session) == ("ERROR", b"") and "limit" in report.text
    # What a finish has stored may be larger, and be made smaller.
    socket.receive("x", 0.0)
    socket.finished(sessions.pack({"a": b"x" * sessions.MAX_MERGED_BYTES, "b": b"1"}))
    assert socket.merge(merging(deleted=["b"])) == [Mirror(1, socket.session)]


def test_a_merge_into_what_is_no_session_is_dropped_with_an_error():
    socket = opened()
    socket.receive("x", 0.0)
    socket.finished(b"of another kind")
    (report,) = socket.merge(merging({"a": 1}))
    assert report.level == "ERROR" and socket.session == b"of another kind"


def test_reading_pauses_at_the_limit_of_frames_and_resumes_at_half_of_it():
    socket = opened()
    socket.receive("running", 0.0)
    assert [socket.receive("x", 0.0) for _ in range(4)] == [[], [], [], [PauseReading()]]
    assert socket.finished(None) == [Offer(2, "x")]
    assert socket.finished(None) == [Offer(3, "x")]
    assert socket.finished(None) == [Offer(4, "x"), ResumeReading()]


def test_reading_pauses_at_the_limit_of_bytes():
    socket = opened()
    socket.receive("running", 0.0)
    assert socket.receive("x" * 99, 0.0) == []
    assert socket.receive("x", 0.0) == [PauseReading()]


def test_a_client_that_sends_and_closes_has_its_frames_run_before_the_disconnect():
    socket = opened()
    socket.receive("a", 0.0)
    socket.receive("b", 0.0)
    assert socket.lost(1001) == []
    assert socket.finished(None) == [Offer(2, "b")]
    assert socket.finished(None) == [End(1001, 3)]
    assert socket.finished(None) == []


@pytest.mark.parametrize(("code", "expected"), [(1000, 1000), (1005, 1005), (0, 1006)])
def test_the_disconnect_carries_the_clients_code_or_1006(code, expected):
    assert opened().lost(code) == [End(expected, 1)]


def test_the_disconnect_carries_our_code_if_the_client_does_not_answer_it():
    socket = opened()
    assert socket.close(1012, 0.0) == [Close(1012)]
    assert socket.tick(CLOSE_TIMEOUT - 0.1) == []
    assert socket.tick(CLOSE_TIMEOUT) == [Abort(), End(1012, 1)]
    assert socket.lost() == []


def test_frames_after_our_close_frame_are_dropped_and_reading_resumes_for_the_answer():
    socket = opened()
    for _ in range(5):
        socket.receive("x", 0.0)
    assert socket.close(1000, 0.0) == [Close(1000), ResumeReading()]
    assert socket.receive("late", 0.0) == []
    assert socket.waiting is not None and len(socket.waiting) == 4


def test_a_socket_that_was_never_accepted_ends_without_a_disconnect():
    socket = connecting()
    assert socket.lost() == [Withdraw()]
    assert socket.failed("withdrawn", 0.0) == [End(1006, None)]
    socket = connecting()
    socket.lost()
    assert socket.finished(None) == [End(1006, None)]


@pytest.mark.parametrize("leave", [lambda s: s.lost(), lambda s: s.close(1012, 0.0), lambda s: s.tick(20.0)])
def test_a_socket_that_is_accepted_after_its_client_has_left_has_a_disconnect(leave):
    socket = connecting()
    assert leave(socket)[-1] == Withdraw()
    assert socket.reply(SocketReply(accept=True), 20.0) == [AcceptLate(0, b"")]
    assert socket.reply(SocketReply(frame=b"x", has_content=True), 20.0) == []
    assert socket.group(SocketReply(frame=b"x"), 20.0) == []
    assert socket.finished(b"session") == [End(1006, 1)]
    assert socket.session == b"session"


def test_a_connect_consumer_without_an_answer_is_waited_for_until_the_handshake_timeout():
    socket = connecting()
    assert socket.finished(None) == []
    assert socket.tick(19.9) == []
    report, refuse, end = socket.tick(20.0)
    assert isinstance(report, Report) and "has ended without an answer" in report.text
    assert isinstance(refuse, Refuse) and refuse.status == 503
    assert end == End(0, None)


@pytest.mark.parametrize(("reason", "status"), [("lost", 500), ("full", 503), ("expired", 503)])
def test_a_failed_connect_refuses_the_handshake(reason, status):
    refuse, end = connecting().failed(reason, 0.0)
    assert isinstance(refuse, Refuse) and refuse.status == status
    assert end == End(0, None)


def test_a_lost_frame_closes_the_socket_with_1011_and_reports_what_is_dropped():
    socket = opened()
    for _ in range(3):
        socket.receive("x", 0.0)
    report, close = socket.failed("lost", 0.0)
    assert isinstance(report, Report) and "2 waiting frames are dropped" in report.text
    assert close == Close(1011)
    assert socket.lost() == [End(1011, 2)]


def test_a_group_message_waits_for_the_accept():
    socket = connecting()
    assert socket.group(SocketReply(frame=b"news"), 0.0) == []
    actions = socket.reply(SocketReply(accept=True, frame=b"hello", has_content=True), 0.0)
    assert actions == [Accept(), Write(b"hello"), Write(b"news")]


def test_group_messages_beyond_the_bound_are_reported_not_kept():
    socket = connecting()
    for _ in range(HELD_REPLIES):
        assert socket.group(SocketReply(frame=b"x"), 0.0) == []
    (report,) = socket.group(SocketReply(frame=b"x"), 0.0)
    assert isinstance(report, Report)


def test_nothing_is_sent_after_a_close():
    actions = opened().reply(SocketReply(close=1000), 0.0)
    assert actions == [Close(1000)]
    socket = opened()
    socket.reply(SocketReply(close=1000), 0.0)
    assert socket.reply(SocketReply(frame=b"x"), 0.0) == []
    assert socket.group(SocketReply(frame=b"x"), 0.0) == []


def test_an_idle_socket_is_pinged_and_dropped_if_nothing_comes_back():
    socket = opened()
    assert socket.tick(9.9) == []
    assert socket.tick(10.0) == [Ping()]
    assert socket.tick(14.9) == []
    assert socket.tick(15.0) == [Count("ping_timeout"), Abort(), End(1006, 1)]


def test_any_byte_counts_as_a_sign_of_life():
    socket = opened()
    assert socket.tick(10.0) == [Ping()]
    socket.alive(12.0)
    assert socket.tick(15.0) == []
    assert socket.tick(22.0) == [Ping()]


def test_paused_reading_suspends_pings():
    socket = opened()
    for _ in range(5):
        socket.receive("x", 0.0)
    assert socket.is_paused
    assert socket.tick(1000.0) == []


def test_after_a_pause_the_idle_time_starts_anew():
    socket = opened()
    for _ in range(5):
        socket.receive("x", 0.0)
    socket.tick(1000.0)
    while socket.is_paused:
        socket.finished(None)
    assert socket.tick(1001.0) == []
    assert socket.tick(1010.0) == [Ping()]


def test_a_disowned_socket_is_closed_and_has_no_disconnect():
    socket = opened()
    socket.receive("a", 0.0)
    socket.receive("b", 0.0)
    assert socket.disown(0.0) == [Close(1012)]
    assert socket.lost(1012) == []


def travelled(socket):
    return Connection.load(msgpack.unpackb(msgpack.packb(socket.dump())), socket.limits)


def test_all_of_a_socket_travels_as_plain_data():
    socket = connecting()
    socket.group(SocketReply(frame=b"early"), 1.0)
    assert travelled(socket).reply(SocketReply(accept=True), 2.0) == [Accept(), Write(b"early")]
    socket.reply(SocketReply(accept=True), 2.0)
    for data in ("a", b"b", "c"):
        socket.receive(data, 3.0)
    socket.merge(sessions.Changes({"n": 1}, []))
    other = travelled(socket)
    assert {name: getattr(other, name) for name in Connection.__slots__} == {
        name: getattr(socket, name) for name in Connection.__slots__
    }


REPLIES = [{"accept": True}, {"text": "x"}, {"close": 4000}, {"accept": False}]
EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("receive"), st.text(max_size=60)),
        st.tuples(st.just("finish"), st.one_of(st.none(), st.binary(max_size=3))),
        st.tuples(
            st.just("reply"), st.sampled_from([{"accept": True}, {"text": "x"}, {"close": 4000}, {"accept": False}])
        ),
        st.tuples(st.just("group"), st.sampled_from([{"text": "x"}, {"close": True}])),
        st.tuples(st.just("fail"), st.sampled_from(["lost", "full"])),
        st.tuples(st.just("lost"), st.sampled_from([0, 1000, 1005])),
        st.tuples(st.just("close"), st.just(1012)),
        st.tuples(st.just("tick"), st.floats(0, 30)),
    ),
    max_size=40,
)


@settings(max_examples=150, deadline=None)
@given(EVENTS, st.booleans())
def test_whatever_happens_frames_run_in_order_once_each_and_the_end_comes_once(events, travels):
    """At most one unfinished offer; offers in the order received; none twice; one end; a disconnect iff accepted.

    The same for a socket that *travels* as plain data between any two events.
    """
    now, out, received, offered, dropped, ends, accepted = 0.0, 1, [], [], 0, [], False
    socket = connecting()
    closing = False

    def look(actions):
        nonlocal out, accepted, closing
        for action in actions:
            match action:
                case Offer(order, data):
                    assert not ends
                    out += 1
                    assert out == 1, "two offers at once"
                    offered.append((order, data))
                case Accept() | AcceptLate():
                    assert not accepted and not ends
                    accepted = True
                case Write():
                    assert accepted and not closing and socket.state is not State.CLOSED
                case Close():
                    assert not closing
                    closing = True
                case End(_, order):
                    assert out == 0 or not accepted
                    ends.append(order)

    for name, value in [*events, ("lost", 0)]:
        if travels:
            socket = travelled(socket)
        match name:
            case "receive":
                if socket.state is State.OPEN and not socket.is_paused:
                    received.append(value)
                    look(socket.receive(value, 0.0))
            case "finish":
                if out:
                    out -= 1
                    look(socket.finished(value))
            case "fail":
                if out:
                    out -= 1
                    before = len(socket.waiting or ())
                    look(socket.failed(value, now))
                    dropped += before
            case "reply":
                look(socket.reply(parse_socket_reply(value), now))
            case "group":
                look(socket.group(parse_socket_reply(value), now))
            case "lost":
                look(socket.lost(value))
            case "close":
                look(socket.close(value, now))
            case "tick":
                now += value
                look(socket.tick(now))
        assert len(socket.waiting or ()) <= LIMITS.max_waiting_frames
    while out and not (ends and not accepted):
        out -= 1
        look(socket.finished(None))
    assert len(ends) == 1
    assert ends == [offered[-1][0] + 1 if offered else 1] if accepted else ends == [None]
    assert [data for _, data in offered] == received[: len(received) - dropped]
    assert [order for order, _ in offered] == list(range(1, len(offered) + 1))


RATE = LIMITS._replace(max_waiting_frames=1000, max_waiting_bytes=10_000, message_rate=10.0)


def test_a_socket_that_sends_more_than_its_rate_is_read_no_further_until_its_time_has_come():
    socket = opened(RATE)
    for number in range(10):
        assert PauseReading() not in socket.receive(f"{number}", 0.0)
    count, pause, report = socket.receive("over", 0.0)
    assert (count, pause) == (Count("max_message_rate"), PauseReading())
    assert isinstance(report, Report) and "more than 10 messages a second" in report.text
    assert socket.waiting is not None and len(socket.waiting) == 10  # it was read: it is not lost
    assert socket.receive("and what came with it", 0.0) == []
    assert socket.tick(0.1) == [] and socket.is_paused
    assert socket.tick(0.21) == [ResumeReading()] and not socket.is_paused


def test_a_socket_within_its_rate_is_never_paused():
    socket = opened(RATE)
    for number in range(100):
        assert PauseReading() not in socket.receive("x", number * 0.1)
        socket.finished(None)


def test_a_socket_is_read_again_only_if_neither_its_rate_nor_its_frames_forbid_it():
    socket = opened(RATE._replace(max_waiting_frames=4))
    for _ in range(20):
        socket.receive("x", 0.0)
    assert socket.is_paused and socket.is_throttled
    for _ in range(10):
        assert ResumeReading() not in socket.finished(None)  # its rate forbids it
    assert socket.tick(5.0) == []  # its frames do
    while socket.is_paused:
        socket.finished(None)
    assert socket.waiting is not None and len(socket.waiting) <= 2


def test_a_socket_over_its_rate_is_closed_when_it_is_told_to():
    socket = opened(RATE)
    for _ in range(20):
        socket.receive("x", 0.0)
    assert socket.close(1012, 0.0) == [Close(1012), ResumeReading()]


def test_a_socket_that_is_read_more_slowly_again_and_again_is_counted_each_time_and_told_of_once():
    socket, counted, told = opened(RATE), 0, 0
    for second in range(0, 30, 3):
        socket.tick(float(second))
        for _ in range(15):
            actions = socket.receive("x", float(second))
            counted += sum(isinstance(each, Count) for each in actions)
            told += sum(isinstance(each, Report) for each in actions)
    assert (counted, told) == (10, 1)


@given(st.lists(st.floats(0, 1), max_size=200))
@settings(max_examples=50)
def test_the_rate_holds_on_average_whatever_the_pauses(gaps):
    socket, now, read = opened(RATE), 0.0, 0
    for gap in gaps:
        now += gap
        socket.tick(now)
        while not socket.is_paused and read < 1000:
            socket.receive("x", now)
            socket.finished(None)
            read += 1
    assert read <= 10 * (now + 1) + 1 + len(gaps)
