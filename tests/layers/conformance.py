"""What every channel layer must do, as one suite: the 18 rows of the 1.x conformance tests, and what goes beyond.

A subclass provides the fixtures ``make(**options)``, which makes a layer of the synchronous contract that sees what
other layers of the same test send, and ``layer``, one of these. The asyncio client takes part through ``Blocking``.
``logged`` is what the layer has logged, wherever it runs. What happens when a worker dies is in
``conformance_deaths.py``, what an interface server relies on in ``conformance_interface.py``.
"""

import inspect
import re
import resource
import statistics
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from procman.layers.base import Send
from procman.layers.errors import ChannelFull, MessageTooLarge
from tests.support.waiting import wait_until

Make = Callable[..., Any]
MIB = 1024 * 1024
# Of three looks of half a second one is to be as quiet as this: a busy machine wakes threads for reasons of its own,
# but somebody who polls every 100 ms is at 5 in each.
_QUIET_SWITCHES, _QUIET_CPU = 3, 0.01
_PROMPT = 0.02


class Blocking:
    """An asyncio layer behind the synchronous contract."""

    def __init__(self, layer: Any, loop: Any) -> None:
        self._layer, self._loop = layer, loop

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._layer, name)
        if not inspect.iscoroutinefunction(found):
            return found
        return lambda *arguments, **options: self._loop.run(found(*arguments, **options))

    def receive_where_it_runs(self, *arguments: Any, **options: Any) -> Any:
        """What the thread that waits used while it did, before and after."""

        async def receive() -> Any:
            before = resource.getrusage(resource.RUSAGE_THREAD)
            await self._layer.receive_many(*arguments, **options)
            return before, resource.getrusage(resource.RUSAGE_THREAD)

        return self._loop.run(receive())


def rest(layer: Any, seconds: float) -> None:
    """Let *seconds* pass: a blocking receive on a channel that nobody sends to."""
    assert layer.receive_many(["never"], block=True, timeout=seconds) == (None, None)


def contents(layer: Any, *channels: str) -> list[Any]:
    """Everything that waits on *channels*."""
    found = []
    while (message := layer.receive_many(list(channels))[1]) is not None:
        found.append(message)
    return found


def assert_quiet(wait: Callable[[], tuple[Any, Any]]) -> None:
    """*wait* returns what the thread that waits had used before and after a wait of half a second."""
    seen = []
    for _ in range(3):
        before, after = wait()
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        seen.append((after.ru_nvcsw - before.ru_nvcsw, cpu))
        if seen[-1][0] <= _QUIET_SWITCHES and cpu <= _QUIET_CPU:
            return
    raise AssertionError(f"it slept anew, and used CPU seconds: {seen}")


def measured(wait: Callable[[], object]) -> tuple[Any, Any]:
    """What this thread had used before and after *wait*."""
    before = resource.getrusage(resource.RUSAGE_THREAD)
    wait()
    return before, resource.getrusage(resource.RUSAGE_THREAD)


