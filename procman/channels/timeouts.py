"""How long a consumer may run: a deadline for each thread, and a watchdog that acts when one has passed.

Requests and WebSocket messages have a client who waits: they have ``--consumer-timeout``. Other messages have a limit
only where ``consumer_timeout`` gives their consumer one. What happens then is the runner's business (``consuming.py``);
here is only when. The watchdog sleeps until the first deadline that it knows of, not once per message.

A consumer that never lets go of the interpreter (a regular expression that backtracks without end, other C code) lets
no Python thread act. Then ``faulthandler``, which needs no interpreter, writes all stacks and ends the process: a
decorated consumer's ``GRACE`` seconds after its limit, others' after twice the limit at the latest. To the layer that
is a crash like any other.
"""

from __future__ import annotations

import contextlib
import faulthandler
import functools
import math
import os
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from procman.clock import SystemClock

GRACE = 5.0
STACK_LENGTH = 20_000  # characters; the end counts

Target = TypeVar("Target", bound=Callable[..., Any])
# Called by the watchdog with what runs, the limit in seconds and the stack of its thread.
GiveUp = Callable[[Any, float, str], None]


class Slot:
    """What one thread runs, and until when it may."""

    __slots__ = ("deadline", "give_up", "limit", "running", "thread")

    def __init__(self, thread: int) -> None:
        self.thread = thread
        self.deadline = math.inf
        self.limit: float | None = None
        self.running: Any = None
        self.give_up: GiveUp | None = None


