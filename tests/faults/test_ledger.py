"""The audit finds what it is there to find: each way to cheat a true ledger is noticed, and a true one passes."""

from pathlib import Path
from typing import Any

import pytest

from tests.faults import ledger
from tests.faults.ledger import Event, audit, audit_order, reply_channel_of


def background(name: str, start: float = 1.0, channel: str = "a", **more: Any) -> list[Event]:
    """A message that is sent, run by worker 11 and finished, over 0.4 seconds."""
    run = f"{name}/1"
    return [
        {"t": start, "kind": "sending", "m": name, "channel": channel, "reply_channel": reply_channel_of(name)},
        {"t": start + 0.1, "kind": "accepted", "m": name},
        *run_of(name, run, start + 0.2, **more),
    ]


def run_of(
    name: str, run: str, start: float, pid: int = 11, redelivered: bool = False, sends: Any = (), replies: Any = ()
) -> list[Event]:
    """A run from its begin to its end."""
    return [
        {"t": start, "kind": "begin", "m": name, "run": run, "pid": pid, "redelivered": redelivered},
        {"t": start + 0.1, "kind": "finishing", "m": name, "run": run, "sends": list(sends), "replies": list(replies)},
        {"t": start + 0.2, "kind": "finished", "m": name, "run": run},
    ]


def offered(name: str, start: float = 1.0, is_safe: bool = True, **more: Any) -> list[Event]:
    """A frame that is offered, run and finished; its replies have come."""
    return [
        {"t": start, "kind": "offering", "m": name, "channel": "w", "reply_channel": "i!1", "safe": is_safe},
        *run_of(name, f"{name}/1", start + 0.2, **more),
        *({"t": start + 0.45, "kind": "reply", "m": reply} for reply in more.get("replies", ())),
        {"t": start + 0.5, "kind": "ended", "m": name, "how": "finished"},
    ]


def killing(moment: float, who: str = "worker", pid: int = 11) -> Event:
    return {"t": moment, "kind": "killing", "who": who, "pid": pid}


def without(events: list[Event], *kinds: str) -> list[Event]:
    return [event for event in events if event["kind"] not in kinds]


RERUN = [*without(background("m"), "finishing", "finished"), killing(1.25), *run_of("m", "m/2", 2.0, 12, True)]
DROPPED: Event = {"t": 9.0, "kind": "dropped", "reply_channel": reply_channel_of("m")}
LOST: Event = {"t": 3.0, "kind": "ended", "m": "m", "how": "lost"}
UNSAFE_LOST = [*without(offered("m", is_safe=False), "finishing", "finished", "ended"), killing(1.25), LOST]


@pytest.mark.parametrize(
    "events",
    [
        [*background("m"), *background("n", 2.0)],
        background("m", sends=["m.c"]) + run_of("m.c", "c/1", 2.0),
        offered("m", replies=["m.r"]),
        RERUN,
        [*without(RERUN, "finishing", "finished"), killing(2.1, pid=12), DROPPED],
        [*without(background("m"), "begin", "finishing", "finished"), DROPPED],
        [*without(background("m"), "begin", "finishing", "finished"), killing(1.1, "hub")],
        [*UNSAFE_LOST, {**DROPPED, "reply_channel": "i!1"}],
        [*background("m"), killing(1.05, "hub"), killing(5.0)],
        [*RERUN[:-2], killing(1.22, "hub"), killing(2.05, pid=12), *run_of("m", "m/3", 3.0, 13, True)],
    ],
)
def test_a_true_ledger_passes(events: list[Event]) -> None:
    assert audit(sorted(events, key=lambda event: event["t"])) == []