class ConformanceSuite:
    """Inherited by one class per backend, with a fixture ``make`` and a fixture ``layer`` made by it."""

    @pytest.fixture
    def logged(self, caplog: pytest.LogCaptureFixture) -> Callable[[], str]:
        return lambda: caplog.text

    def test_messages_come_back_under_the_right_name(self, layer: Any) -> None:
        for number in range(3):
            layer.send("sr_test", {"value": number})
        layer.send("sr_test2", {"value": "other"})
        received = [layer.receive_many(["sr_test"]) for _ in range(3)]
        assert received == [("sr_test", {"value": number}) for number in range(3)]
        assert layer.receive_many(["sr_test", "sr_test2"]) == ("sr_test2", {"value": "other"})
        assert layer.receive_many(["sr_test", "sr_test2"]) == (None, None)

    def test_process_local_channels_are_received_by_their_prefix_under_their_full_name(self, layer: Any) -> None:
        layer.send("spr_test!a", {"best": "a"})
        assert layer.receive_many(["spr_test!"]) == ("spr_test!a", {"best": "a"})
        layer.send("spr_test!b", {"best": "b"})
        assert layer.receive_many(["spr_test!"]) == ("spr_test!b", {"best": "b"})

    @pytest.mark.parametrize("name", ["spr_test!c", "bad name", "a?b?c", "a?", "a\n", "", "x" * 100, "caf\xe9", "a!é"])
    def test_names_that_cannot_be_received_from_are_refused(self, layer: Any, name: str) -> None:
        with pytest.raises(TypeError):
            layer.receive_many([name])

    def test_a_name_for_a_list_and_too_long_a_list_are_refused(self, layer: Any) -> None:
        with pytest.raises(TypeError, match="a list"):
            layer.receive_many("abc")
        with pytest.raises(TypeError, match="at most 4096"):
            layer.receive_many([f"c{number}" for number in range(5000)])

    @pytest.mark.parametrize("message", [[1], "x", 5, None])
    def test_what_is_no_dict_is_no_message(self, layer: Any, message: Any) -> None:
        with pytest.raises(TypeError, match="a dict"):
            layer.send("c", message)

    @pytest.mark.parametrize("name", ["bad name", "a?", "a!\n", "x" * 100, b"bytes", "a!b!c"])
    def test_names_that_cannot_be_sent_to_are_refused(self, layer: Any, name: Any) -> None:
        with pytest.raises(TypeError):
            layer.send(name, {})

    @pytest.mark.parametrize("name", ["bad name", "a?b", "a!b", "x" * 100, "g\n", None])
    def test_names_that_cannot_be_groups_are_refused(self, layer: Any, name: Any) -> None:
        for call in (
            lambda: layer.send_group(name, {}),
            lambda: layer.group_add(name, "c"),
            lambda: layer.group_channels(name),
            lambda: layer.group_count(name),
        ):
            with pytest.raises(TypeError):
                call()

    def test_a_message_is_gone_after_its_expiry(self, make: Make) -> None:
        layer = make(expiry=0.1)
        layer.send("me_test", {"value": 1})
        rest(layer, 0.15)
        assert layer.receive_many(["me_test"]) == (None, None)

    def test_new_channels_are_single_reader_and_never_repeat(self, layer: Any) -> None:
        made = {layer.new_channel("test.foo?") for _ in range(50)}
        assert len(made) == 50
        name = made.pop()
        assert name.startswith("test.foo?") and not name.endswith("?")
        layer.send(name, {"value": 1})
        assert layer.receive_many([name]) == (name, {"value": 1})

    def test_new_channel_makes_process_local_names(self, layer: Any) -> None:
        name = layer.new_channel("test!")
        layer.send(name, {"value": 1})
        assert layer.receive_many(["test!"]) == (name, {"value": 1})

    @pytest.mark.parametrize("pattern", ["test.foo", "", "x" * 98 + "?"])
    def test_new_channel_refuses_other_patterns(self, layer: Any, pattern: str) -> None:
        with pytest.raises(TypeError):
            layer.new_channel(pattern)

    def test_types_survive_and_tuples_become_lists(self, layer: Any) -> None:
        message = {
            "nested": {
                "b": b"\x00\xff",
                "s": "naïve \U0001f600 \x00\x1b",
                "l": [1, -(2**63), 2**63 - 1, 1.5, True, None],
            },
            "empty": {},
        }
        layer.send("str_test", {**message, "tuple": (1, (2,))})
        _, received = layer.receive_many(["str_test"])
        assert received == {**message, "tuple": [1, [2]]}
        assert type(received["nested"]["b"]) is bytes
        assert type(received["nested"]["s"]) is str

    def test_names_may_be_of_a_kind_of_str(self, layer: Any) -> None:
        class Safe(str):  # as Django's SafeString
            def __str__(self) -> str:
                return self

        layer.send(Safe("kind"), {"n": 1, "reply_channel": Safe("kind.reply")})
        layer.group_add(Safe("kinds"), Safe("kind"))
        layer.send_group(Safe("kinds"), {"n": Safe("2")})
        assert layer.group_channels(Safe("kinds")) == ["kind"]
        assert layer.receive_many([Safe("kind")]) == ("kind", {"n": 1, "reply_channel": "kind.reply"})
        assert layer.receive_many([Safe("kind")], block=True, timeout=10) == ("kind", {"n": "2"})
        layer.group_discard(Safe("kinds"), Safe("kind"))
        assert layer.group_channels("kinds") == []

    def test_values_of_every_size_of_the_format_survive(self, layer: Any) -> None:
        deep: Any = "bottom"
        for _ in range(50):
            deep = {"deeper": [deep]}
        message = {
            "numbers": [0, -1, 127, 128, 255, 256, 65535, 65536, 2**32, -(2**31) - 1, 0.0, 1e308, float("inf"), 0.1],
            "texts": ["x" * size for size in (0, 31, 32, 255, 256, 65535, 65536)],
            "bytes": [b"x" * size for size in (0, 255, 256, 65535, 65536)],
            "lists": [[None] * size for size in (0, 15, 16, 70_000)],
            "dicts": [{str(key): False for key in range(size)} for size in (0, 15, 16)],
            "deep": deep,
        }
        layer.send("sizes", message)
        assert layer.receive_many(["sizes"]) == ("sizes", message)

    @pytest.mark.parametrize("value", [{1, 2}, object(), 2**63, {1: "a"}, {b"k": 1}, "\ud800", range(3), 1j])
    def test_other_types_are_refused_with_the_place_of_the_culprit(self, layer: Any, value: Any) -> None:
        with pytest.raises(TypeError, match=r"message\['outer'\]\[1\]"):
            layer.send("types", {"outer": [0, value]})
        assert layer.receive_many(["types"]) == (None, None)

    def test_a_group_send_reaches_the_members_that_are_left(self, layer: Any) -> None:
        for name in ("tg_1", "tg_2", "tg_3"):
            layer.group_add("tgroup", name)
        layer.group_discard("tgroup", "tg_3")
        layer.group_discard("tgroup", "tg_never")
        layer.send_group("tgroup", {"value": "orange"})
        assert contents(layer, "tg_1") == contents(layer, "tg_2") == [{"value": "orange"}]
        assert contents(layer, "tg_3") == []

    def test_a_group_send_reaches_process_local_members(self, layer: Any) -> None:
        for name in ("tgp!test1", "tgp!test2", "tgp!test3"):
            layer.group_add("tgroup", name)
        layer.group_discard("tgroup", "tgp!test2")
        layer.send_group("tgroup", {"value": "orange"})
        assert {layer.receive_many(["tgp!"])[0] for _ in range(2)} == {"tgp!test1", "tgp!test3"}
        assert layer.receive_many(["tgp!"]) == (None, None)

    def test_a_member_that_one_client_has_added_gets_the_next_group_send_of_any_other(self, make: Make) -> None:
        first, second = make(), make()
        for number in range(20):
            adding, sending = (first, second) if number % 2 else (second, first)
            adding.group_add("seen", f"seen.{number}")
            sending.send_group("seen", {"n": number})
            assert contents(first, f"seen.{number}") == [{"n": number}]
            adding.group_discard("seen", f"seen.{number}")
            sending.send_group("seen", {"n": "too late"})
            assert contents(first, f"seen.{number}") == []

    def test_a_group_send_of_one_member_list_comes_once_to_each(self, layer: Any) -> None:
        names = [f"member.{number}" for number in range(200)]
        for name in names:
            layer.group_add("large", name)
        layer.send_group("large", {"n": 1})
        assert all(contents(layer, name) == [{"n": 1}] for name in names)

    def test_group_channels_names_the_members(self, layer: Any) -> None:
        layer.group_add("tgroup", "tg_1")
        layer.group_add("tgroup", "tg_2")
        layer.group_add("tgroup", "tg_2")
        assert sorted(layer.group_channels("tgroup")) == ["tg_1", "tg_2"]
        layer.group_discard("tgroup", "tg_1")
        assert layer.group_channels("tgroup") == ["tg_2"]

    def test_a_group_knows_how_many_members_it_has(self, make: Make) -> None:
        layer = make(group_expiry=0.3)
        assert layer.group_count("tgroup") == 0
        for member in ("tg_1", "tg_2", "tg_2", "tgp!a", "tgp!b"):
            layer.group_add("tgroup", member)
        assert layer.group_count("tgroup") == 4
        layer.group_discard("tgroup", "tg_1")
        assert layer.group_count("tgroup") == 3
        rest(layer, 0.35)
        assert layer.group_count("tgroup") == 0

    def test_a_membership_ends_after_the_group_expiry(self, make: Make) -> None:
        layer = make(group_expiry=0.1)
        assert layer.group_expiry == 0.1
        layer.group_add("tgroup", "tg_1")
        rest(layer, 0.15)
        assert layer.group_channels("tgroup") == []
        layer.send_group("tgroup", {"value": 1})
        assert layer.receive_many(["tg_1"]) == (None, None)

    def test_flush_leaves_nothing(self, layer: Any) -> None:
        layer.send("fl_test", {"value": 1})
        layer.group_add("tgroup", "tg_1")
        layer.flush()
        layer.send_group("tgroup", {"value": 2})
        assert layer.receive_many(["fl_test", "tg_1"]) == (None, None)
        assert layer.group_channels("tgroup") == []

    def test_exactly_capacity_messages_wait(self, make: Make) -> None:
        layer = make(capacity=5)
        for _ in range(5):
            layer.send("cap_test", {"hey": "there"})
        with pytest.raises(ChannelFull) as caught:
            layer.send("cap_test", {"hey": "there"})
        assert (caught.value.channel, caught.value.capacity) == ("cap_test", 5)
        layer.receive_many(["cap_test"])
        layer.send("cap_test", {"hey": "again"})

    def test_process_local_channels_share_their_capacity(self, make: Make) -> None:
        layer = make(capacity=5)
        for number in range(5):
            layer.send(f"capp!{number}", {"hey": "there"})
        with pytest.raises(layer.ChannelFull):
            layer.send("capp!final", {"hey": "there"})

    def test_capacity_follows_the_first_glob_that_matches(self, make: Make) -> None:
        layer = make(capacity=5, channel_capacity={"small.*": 1, "small.not": 3, "http.response!*": 2})
        for name, capacity in (("small.not", 1), ("http.response!x", 2), ("other", 5)):
            assert layer.get_capacity(name) == capacity
            for _ in range(capacity):
                layer.send(name, {})
            with pytest.raises(ChannelFull):
                layer.send(name, {})

    def test_a_group_send_to_full_members_never_raises_and_is_counted_and_logged(
        self, make: Make, logged: Callable[[], str]
    ) -> None:
        layer = make(capacity=3)
        group = layer.new_channel("g?").replace("?", ".")  # the hub of several tests warns once per name
        layer.group_add(group, "tg_1")
        before = layer.statistics()["dropped_count"]
        for number in range(4):
            layer.send_group(group, {"value": number})
        assert contents(layer, "tg_1") == [{"value": number} for number in range(3)]
        assert layer.statistics()["dropped_count"] == before + 1
        wait_until(lambda: f"group {group}" in logged() and "tg_1" in logged())

    def test_what_has_expired_takes_up_no_room(self, make: Make) -> None:
        layer = make(capacity=2, expiry=0.1)
        layer.send("room", {"n": 0})
        layer.send("room", {"n": 1})
        rest(layer, 0.12)
        layer.send("room", {"n": 2})
        assert contents(layer, "room") == [{"n": 2}]

    def test_the_exceptions_are_on_the_layer(self, layer: Any) -> None:
        assert layer.ChannelFull is ChannelFull
        assert layer.MessageTooLarge is MessageTooLarge

    def test_a_message_altered_after_its_send_is_queued_unaltered(self, layer: Any) -> None:
        message = {"value": [1]}
        layer.send("ma_test", message)
        message["value"].append(2)
        assert layer.receive_many(["ma_test"]) == ("ma_test", {"value": [1]})

    def test_messages_of_a_channel_keep_their_order(self, layer: Any) -> None:
        name = layer.new_channel("fifo?")
        for number in range(50):
            layer.send(name, {"n": number})
        assert [message["n"] for message in contents(layer, name)] == list(range(50))

    @pytest.mark.parametrize("size", [MIB, 16 * MIB - 64], ids=["1 MiB", "16 MiB"])
    def test_a_large_message_passes_whole(self, layer: Any, size: int) -> None:
        layer.send("large", {"body": b"x" * size})
        assert len(layer.receive_many(["large"])[1]["body"]) == size

    def test_a_message_past_sixteen_megabytes_is_refused_and_the_layer_goes_on(self, layer: Any) -> None:
        with pytest.raises(MessageTooLarge):
            layer.send("large", {"body": b"x" * (16 * MIB + 1)})
        with pytest.raises(MessageTooLarge):
            layer.send_group("large", {"body": b"x" * (16 * MIB + 1)})
        layer.send("large", {"body": b"x"})
        assert contents(layer, "large") == [{"body": b"x"}]

    def test_messages_of_megabytes_pass_and_larger_ones_are_refused(self, make: Make) -> None:
        layer = make(max_message_size=3_000_000)
        layer.send("large", {"body": b"x" * 2_900_000})
        assert len(layer.receive_many(["large"])[1]["body"]) == 2_900_000
        with pytest.raises(MessageTooLarge) as caught:
            layer.send("large", {"body": b"x" * 3_000_001})
        assert caught.value.limit_bytes == 3_000_000
        assert layer.receive_many(["large"]) == (None, None)

    def test_a_busy_channel_does_not_starve_a_quiet_one(self, layer: Any) -> None:
        for number in range(90):
            layer.send("busy", {"n": number})
        layer.send("quiet", {"n": 0})
        order = [layer.receive_many(["busy", "quiet"])[0] for _ in range(60)]
        assert "quiet" in order

    def test_a_channel_that_is_flooded_all_the_time_does_not_starve_a_quiet_one(self, make: Make) -> None:
        layer, flooding = make(capacity=20), make(capacity=20)
        is_over = threading.Event()

        def flood() -> None:
            while not is_over.is_set():
                try:
                    flooding.send("flood", {})
                except ChannelFull:
                    is_over.wait(0.001)

        thread = threading.Thread(target=flood)
        thread.start()
        try:
            for _ in range(3):
                layer.receive_many(["flood"], block=True, timeout=10)
                layer.send("quiet", {})
                assert "quiet" in [layer.receive_many(["flood", "quiet"], block=True, timeout=10)[0] for _ in range(60)]
        finally:
            is_over.set()
            thread.join(10)

    def test_a_blocked_receiver_is_woken_by_a_send(self, make: Make) -> None:
        layer = make()
        received: list[Any] = []
        thread = threading.Thread(target=lambda: received.append(layer.receive_many(["wake"], block=True, timeout=20)))
        thread.start()
        other = make()
        other.send("wake", {"up": True})
        thread.join(20)
        assert received == [("wake", {"up": True})]

    def test_a_blocked_receiver_does_not_poll(self, layer: Any) -> None:
        rest(layer, 0.01)  # connections are made before
        if isinstance(layer, Blocking):
            assert_quiet(lambda: layer.receive_where_it_runs(["never"], block=True, timeout=0.5))
        else:
            assert_quiet(lambda: measured(lambda: rest(layer, 0.5)))

    def test_a_blocked_receiver_wakes_within_milliseconds(self, make: Make) -> None:
        layer, other = make(), make()
        delays = []
        is_waiting = threading.Barrier(2)

        def receive() -> None:
            for _ in range(15):
                is_waiting.wait(10)
                message = layer.receive_many(["prompt"], block=True, timeout=10)[1]
                delays.append(time.monotonic() - message["sent"])

        thread = threading.Thread(target=receive)
        thread.start()
        for _ in range(15):
            is_waiting.wait(10)
            rest(other, 0.01)  # until it sleeps; one that does not yet is woken as well
            other.send("prompt", {"sent": time.monotonic()})
        thread.join(20)
        assert len(delays) == 15
        assert statistics.median(delays) < _PROMPT

    def test_each_of_many_blocked_receivers_gets_one_message(self, make: Make) -> None:
        layers = [make() for _ in range(6)]
        received: list[Any] = []

        def receive(layer: Any) -> None:
            received.append(layer.receive_many(["shared"], block=True, timeout=20)[1]["n"])

        threads = [threading.Thread(target=receive, args=(layer,)) for layer in layers]
        for thread in threads:
            thread.start()
        for number in range(6):
            layers[0].send("shared", {"n": number})
        for thread in threads:
            thread.join(20)
        assert sorted(received) == list(range(6))

    def test_a_blocked_receiver_gives_up_after_its_timeout(self, layer: Any) -> None:
        assert layer.receive_many(["nothing"], block=True, timeout=0.05) == (None, None)

    def test_a_receive_that_times_out_loses_nothing(self, make: Make) -> None:
        layer, other = make(capacity=500), make(capacity=500)
        received: list[int] = []
        end = time.monotonic() + 10

        def receive() -> None:
            while len(received) < 200 and time.monotonic() < end:
                message = layer.receive_many(["brief"], block=True, timeout=0.0005)[1]
                if message is not None:
                    received.append(message["n"])

        thread = threading.Thread(target=receive)
        thread.start()
        for number in range(200):
            other.send("brief", {"n": number})
            if not number % 10:
                rest(other, 0.001)
        thread.join(20)
        assert received == list(range(200))

    def test_statistics_count_what_passes_and_what_is_refused(self, make: Make) -> None:
        layer = make(capacity=2)
        before = layer.statistics()
        layer.send("st_test", {})
        layer.send("st_test", {})
        with pytest.raises(ChannelFull):
            layer.send("st_test", {})
        after = layer.statistics()
        assert after["messages_count"] - before["messages_count"] == 2
        assert after["channel_full_count"] - before["channel_full_count"] == 1
        assert after["messages_pending"] - before["messages_pending"] == 2
        assert after["messages_max_age"] >= 0
        rates = [after[name] for name in ("messages_count_per_second", "channel_full_count_per_second")]
        assert all(rate >= 0 for rate in rates)

    def test_statistics_tell_what_the_last_second_saw(self, make: Make) -> None:
        layer = make(capacity=7)
        for _ in range(7):
            layer.send("rate", {})
        for _ in range(3):
            with pytest.raises(ChannelFull):
                layer.send("rate", {})

        def rates() -> tuple[int, int]:
            found = layer.statistics()
            return found["messages_count_per_second"], found["channel_full_count_per_second"]

        seen = []
        wait_until(lambda: seen.append(rates()) or any(seen[-1]), 4)
        wait_until(lambda: seen.append(rates()) or not any(seen[-1]), 4)
        assert max(messages for messages, _ in seen) >= 1
        assert max(fulls for _, fulls in seen) >= 1

    def test_the_layer_keeps_the_name_checks_of_1x(self, layer: Any) -> None:
        assert layer.valid_channel_name("http.response!abc") is True
        assert layer.valid_group_name("chat-1") is True
        assert layer.non_local_name("http.response!abc") == "http.response!"
        with pytest.raises(AssertionError):
            layer.valid_channel_names([])