class Watchdog:
    """The deadlines of all threads of this process, and the thread that watches them."""

    def __init__(self) -> None:
        self.default: float | None = None  # seconds; of what a client waits for
        self.ends_process = False  # whether a consumer that is over its limit ends this process
        self._reset()

    def _reset(self) -> None:
        self._slots: dict[int, Slot] = {}
        self._local = threading.local()
        self._condition = threading.Condition()
        self._wakes_at = math.inf
        self._shortest = math.inf  # the shortest limit there was
        self._is_used = False  # whether a deadline was set since the watchdog last looked
        self._thread: threading.Thread | None = None

    @contextlib.contextmanager
    def governing(self, timeout: float) -> Iterator[None]:
        """Within, *timeout* seconds (0: none) are the limit of what a client waits for; this process may be ended."""
        before = self.default, self.ends_process
        self.default, self.ends_process = timeout or None, True
        try:
            yield
        finally:
            self.default, self.ends_process = before
            faulthandler.cancel_dump_traceback_later()

    # -- threads that run consumers ------------------------------------------------------------------------------

    def begin(self, channel: str, running: Any, give_up: GiveUp) -> None:
        """This thread runs a consumer of *channel* from now on; *give_up* is called if that takes too long."""
        slot: Slot | None = getattr(self._local, "slot", None)
        if slot is None:
            slot = self._local.slot = Slot(threading.get_ident())
            with self._condition:
                self._slots[slot.thread] = slot
        slot.running, slot.give_up = running, give_up
        slot.limit = self.default if channel.startswith(("websocket.", "http.request")) else None
        if slot.limit is not None:
            self._set_deadline(slot)

    def end(self) -> None:
        """This thread runs no consumer any more."""
        slot = self._local.slot
        slot.deadline, slot.limit, slot.running, slot.give_up = math.inf, None, None, None

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Within, this thread waits for its client, which does not count; its time begins anew afterwards."""
        slot: Slot | None = getattr(self._local, "slot", None)
        if slot is None or slot.limit is None:
            yield
            return
        slot.deadline = math.inf
        try:
            yield
        finally:
            self._set_deadline(slot)

    @contextlib.contextmanager
    def limited(self, seconds: float | None) -> Iterator[None]:
        """Within, this thread has *seconds* from now, None: as long as it takes. Nothing outside of consumers."""
        slot: Slot | None = getattr(self._local, "slot", None)
        if slot is None or slot.give_up is None:
            yield
            return
        before = slot.limit, slot.deadline
        slot.limit = seconds
        if seconds is None:
            slot.deadline = math.inf
        else:
            self._set_deadline(slot)
            self._set_fallback(seconds + GRACE)
        try:
            yield
        finally:
            slot.limit, slot.deadline = before
            if seconds is not None:
                with self._condition:
                    self._watch_the_watchdog(SystemClock.monotonic())

    def _set_deadline(self, slot: Slot) -> None:
        limit = slot.limit or 0.0
        slot.deadline = SystemClock.monotonic() + limit
        self._is_used = True
        # Set before it is compared: the watchdog takes back when it wakes before it looks at the deadlines.
        if slot.deadline < self._wakes_at:
            with self._condition:
                self._shortest = min(self._shortest, limit)
                if self._thread is None:
                    self._thread = threading.Thread(target=self._run, name="consumer watchdog", daemon=True)
                    self._thread.start()
                # Here already: the consumer may take the interpreter before the watchdog has had a turn.
                self._watch_the_watchdog(SystemClock.monotonic())
                self._condition.notify()

    # -- the watchdog's own thread ---------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            with self._condition:
                self._wakes_at = math.inf
                now = SystemClock.monotonic()
                due = [slot for slot in self._slots.values() if slot.deadline <= now]
                if not due:
                    first = min(slot.deadline for slot in self._slots.values())
                    if first == math.inf and self._is_used:
                        # What ran is over; what comes next must not have to wake this thread, each time anew.
                        first = now + self._shortest
                    self._is_used = False
                    self._wakes_at = first
                    self._watch_the_watchdog(now)
                    self._condition.wait(None if self._wakes_at == math.inf else self._wakes_at - now)
                    continue
            for slot in due:
                self._give_up(slot)

    def _give_up(self, slot: Slot) -> None:
        running, limit, give_up = slot.running, slot.limit, slot.give_up
        # Looked at after the rest was read: it may have ended in this moment, and the next one have begun.
        if give_up is None or limit is None or slot.deadline > SystemClock.monotonic():
            return
        slot.deadline = math.inf
        frame = sys._current_frames().get(slot.thread)
        stack = "".join(traceback.format_stack(frame)) if frame is not None else "(the thread has ended)\n"
        self._set_fallback(2 * GRACE)  # what follows may meet the same obstacle as the consumer
        give_up(running, limit, stack[-STACK_LENGTH:])

    def _watch_the_watchdog(self, now: float) -> None:
        """Have the process ended should the watchdog be unable to run when it is due; called under the lock."""
        first = min((slot.deadline for slot in self._slots.values()), default=math.inf)
        first = min(first, self._wakes_at)
        if first == math.inf:
            if self.ends_process:
                faulthandler.cancel_dump_traceback_later()
            return
        # What is due may have ended, and who holds the interpreter then have begun just before: it has its own time.
        longest = max(slot.limit or 0.0 for slot in self._slots.values())
        self._set_fallback(first - now + max(longest, self.default or 0.0) + GRACE)

    def _set_fallback(self, seconds: float) -> None:
        if self.ends_process and sys.__stderr__ is not None and not sys.__stderr__.closed:
            faulthandler.dump_traceback_later(seconds, exit=True, file=sys.__stderr__)


watchdog = Watchdog()
os.register_at_fork(after_in_child=lambda: watchdog._reset())


def consumer_timeout(seconds: float | None) -> Callable[[Target], Target]:
    """Give a consumer *seconds* for each message, whatever ``--consumer-timeout`` says; None: as long as it takes.

    For functions, methods and class-based consumers. When the time is over the worker process ends, others take over
    what else it had, and the client is told: HTTP 504, or close 1011. The message is not run again.

    Raises:
        ValueError: *seconds* is no positive number.
    """
    if seconds is not None and (isinstance(seconds, bool) or not isinstance(seconds, int | float) or not seconds > 0):
        raise ValueError(f"@consumer_timeout({seconds!r}): give a number of seconds above 0, or None for no limit")

    def decorate(target: Target) -> Target:
        if isinstance(target, type):
            # A class-based consumer is dispatched by each instance; the class itself must stay one for routing.
            target.dispatch = _limit(target.dispatch, seconds)  # type: ignore[attr-defined]
            return target
        limited: Target = _limit(target, seconds)
        return limited

    return decorate


def _limit(function: Any, seconds: float | None) -> Any:
    @functools.wraps(function)
    def limited(*args: Any, **kwargs: Any) -> Any:
        with watchdog.limited(seconds):
            return function(*args, **kwargs)

    return limited
