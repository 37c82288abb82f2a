"""A ledger of every message, kept outside of the processes that are killed, and the audit of it.

Each process appends lines to a file of its own with one ``write`` each: what it has noted stays when it is killed. A
line is noted before the act that it announces (``sending``, ``begin``, ``finishing``) or after the act that it confirms
(``accepted``, ``finished``), so that between the two nothing is known, and outside of them everything is.

``audit`` is pure: events in, violations out.

===========  ========================================================================================================
kind         means
===========  ========================================================================================================
sending      a background message ``m`` is about to be sent on ``channel``
accepted     the layer has taken it; ``refused``: it was full; ``unknown``: the layer went away before it answered
offering     an interface offers the frame ``m`` (``safe``: it may be run twice)
ended        the interface heard of its end, ``how``: "finished", or the reason of a failure
begin        worker ``pid`` begins run ``run`` of ``m``
finishing    ... is about to finish it, which sends the messages ``sends`` and the replies ``replies``
finished     ... has handed the finish to the layer
reply        the interface got the reply ``m``
killing      the process ``pid`` (``who``: "hub" or "worker") is about to be killed
dropped      the hub's log says that the message with this ``reply_channel`` is dropped
===========  ========================================================================================================
"""

import json
import os
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import Any

Event = dict[str, Any]
UNSEEN = 0.1  # seconds after the death of a worker in which its hub may not have seen it yet
REBUILT = 2.0  # seconds after a death in which order is not promised: what it had comes back to the front


class Book:
    """One process's part of the ledger."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def note(self, kind: str, **fields: Any) -> None:
        """Append one event."""
        os.write(self._fd, json.dumps({"t": time.monotonic(), "kind": kind, **fields}).encode() + b"\n")

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)


def read(directory: Path) -> list[Event]:
    """All events of all books, in order of time."""
    lines = [line for path in sorted(directory.glob("*.book")) for line in path.read_text().splitlines()]
    return sorted((json.loads(line) for line in lines), key=lambda event: event["t"])


@dataclass
class Run:
    """One run of a message by a worker."""

    number: str
    pid: int
    begun: float
    is_redelivered: bool
    finishing: float | None = None
    finished: float | None = None


@dataclass
class Account:
    """What is known of one message."""

    name: str
    channel: str = ""
    is_offer: bool = False
    is_safe: bool = True
    asked: float = 0.0  # sending, offering, or the first finish that sends it
    accepted: float | None = None
    is_refused: bool = False
    reply_channel: str = ""
    runs: list[Run] = field(default_factory=list)
    ends: list[str] = field(default_factory=list)
    sends: list[str] = field(default_factory=list)
    replies: list[str] = field(default_factory=list)


@dataclass
class Books:
    """The events, sorted by what they are about."""

    accounts: dict[str, Account] = field(default_factory=dict)
    hub_kills: list[float] = field(default_factory=list)
    worker_kills: dict[int, float] = field(default_factory=dict)
    drops: Counter[str] = field(default_factory=Counter)
    replies: Counter[str] = field(default_factory=Counter)

    def is_hub_killed_after(self, moment: float) -> bool:
        return any(kill >= moment for kill in self.hub_kills)

    def has_died(self, run: Run, before: float = inf) -> bool:
        """Whether the worker of *run* was killed *before* that moment; it may begin a run while the signal comes."""
        return self.worker_kills.get(run.pid, inf) < before

    def is_unseen(self, run: Run) -> bool:
        """Whether worker and hub died so close to each other that no hub may have seen it: then it is not counted."""
        death = self.worker_kills.get(run.pid, -1.0)
        return any(run.begun <= kill <= death + UNSEEN for kill in self.hub_kills)


class _Accounts(dict[str, Account]):
    def __missing__(self, name: str) -> Account:
        account = self[name] = Account(name)
        return account


def sort_out(events: Iterable[Event]) -> Books:
    """One account per message."""
    books = Books()
    runs: dict[str, Run] = {}
    accounts = _Accounts()
    for event in events:
        kind, name = event["kind"], event.get("m", "")
        account = accounts[name]
        if kind in ("sending", "offering"):
            account.asked, account.channel = event["t"], event["channel"]
            account.reply_channel = event["reply_channel"]
            account.is_offer, account.is_safe = kind == "offering", event.get("safe", True)
        elif kind == "accepted":
            account.accepted = event["t"]
        elif kind == "refused":
            account.is_refused = True
        elif kind == "ended":
            account.ends.append(event["how"])
        elif kind == "begin":
            runs[event["run"]] = run = Run(event["run"], event["pid"], event["t"], event["redelivered"])
            account.runs.append(run)
        elif kind == "finishing":
            runs[event["run"]].finishing = event["t"]
            account.sends, account.replies = event["sends"], event["replies"]
            for sent in event["sends"]:
                accounts[sent].asked = accounts[sent].asked or event["t"]
                accounts[sent].reply_channel = reply_channel_of(sent)
        elif kind == "finished":
            runs[event["run"]].finished = event["t"]
            for sent in account.sends:
                accounts[sent].accepted = event["t"]
        elif kind == "reply":
            books.replies[name] += 1
        elif kind == "killing" and event["who"] == "hub":
            books.hub_kills.append(event["t"])
        elif kind == "killing":
            books.worker_kills[event["pid"]] = event["t"]
        elif kind == "dropped":
            books.drops[event["reply_channel"]] += 1
    books.accounts = {name: account for name, account in accounts.items() if account.asked or account.runs}
    return books


def reply_channel_of(message: str) -> str:
    """The reply channel that a background message names, so that a line of the log tells which one it was."""
    return f"ledger?{message}"


def audit(events: Iterable[Event]) -> list[str]:
    """Everything that breaks the layer's promises, with the story of each message that it happened to."""
    events = list(events)
    books = sort_out(events)
    found: list[tuple[str, str]] = []
    for account in books.accounts.values():
        found += [(account.name, text) for text in (*_audit_runs(account, books), *_audit_end(account, books))]
    sent = {reply for account in books.accounts.values() for reply in account.replies}
    found += [(name, "the interface got a reply that nobody sent") for name in books.replies if name not in sent]
    return [f"{name}: {text}\n{tell(name, events)}" for name, text in found]