class WorkerSuite:
    """The worker's side, for the layers of the synchronous contract."""

    def test_the_layer_has_the_members_of_1x(self, make: Make) -> None:
        layer = make(expiry=50, group_expiry=500, capacity=5, channel_capacity={re.compile("^small"): 1})
        assert (layer.expiry, layer.group_expiry, layer.capacity) == (50, 500, 5)
        assert (layer.get_capacity("small.x"), layer.get_capacity("x.small")) == (1, 5)
        assert {"groups", "flush", "statistics"} <= set(layer.extensions)
        layer.send("small.x", {"n": 1})
        with pytest.raises(layer.ChannelFull):
            layer.send("small.x", {})
        assert layer.receive(["small.x"]) == ("small.x", {"n": 1})
        assert layer.receive(["small.x"], block=False) == (None, None)

    def test_the_limits_of_1x_are_the_defaults(self, layer: Any) -> None:
        assert (layer.expiry, layer.group_expiry, layer.capacity) == (60, 86400, 100)

    def test_a_delivery_is_taken_once_and_finished_with_its_sends_in_order(self, layer: Any) -> None:
        layer.send("work", {"n": 1})
        layer.group_add("listeners", "heard")
        delivery = layer.take(["work"], 10)
        assert (delivery.channel, delivery.message, delivery.redelivered) == ("work", {"n": 1}, False)
        assert delivery.id
        layer.finish(delivery, [Send("heard", {"n": 1}), Send("listeners", {"n": 2}, True), Send("heard", {"n": 3})])
        assert [layer.receive_many(["heard"], block=True, timeout=10)[1]["n"] for _ in range(3)] == [1, 2, 3]
        assert layer.take(["work"], 0.02) is None

    def test_channel_statistics_tell_the_channels_apart_and_count_refusals_as_such(self, make: Make) -> None:
        layer = make(capacity=2)
        one, two = layer.new_channel("cs?"), layer.new_channel("cs?")
        layer.send(one, {})
        layer.send(one, {})
        layer.send(two, {})
        with pytest.raises(ChannelFull):
            layer.send(one, {})
        found = [layer.channel_statistics(name) for name in (one, two)]
        assert [each["messages_count"] for each in found] == [2, 1]
        assert [each["messages_pending"] for each in found] == [2, 1]
        assert [each["channel_full_count"] for each in found] == [1, 0]

    def test_a_consumer_may_send_to_names_of_a_kind_of_str(self, layer: Any) -> None:
        class Safe(str):
            pass

        layer.send("work", {})
        delivery = layer.take([Safe("work")], 10)
        layer.finish(delivery, [Send(Safe("safe"), {"n": 1})])
        layer.take(["work"], 0)
        layer.send_and_wait(Safe("safe"), {"n": 2}, timeout=10)
        assert contents(layer, "safe") == [{"n": 1}, {"n": 2}]
        assert layer.channel_statistics(Safe("safe"))["messages_count"] >= 2

    def test_a_part_for_a_channel_without_an_interface_is_a_send(self, layer: Any) -> None:
        name = layer.new_channel("part?")
        layer.send_and_wait(name, {"n": 1}, timeout=10)
        assert contents(layer, name) == [{"n": 1}]

    def test_many_workers_get_each_message_once(self, make: Make) -> None:
        layer = make(capacity=500)
        taken: list[int] = []

        def work() -> None:
            mine = make()
            while (delivery := mine.take(["many"], 0.3)) is not None:
                taken.append(delivery.message["n"])
                mine.finish(delivery)
            mine.stop_taking()

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for number in range(400):
            layer.send("many", {"n": number})
        for thread in threads:
            thread.join(30)
        assert sorted(taken) == list(range(400))

    def test_a_take_that_times_out_loses_nothing(self, make: Make) -> None:
        layer = make(capacity=500)
        taken: list[int] = []
        end = time.monotonic() + 10

        def work() -> None:
            mine = make()
            while len(taken) < 200 and time.monotonic() < end:
                delivery = mine.take(["brief"], 0.0005)
                if delivery is not None:
                    taken.append(delivery.message["n"])
                    mine.finish(delivery)
            mine.stop_taking()

        threads = [threading.Thread(target=work) for _ in range(2)]
        for thread in threads:
            thread.start()
        for number in range(200):
            layer.send("brief", {"n": number})
            if not number % 10:
                rest(layer, 0.001)
        for thread in threads:
            thread.join(20)
        assert sorted(taken) == list(range(200))

    def test_a_flooded_channel_does_not_starve_a_quiet_one_of_workers(self, layer: Any) -> None:
        for number in range(90):
            layer.send("busy", {"n": number})
        layer.send("quiet", {})
        for _ in range(60):
            delivery = layer.take(["busy", "quiet"], 10)
            layer.finish(delivery)
            if delivery.channel == "quiet":
                break
        assert delivery.channel == "quiet"
        while (delivery := layer.take(["busy"], 0)) is not None:
            layer.finish(delivery)

    def test_what_is_in_flight_neither_counts_nor_expires(self, make: Make) -> None:
        layer = make(capacity=1, expiry=0.1)
        layer.send("work", {"n": 1})
        delivery = layer.take(["work"], 10)
        layer.send("work", {"n": 2})  # there is room again
        rest(layer, 0.12)
        layer.finish(delivery, [Send("done", {"n": 1})])
        layer.take(["work"], 0)  # the end is processed when this returns
        assert contents(layer, "work", "done") == [{"n": 1}]

    def test_a_worker_that_waits_does_not_poll(self, layer: Any) -> None:
        assert layer.take(["never"], 0.01) is None
        assert_quiet(lambda: measured(lambda: layer.take(["never"], 0.5)))

    def test_a_worker_that_stops_leaves_the_rest_to_others(self, layer: Any) -> None:
        for number in range(40):
            layer.send("work", {"n": number})
        taken: list[int] = []

        def work(count: int) -> None:
            for _ in range(count):
                delivery = layer.take(["work"], 10)
                taken.append(delivery.message["n"])
                layer.finish(delivery)
            layer.stop_taking()

        for count in (20, 20):
            thread = threading.Thread(target=work, args=(count,))
            thread.start()
            thread.join(20)
        assert sorted(taken) == list(range(40))

    def test_a_deferred_delivery_comes_again_as_its_new_message_behind_the_others(self, layer: Any) -> None:
        layer.send("work", {"n": 1})
        layer.send("work", {"n": 2})
        first = layer.take(["work"], 10)
        layer.defer(first, {"n": "again"})
        second = layer.take(["work"], 10)
        assert second.message == {"n": 2}
        layer.finish(second)
        third = layer.take(["work"], 10)
        assert (third.id, third.message, third.redelivered) == (first.id, {"n": "again"}, False)
        layer.finish(third)

    def test_take_reads_process_local_and_single_reader_channels(self, layer: Any) -> None:
        name = layer.new_channel("body?")
        layer.send(name, {"n": 1})
        layer.send("mine!x", {"n": 2})
        seen = set()
        for _ in range(2):
            delivery = layer.take([name, "mine!"], 10)
            seen.add(delivery.channel)
            layer.finish(delivery)
        assert seen == {name, "mine!x"}

    def test_take_refuses_bad_names(self, layer: Any) -> None:
        with pytest.raises(TypeError):
            layer.take(["bad name"], 0)

    def test_wake_ends_a_take_that_waits(self, layer: Any) -> None:
        layer.take(["work"], 0)  # this thread takes
        taken: list[Any] = []
        is_ready = threading.Event()

        def work() -> None:
            layer.take(["work"], 0)
            is_ready.set()
            taken.append(layer.take(["work"], 20))

        thread = threading.Thread(target=work)
        thread.start()
        assert is_ready.wait(10)
        layer.wake()
        thread.join(10)
        assert not thread.is_alive()
        assert taken == [None]

    def test_a_wake_before_the_take_is_not_lost(self, layer: Any) -> None:
        layer.take(["work"], 0)
        layer.wake()
        assert layer.take(["work"], 20) is None
        layer.send("work", {"n": 1})
        delivery = layer.take(["work"], 10)
        layer.finish(delivery)

    def test_a_finish_waits_for_room(self, make: Make) -> None:
        layer = make(capacity=1)
        layer.send("full", {"n": 0})
        layer.send("work", {})
        delivery = layer.take(["work"], 10)
        reader = make(capacity=1)
        received: list[Any] = []

        def read() -> None:
            received.extend(reader.receive_many(["full"], block=True, timeout=10)[1]["n"] for _ in range(2))

        thread = threading.Thread(target=read)
        thread.start()
        layer.finish(delivery, [Send("full", {"n": 1})])
        layer.take(["work"], 0)
        thread.join(10)
        assert received == [0, 1]
