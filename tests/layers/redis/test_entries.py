import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from procman.layers.base import Offer
from procman.layers.limits import Limits
from procman.layers.redis import entries


def raw_entry(flags: int, id_: str, tail: bytes, deaths: int = 0) -> bytes:
    """An entry as the scripts make it."""
    header = struct.pack(">dddBBB", 2.0, 1.0, 60000.0, deaths, flags, 3)
    return header + id_.encode() + b"\0work\0web!1\0" + tail


@given(st.none() | st.binary(max_size=300), st.binary(max_size=300))
def test_session_and_body_come_apart_as_they_were_put_together(session: bytes | None, body: bytes) -> None:
    assert entries.split_tail(entries.build_tail(body, session)) == (session, body)


def test_an_entry_of_an_offer_names_its_interface_and_number() -> None:
    entry = entries.parse(raw_entry(entries.OFFER, "web.1a:17", entries.build_tail(b"body\0\0", b"s"), deaths=1))
    assert (entry.interface, entry.number, entry.id) == ("web.1a", "17", "web.1a:17")
    assert (entry.channel, entry.reply_channel, entry.session, entry.body) == ("work", "web!1", b"s", b"body\0\0")
    assert (entry.deaths, entry.deferrals) == (1, 3)


def test_an_entry_that_nobody_offered_has_no_interface() -> None:
    assert entries.parse(raw_entry(0, "sender.1:2", entries.build_tail(b""))).interface == ""


@pytest.mark.parametrize("raw", [b"", b"short", b"\0" * 27, raw_entry(0, "id", b"")])
def test_bytes_that_are_no_entry_are_refused(raw: bytes) -> None:
    with pytest.raises(ValueError):
        entries.parse(raw)


@pytest.mark.parametrize(("channel", "interface"), [("web.1!a", "web.1"), ("work", ""), ("body?x", ""), ("!x", "")])
def test_only_process_local_names_belong_to_an_interface(channel: str, interface: str) -> None:
    assert entries.interface_of(channel) == interface


def test_a_send_carries_the_senders_limits() -> None:
    limits = Limits(expiry=2.5, channel_capacity={"work": 7})
    fields = entries.send_fields("work", b"b", "web!1", "id", limits)
    assert fields == ("", "work", 7, "id", "work", "web!1", 0, 2500, b"\xff\xff\xff\xffb")


def test_only_bounded_offers_count_and_expire_and_none_is_refused_when_it_is_made_again() -> None:
    limits = Limits(expiry=2.5, capacity=7)
    request = Offer(1, "http.request", b"b", "web!1", redeliverable=False, bounded=True)
    frame = Offer(2, "websocket.receive", b"b", "web!1", session=b"s")
    assert entries.offer_fields(request, None, limits, 0)[3:8] == (7, "http.request", "web!1", 7, 2500)
    assert entries.offer_fields(request, None, limits, entries.AGAIN)[3] == 0
    assert entries.offer_fields(frame, b"s", limits, entries.SOCKET)[3:8] == (
        0, "websocket.receive", "web!1", entries.OFFER | entries.SOCKET, 0,
    )  # fmt: skip