def _audit_runs(account: Account, books: Books) -> Iterable[str]:
    """Who ran it, and how often."""
    if account.runs and not account.asked:
        yield "it was run, and nobody sent it"
    if account.is_refused and account.runs:
        yield "it was refused, and run"
    if len(account.runs) > 2 + sum(books.is_unseen(run) for run in account.runs):
        yield f"it was run {len(account.runs)} times"
    if len(account.runs) > 1 and not account.is_safe:
        yield "it must not be run twice, and was"
    for earlier, later in zip(account.runs, account.runs[1:], strict=False):
        if not later.is_redelivered:
            yield f"run {later.number} is not marked as redelivered"
        if not books.has_died(earlier, later.begun):
            yield f"it was run again, though the worker of run {earlier.number} lived"
        elif earlier.finished is not None and not books.is_hub_killed_after(earlier.finished):
            yield f"it was run again, though run {earlier.number} had finished"


def _audit_end(account: Account, books: Books) -> Iterable[str]:
    """What became of it."""
    last = account.runs[-1] if account.runs else None
    is_run = last is not None and last.finishing is not None
    is_dropped = books.drops[account.reply_channel] > 0
    if account.is_offer:
        if len(account.ends) != 1:
            yield f"its interface heard {len(account.ends)} ends: {account.ends}"
            return
        wanted = 1 if account.ends == ["finished"] else 0
        if wanted and not is_run:
            yield "its interface heard that it is finished, and no worker had finished it"
        if account.ends == ["lost"] and not is_dropped:
            yield "it is lost, and no line of the log names it"
        if account.ends[0] not in ("finished", "lost"):
            yield f"it failed: {account.ends[0]}"
        for reply in account.replies:
            if books.replies[reply] != wanted:
                yield f"the interface got its reply {reply} {books.replies[reply]} times, not {wanted}"
    elif last is None:
        if account.accepted is not None and not is_dropped and not books.is_hub_killed_after(account.asked):
            yield "it was accepted, and never run, and no line of the log says that it was dropped"
    elif last.finished is None and not books.has_died(last):
        yield f"run {last.number} has not ended, and its worker lives"
    elif not is_run and not is_dropped and not books.is_hub_killed_after(last.begun):
        yield f"the worker of run {last.number} died in it, and it was neither run again nor reported as dropped"


def audit_order(events: Iterable[Event], channel: str) -> list[str]:
    """Messages on *channel*, which one worker reads, that overtook one accepted before they were sent; nothing died."""
    events = list(events)
    books = sort_out(events)
    deaths = [*books.hub_kills, *books.worker_kills.values()]
    found = []
    once = [a for a in books.accounts.values() if a.channel == channel and len(a.runs) == 1 and a.accepted is not None]
    for later in once:
        for earlier in once:
            if earlier.accepted > later.asked or earlier.runs[0].begun < later.runs[0].begun:  # type: ignore[operator]
                continue
            if not any(earlier.asked - REBUILT <= death <= earlier.runs[0].begun for death in deaths):
                found.append(f"{later.name} overtook {earlier.name}\n{tell(earlier.name, events)}")
    return found


def tell(name: str, events: Iterable[Event]) -> str:
    """The story of the message *name*: what happened to it, and which processes died from its first line on."""
    events = list(events)
    own = [
        event
        for event in events
        if f"{event.get('m')}.".startswith(name + ".") or name in (*event.get("sends", ()), *event.get("replies", ()))
    ]
    reply_channels = {event["reply_channel"] for event in own if "reply_channel" in event} | {reply_channel_of(name)}
    start = own[0]["t"] if own else 0.0
    story = [
        event
        for event in events
        if event in own
        or (event["kind"] == "killing" and event["t"] >= start)
        or (event["kind"] == "dropped" and event["reply_channel"] in reply_channels)
    ]
    return "\n".join(
        f"    {e['t'] - start:+9.4f} {json.dumps({k: v for k, v in e.items() if k != 't'})}" for e in story
    )
