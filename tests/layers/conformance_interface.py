"""What an interface server relies on in every layer: offers and their ends, owed disconnects, groups, waited parts.

A backend provides the fixtures ``make`` (layers of the synchronous contract), ``layer`` (one of these) and
``make_interface(**options)``: a ``RecordingInterface`` at the same place, closed at the end.
"""

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from procman.layers.base import Delivery, Send
from procman.layers.errors import LayerUnavailable, ReplyChannelGone
from tests.layers.conformance import Make, contents, rest
from tests.support.layers import RecordingInterface
from tests.support.waiting import wait_until

MakeInterface = Callable[..., RecordingInterface]
CHANNELS = ["websocket.connect", "websocket.receive", "websocket.disconnect", "http.request"]


def take(layer: Any, timeout: float = 10.0) -> Delivery:
    """The next delivery of an interface's frame."""
    delivery: Delivery | None = layer.take(CHANNELS, timeout)
    assert delivery is not None
    return delivery


def take_in_thread(make: Make) -> tuple[Delivery, Callable[[], None]]:
    """A worker of its own has the delivery; it dies when the second value is called."""
    taken: list[Delivery] = []
    has_taken, may_end = threading.Event(), threading.Event()

    def work() -> None:
        taken.append(take(make()))
        has_taken.set()
        may_end.wait(20)

    thread = threading.Thread(target=work)
    thread.start()
    assert has_taken.wait(20)

    def die() -> None:
        may_end.set()
        thread.join(10)

    return taken[0], die