@pytest.mark.parametrize(
    ("events", "complaint"),
    [
        (without(background("m"), "begin", "finishing", "finished"), "never run"),
        ([*without(background("m"), "begin", "finishing", "finished"), killing(0.5, "hub")], "never run"),
        (without(background("m"), "sending", "accepted"), "nobody sent it"),
        (without(background("m"), "finishing", "finished"), "its worker lives"),
        ([*without(background("m"), "finishing", "finished"), killing(1.25)], "neither run again nor reported"),
        (background("m") + run_of("m", "m/2", 2.0, 12, True), "though the worker of run m/1 lived"),
        ([*background("m"), killing(1.9), *run_of("m", "m/2", 2.0, 12, True)], "though run m/1 had finished"),
        ([*without(background("m"), "finishing", "finished"), *run_of("m", "m/2", 2.0, 12, True)], "m/1 lived"),
        ([{**event, "redelivered": False} for event in RERUN], "m/2 is not marked"),
        ([*RERUN, killing(2.05, pid=12), *run_of("m", "m/3", 3.0, 13, True)], "run 3 times"),
        (
            [*RERUN[:-2], killing(1.4, "hub"), killing(2.05, pid=12), *run_of("m", "m/3", 3.0, 13, True)],
            "run 3 times",
        ),
        ([*background("m"), {"t": 1.1, "kind": "refused", "m": "m"}], "refused, and run"),
        (background("m", sends=["m.c"]), "m.c: it was accepted, and never run"),
        (
            background("m", sends=["m.c"]) + run_of("m.c", "c/1", 2.0) + run_of("m.c", "c/2", 3.0, 12),
            "though the worker of run c/1 lived",
        ),
        (without(offered("m"), "ended"), "heard 0 ends"),
        ([*offered("m"), LOST], "heard 2 ends"),
        (without(offered("m", replies=["m.r"]), "reply"), "m.r 0 times, not 1"),
        ([*offered("m", replies=["m.r"]), {"t": 1.6, "kind": "reply", "m": "m.r"}], "m.r 2 times, not 1"),
        ([*offered("m"), {"t": 1.6, "kind": "reply", "m": "x"}], "a reply that nobody sent"),
        (without(offered("m"), "begin", "finishing", "finished"), "no worker had finished it"),
        (UNSAFE_LOST, "no line of the log names it"),
        ([*without(offered("m"), "ended"), {**LOST, "how": "full"}], "it failed: full"),
        (
            [
                *without(offered("m", is_safe=False), "finishing", "finished", "ended"),
                killing(1.25),
                *run_of("m", "m/2", 2.0, 12, True),
                {**LOST, "how": "finished"},
            ],
            "must not be run twice",
        ),
    ],
)
def test_a_ledger_that_was_tampered_with_does_not(events: list[Event], complaint: str) -> None:
    found = audit(sorted(events, key=lambda event: event["t"]))
    assert any(complaint in text.splitlines()[0] for text in found), found


def test_a_violation_tells_the_whole_story_of_its_message_and_nothing_of_others() -> None:
    events = [*background("other", 0.5), *without(background("m"), "finishing", "finished"), killing(1.25, pid=11)]
    (text,) = audit(sorted(events, key=lambda event: event["t"]))
    lines = text.splitlines()
    assert lines[0].startswith("m: ") and len(lines) == 5
    assert [kind in line for kind, line in zip(("sending", "accepted", "begin", "killing"), lines[1:], strict=True)]
    assert "other" not in text


def test_messages_that_overtake_are_found_unless_something_died() -> None:
    first, second = background("m", 10.0), background("n", 10.11)
    assert audit_order(first + second, "a") == []
    first[2]["t"] = 10.5
    assert len(audit_order(first + second, "a")) == 1
    assert audit_order(first + second, "b") == []
    assert audit_order([*first, *second, killing(9.0)], "a") == []
    assert len(audit_order([*first, *second, killing(2.0), killing(10.6)], "a")) == 1


def test_what_was_noted_is_read_in_order_of_time_from_all_books(tmp_path: Path) -> None:
    books = [ledger.Book(tmp_path / f"{name}.book") for name in "ab"]
    for number in range(6):
        books[number % 2].note("accepted", m=str(number))
    for book in books:
        book.close()
    assert [event["m"] for event in ledger.read(tmp_path)] == list("012345")