class InterfaceSuite:
    """Inherited by one class per backend."""

    @pytest.fixture
    def interface(self, layer: Any, make_interface: MakeInterface) -> RecordingInterface:
        return make_interface()

    # -- offers -------------------------------------------------------------------------------------------------------

    def test_an_offer_comes_back_finished_with_its_replies_in_order(
        self, interface: RecordingInterface, layer: Any
    ) -> None:
        number = interface.offer("websocket.receive", {"text": "hi"}, session=b"before")
        delivery = take(layer)
        assert (delivery.message, delivery.session, delivery.redelivered) == ({"text": "hi"}, b"before", False)
        mine = interface.channel()
        layer.group_add("room", mine)
        sends = [Send(mine, {"n": 1}), Send("room", {"n": 2}, True), Send(mine, {"n": 3})]
        layer.finish(delivery, sends, session=b"after")
        assert interface.heard("finished") == (number, b"after")
        told = [event for event in interface.events if event[0] in ("reply", "group", "finished")]
        assert told == [
            ("reply", mine, {"n": 1}),
            ("group", "room", {"n": 2}),
            ("reply", mine, {"n": 3}),
            ("finished", number, b"after"),
        ]

    def test_what_a_consumer_sends_at_once_comes_before_its_end(
        self, interface: RecordingInterface, layer: Any
    ) -> None:
        interface.offer("websocket.receive", {})
        delivery = take(layer)
        for number in range(20):
            layer.send(interface.channel(), {"n": number})
        layer.finish(delivery, [Send(interface.channel(), {"n": 20})])
        interface.heard("finished")
        assert [message["n"] for _, message in interface.all("reply")] == list(range(21))

    def test_offers_of_one_interface_are_taken_in_order_and_each_ends_once(
        self, interface: RecordingInterface, layer: Any
    ) -> None:
        numbers = [interface.offer("websocket.receive", {"n": n}) for n in range(50)]
        seen = []
        for _ in numbers:
            delivery = take(layer)
            seen.append(delivery.message["n"])
            layer.finish(delivery)
        layer.take(CHANNELS, 0)
        interface.heard("finished", count=50)
        assert seen == list(range(50))
        assert [number for number, _ in interface.all("finished")] == numbers

    def test_frames_of_sockets_ignore_capacity_and_expiry(self, make: Make, make_interface: MakeInterface) -> None:
        layer = make()
        interface = make_interface(capacity=2, expiry=0.1)
        for _ in range(5):
            interface.offer("websocket.receive", {})
        rest(layer, 0.15)
        for _ in range(5):
            layer.finish(take(layer))
        layer.take(CHANNELS, 0)
        interface.heard("finished", count=5)
        assert interface.all("failed") == []

    def test_requests_past_the_capacity_fail_at_once_and_old_ones_expire(
        self, make: Make, make_interface: MakeInterface
    ) -> None:
        make()
        interface = make_interface(capacity=2, expiry=0.2)
        first, second, third = (interface.offer("http.request", {}, bounded=True) for _ in range(3))
        assert interface.heard("failed") == (third, "full")
        interface.heard("failed", count=3)
        assert sorted(interface.all("failed")[1:]) == [(first, "expired"), (second, "expired")]

    def test_a_withdrawn_offer_is_not_taken_and_that_is_told(self, interface: RecordingInterface, layer: Any) -> None:
        number = interface.offer("http.request", {"n": 1}, bounded=True)
        interface.loop.call(interface.layer.withdraw, number)
        kept = interface.offer("http.request", {"n": 2}, bounded=True)
        delivery = take(layer)
        assert delivery.message == {"n": 2}
        layer.finish(delivery)
        layer.take(CHANNELS, 0)
        assert interface.heard("finished")[0] == kept
        assert interface.heard("failed") == (number, "withdrawn")
        assert interface.all("finished") == [(kept, None)] and len(interface.all("failed")) == 1

    # -- workers that die ---------------------------------------------------------------------------------------------

    def test_an_offer_whose_worker_dies_is_given_to_another_and_ends_once(
        self, interface: RecordingInterface, make: Make, layer: Any
    ) -> None:
        number = interface.offer("websocket.receive", {"n": 1}, session=b"s")
        first, die = take_in_thread(make)
        die()
        second = take(layer)
        assert (second.id, second.redelivered, second.session) == (first.id, True, b"s")
        layer.finish(second, [Send(interface.channel(), {"n": 1})])
        assert interface.heard("finished") == (number, None)
        assert len(interface.all("reply")) == 1

    def test_an_offer_whose_second_worker_dies_is_lost(self, interface: RecordingInterface, make: Make) -> None:
        number = interface.offer("websocket.receive", {})
        for _ in range(2):
            take_in_thread(make)[1]()
        assert interface.heard("failed") == (number, "lost")

    def test_an_unsafe_request_is_begun_before_it_is_taken_and_lost_with_its_worker(
        self, interface: RecordingInterface, make: Make, layer: Any
    ) -> None:
        number = interface.offer("http.request", {"method": "POST"}, bounded=True, redeliverable=False)
        _, die = take_in_thread(make)
        assert interface.heard("begun") == (number,)
        die()
        assert interface.heard("failed") == (number, "lost")
        assert layer.take(CHANNELS, 0.15) is None

    def test_a_request_whose_response_has_begun_is_lost_with_its_worker(
        self, interface: RecordingInterface, make: Make, layer: Any
    ) -> None:
        number = interface.offer("http.request", {"n": 1}, bounded=True)
        _, die = take_in_thread(make)
        interface.loop.call(interface.layer.settle, number)
        interface.offer("http.request", {"n": 2}, bounded=True)
        wait_until(lambda: layer.channel_statistics("http.request")["messages_pending"] == 1)  # it was told by now
        die()
        assert interface.heard("failed") == (number, "lost")
        assert take(layer).message == {"n": 2}
        assert layer.take(CHANNELS, 0.3) is None

    def test_a_request_whose_worker_died_before_its_response_was_seen_to_begin_is_lost_too(
        self, interface: RecordingInterface, make: Make, layer: Any
    ) -> None:
        before = layer.statistics()["redelivered_count"]
        number = interface.offer("http.request", {"n": 1}, bounded=True)
        take_in_thread(make)[1]()
        wait_until(lambda: layer.statistics()["redelivered_count"] == before + 1)
        interface.loop.call(interface.layer.settle, number)
        assert interface.heard("failed") == (number, "lost")
        assert layer.take(CHANNELS, 0.3) is None

    def test_a_request_that_is_finished_may_be_told_to_have_begun(
        self, interface: RecordingInterface, layer: Any
    ) -> None:
        number = interface.offer("http.request", {"n": 1}, bounded=True)
        layer.finish(take(layer))
        assert interface.heard("finished") == (number, None)
        interface.loop.call(interface.layer.settle, number)
        other = interface.offer("http.request", {"n": 2}, bounded=True)
        layer.finish(take(layer))
        assert interface.heard("finished", count=2) == (other, None)

    # -- sockets ------------------------------------------------------------------------------------------------------

    def test_a_socket_that_closes_gets_its_disconnect_once(self, interface: RecordingInterface, layer: Any) -> None:
        interface.open("a")
        layer.group_add("room", interface.channel("a"))
        assert layer.group_count("room") == 1
        number = interface.shut("a")
        delivery = take(layer)
        assert (delivery.channel, delivery.message["code"]) == ("websocket.disconnect", 1000)
        layer.finish(delivery)
        layer.take(CHANNELS, 0)
        assert interface.heard("finished") == (number, None)
        assert (layer.group_channels("room"), layer.group_count("room")) == ([], 0)
        again = interface.shut("a")
        assert interface.heard("finished", count=2) == (again, None)
        assert layer.take(CHANNELS, 0.05) is None

    def test_a_dead_interface_gets_the_disconnects_of_its_sockets_run_once_each(
        self, layer: Any, make_interface: MakeInterface
    ) -> None:
        interface = make_interface()
        interface.open("a", order=3, session=b"sa")
        interface.open("b", order=1)
        interface.loop.run(interface.layer.group_add("room", interface.channel("a")))
        interface.abandon()
        seen = {}
        for _ in range(2):
            delivery = take(layer)
            assert delivery.channel == "websocket.disconnect"
            seen[delivery.message["reply_channel"]] = (delivery.message, delivery.session)
            layer.finish(delivery)
        message, session = seen[interface.channel("a")]
        assert message == {"reply_channel": interface.channel("a"), "code": 1006, "path": "/ws/", "order": 3}
        assert session == b"sa"
        assert layer.take(CHANNELS, 0.05) is None
        assert layer.group_channels("room") == []

    def test_an_interface_that_says_goodbye_leaves_its_queued_frames_valid(
        self, layer: Any, make_interface: MakeInterface
    ) -> None:
        interface = make_interface()
        interface.open("a")
        interface.shut("a")
        interface.close()
        delivery = take(layer)
        assert (delivery.channel, delivery.message["code"]) == ("websocket.disconnect", 1000)
        layer.finish(delivery)
        assert layer.take(CHANNELS, 0.05) is None

    def test_a_socket_that_is_told_of_again_has_its_last_session_and_one_disconnect(
        self, layer: Any, make_interface: MakeInterface
    ) -> None:
        interface = make_interface()
        interface.open("a", order=1, session=b"first")
        interface.open("a", order=4, session=b"merged")
        interface.loop.run(interface.layer.group_add("room", interface.channel("a")))  # what was said before has come
        interface.abandon()
        delivery = take(layer)
        assert (delivery.session, delivery.message["order"]) == (b"merged", 4)
        layer.finish(delivery)
        assert layer.take(CHANNELS, 0.05) is None

    def test_an_empty_session_is_told_from_none(self, interface: RecordingInterface, layer: Any) -> None:
        number = interface.offer("websocket.receive", {}, session=b"")
        delivery = take(layer)
        assert delivery.session == b""
        layer.finish(delivery, session=b"")
        assert interface.heard("finished") == (number, b"")
        interface.offer("http.request", {})
        delivery = take(layer)
        assert delivery.session is None
        layer.finish(delivery)

    def test_an_interface_answers_a_worker_while_its_message_is_in_flight(
        self, interface: RecordingInterface, layer: Any
    ) -> None:
        layer.send("chat.receive", {})
        delivery = layer.take(["chat.receive"], 10)
        answer = layer.new_channel("answer?")
        layer.send_and_wait(interface.channel(), {"ask": answer}, timeout=10)
        assert interface.heard("reply") == (interface.channel(), {"ask": answer})
        interface.loop.run(interface.layer.send(answer, {"n": 1}))
        assert layer.receive_many([answer], block=True, timeout=10) == (answer, {"n": 1})
        layer.finish(delivery, [Send(interface.channel(), {"n": 2}), Send(interface.channel(), {"n": 3})])
        assert interface.heard("reply", count=2) == (interface.channel(), {"n": 2})

    # -- groups -------------------------------------------------------------------------------------------------------

    def test_a_group_send_is_one_message_per_interface_however_many_members_it_has(
        self, interface: RecordingInterface, make_interface: MakeInterface, layer: Any
    ) -> None:
        other = make_interface()
        for holder in (interface, other):
            for number in range(30):
                layer.group_add("room", holder.channel(str(number)))
        layer.group_add("room", "ordinary")
        assert len(layer.group_channels("room")) == layer.group_count("room") == 61
        wait_until(lambda: len(interface.members) == len(other.members) == 30)
        layer.send_group("room", {"n": 1})
        assert interface.heard("group") == other.heard("group") == ("room", {"n": 1})
        assert contents(layer, "ordinary") == [{"n": 1}]
        layer.send_group("room", {"n": 2})
        interface.heard("group", count=2)
        assert len(interface.all("group")) == 2

    def test_an_interface_without_members_hears_nothing_of_a_group(
        self, interface: RecordingInterface, layer: Any
    ) -> None:
        layer.group_add("room", interface.channel())
        layer.group_discard("room", interface.channel())
        layer.send_group("room", {"n": 1})
        layer.send(interface.channel(), {"n": 2})
        interface.heard("reply")
        assert interface.all("group") == [] and not interface.members

    def test_flush_reaches_the_interfaces(self, interface: RecordingInterface, layer: Any) -> None:
        layer.group_add("room", interface.channel())
        wait_until(lambda: interface.members)
        number = interface.offer("websocket.receive", {})
        layer.flush()
        assert interface.heard("failed") == (number, "lost")
        wait_until(lambda: not interface.members)

    # -- parts of responses and of bodies -----------------------------------------------------------------------------

    def test_a_part_that_is_waited_for_returns_when_the_interface_has_written_it(
        self, interface: RecordingInterface, layer: Any
    ) -> None:
        layer.send_and_wait(interface.channel(), {"content": b"part"}, timeout=10)
        assert interface.heard("reply") == (interface.channel(), {"content": b"part"})
        interface.answers_tokens = False
        with pytest.raises(ReplyChannelGone):
            layer.send_and_wait(interface.channel(), {"content": b"part"}, timeout=10)

    def test_a_part_that_is_never_written_is_waited_for_as_long_as_was_asked(
        self, interface: RecordingInterface, layer: Any
    ) -> None:
        interface.answers_tokens = None
        with pytest.raises(LayerUnavailable):
            layer.send_and_wait(interface.channel(), {"content": b"part"}, timeout=0.05)
        interface.answers_tokens = True
        layer.send_and_wait(interface.channel(), {"content": b"next"}, timeout=10)

    def test_a_sender_that_waits_hears_of_the_death_of_the_interface(
        self, layer: Any, make_interface: MakeInterface
    ) -> None:
        interface = make_interface()
        interface.answers_tokens = None
        raised: list[BaseException] = []

        def wait() -> None:
            with pytest.raises(ReplyChannelGone) as caught:
                layer.send_and_wait(interface.channel(), {}, timeout=20)
            raised.append(caught.value)

        thread = threading.Thread(target=wait)
        thread.start()
        interface.heard("reply")
        interface.abandon()
        thread.join(10)
        assert len(raised) == 1

    def test_sending_when_there_is_room_waits_for_the_reader(self, interface: RecordingInterface, layer: Any) -> None:
        client, loop = interface.layer, interface.loop
        name = layer.new_channel("body?")
        for number in range(100):
            loop.run(client.send(name, {"n": number}))
        waiting = asyncio.run_coroutine_threadsafe(client.send_when_room(name, {"n": 100}), loop.loop)
        wait_until(lambda: layer.channel_statistics(name)["messages_pending"] == 100)
        assert not waiting.done()
        received = [layer.receive_many([name], block=True, timeout=10)[1]["n"] for _ in range(101)]
        assert received == list(range(101))
        waiting.result(10)
