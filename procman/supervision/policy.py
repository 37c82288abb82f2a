"""When processes are started, restarted, given up and stopped: (event, now) -> actions.

Pure: no I/O and no clock; ``now`` is monotonic seconds and ``random`` is an argument. ``engine.py`` reports what
happened and carries the actions out, in order; between two events it waits until ``deadline()`` and calls ``tick``.

The rules:

- a process that was ready restarts at once, from a budget of ``BUDGET`` per slot that refills one per
  ``BUDGET_REFILL`` seconds that the slot's process was up; an empty budget, or a death before ready, backs off
  exponentially;
- a death by SIGTERM or SIGINT that nobody here sent is held for ``HOLD``: platforms signal every process at once, and
  the supervisor's own signal may be on its way;
- it gives up, with an exit status of its own, when a type cannot be started at all or stays down in a crash loop;
- a stop has one deadline for everything. Its last part is kept for SIGKILL;
- a restart that was asked for goes through the slots one after the other. Where a type overlaps, the old process keeps
  running, under its name with ``OLD`` behind it, until its successor is ready; if that one does not come up, the old
  one gets its name back and the others are left alone;
- what was stopped on request stays down, and nobody gives up because of it;
- what is optional is tried again and again, and nobody gives up because of it either. What runs once is not started
  again; a failure of it is one of what waits for its success;
- where code is being written, a change ends its processes at once: messages wait for the new ones. Code that does not
  start is left alone until it is changed again.
"""

from __future__ import annotations

import signal
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from procman.supervision import states
from procman.supervision.actions import (
    COMPLETED_SUCCESSFULLY,
    READY,
    STARTED,
    Abort,
    Action,
    Announce,
    CloseLifetime,
    Forget,
    Kill,
    Log,
    Member,
    Quit,
    Rename,
    Spawn,
    Terminate,
)
from procman.supervision.states import ALIVE, MOVES, State

BUDGET = 10.0  # restarts without a pause
BUDGET_REFILL = 10.0  # seconds per restart given back; a process that lives longer than this never waits
BACKOFF_FIRST = 0.1  # seconds; doubles with each failure
BACKOFF_CAP = 30.0  # seconds
HOLD = 0.25  # seconds
EARLY_DEATHS = 5  # deaths in a row before ready, of a type of which no process was ever ready
STABLE = 10.0  # seconds after ready from which a process counts as up; sooner, a crash loop would look healthy
DOWN_LIMIT = 60.0  # seconds without any such process of a type that crashes again and again
OLD = "~"  # behind the name of a process whose successor starts
LAST_WORDS = 1.0  # seconds between SIGABRT and SIGKILL
KILL_RESERVE = 1.0  # seconds at the end of a stop that are kept for SIGKILL
RELOAD_TIMEOUT = 2.0  # seconds that a reload leaves to what runs
# Processes of this phase of a stop and later ones are what the others need to their end.
LAST_PHASE = 2
# How a process ends that was asked to. A shell reports the death of its command by a signal as 128 and its number.
_BY_SIGNAL = frozenset({-signal.SIGTERM, -signal.SIGINT, 128 + signal.SIGTERM, 128 + signal.SIGINT})
_AS_ASKED = _BY_SIGNAL | {0, -signal.SIGQUIT, -signal.SIGHUP}


@dataclass(slots=True)
class Slot:
    """One place in the formation and the process that fills it."""

    member: Member
    state: State = State.STOPPED
    pid: int | None = None
    spawned_at: float = 0.0
    ready_at: float | None = None
    exit_status: int | None = None
    restarts: int = -1
    timer: float | None = None  # STARTING: too slow; BACKOFF: start; STOPPING: kill
    budget: float = BUDGET
    failures: int = 0  # exponent of the backoff; goes down by one per BUDGET_REFILL seconds of running
    early_deaths: int = 0
    replaced: bool = False  # stopped in order to be started again
    held: bool = False  # stopped on request, until a start is asked for
    beat_at: float | None = None  # when it last showed that it lives; None: it does not do so
    waiting: bool = False  # for the types that it comes after
    leaving: bool = False  # has no place in the formation once its process is gone

    def move(self, state: State) -> None:
        """Change the state; a move that the table does not allow is a fault of the rules."""
        if state not in MOVES[self.state]:
            raise RuntimeError(f"{self.member.name} cannot move from {self.state.name} to {state.name}")
        self.state = state

    def take_budget(self, now: float) -> bool:
        """Whether a restart at once is left; takes it.

        Only time that the process was up gives some back: a pause before a start has earned nothing.
        """
        uptime = now - self.ready_at if self.ready_at is not None else 0.0
        self.budget = min(BUDGET, self.budget + uptime / BUDGET_REFILL)
        if self.budget < 1:
            return False
        self.budget -= 1
        return True


@dataclass(slots=True)
class _TypeState:
    ever_started: bool = False
    ever_ready: bool = False
    is_ready: bool = False  # one has been, since the start or the last reload
    statuses: dict[str, int] = field(default_factory=dict)  # with which those that run once have ended
    wanted_since: float = 0.0
    down_since: float | None = None
    deaths_while_down: int = 0
    slots: list[Slot] = field(default_factory=list)


def _is_stable(slot: Slot, now: float) -> bool:
    return slot.ready_at is not None and now - slot.ready_at >= STABLE


def _is_held(kind: _TypeState) -> bool:
    """Whether none of this type is to run, because it was asked for or it waits for another type."""
    return all(slot.held or slot.waiting for slot in kind.slots)


def _is_needed(kind: _TypeState) -> bool:
    return any(slot.member.is_needed for slot in kind.slots)


def _is_optional(kind: _TypeState) -> bool:
    """Whether nobody gives up because of this type: the site is one without it, or its code is being written."""
    return all(slot.member.is_optional or slot.member.is_reloaded for slot in kind.slots)


def _is_complete(kind: _TypeState, only_success: bool) -> bool:
    """Whether all of a type that runs once have ended, with success if *only_success*."""
    done = [kind.statuses.get(slot.member.name) for slot in kind.slots]
    return all(status is not None and not (only_success and status) for status in done)


def _is_up(kind: _TypeState) -> bool:
    if any(slot.member.runs_once for slot in kind.slots):
        return _is_complete(kind, only_success=True)
    return kind.ever_ready


def _has_running(kind: _TypeState) -> bool:
    return any(slot.state is State.RUNNING for slot in kind.slots)


class Policy:
    """The rules for one formation. Timeouts are seconds; *random* returns a number in [0, 1)."""

    def __init__(
        self,
        members: Iterable[Member],
        startup_timeout: float,
        shutdown_timeout: float,
        liveness_timeout: float = 0.0,
        random: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self.slots = {member.name: Slot(member) for member in members}
        self._types: dict[str, _TypeState] = {}
        for slot in self.slots.values():
            self._types.setdefault(slot.member.type, _TypeState()).slots.append(slot)
        self._startup_timeout, self._shutdown_timeout, self._random = startup_timeout, shutdown_timeout, random
        self._liveness_timeout = liveness_timeout  # 0: nobody looks
        self._announced = False
        self._roll: deque[str] = deque()
        self._rolling: str | None = None
        self.status = states.STOPPED_BY_REQUEST
        self.stopping = False
        self._quit = False
        self._asked: set[str] = set()
        self._moments: list[float] = []  # of a stop: half time, kill, kill everything, end

    # What happened.

    def start(self, now: float) -> list[Action]:
        """Start every process, in order. Nobody waits: clients of a process that starts wait in its listen backlog."""
        for kind in self._types.values():
            kind.wanted_since = now
        for slot in self.slots.values():
            slot.waiting = not self._may_start(slot)
        return [action for slot in self.slots.values() if not slot.waiting for action in self._spawn(slot, now)]

    def spawned(self, name: str, pid: int, now: float) -> list[Action]:
        """The process of *name* runs as *pid* and is not ready yet."""
        slot = self.slots[name]
        slot.pid, slot.spawned_at, slot.ready_at = pid, now, None
        slot.timer = now + (self._startup_timeout if slot.member.ready_after is None else slot.member.ready_after)
        self._types[slot.member.type].ever_started = True
        return self._release(now)

    def spawn_failed(self, name: str, reason: str, now: float) -> list[Action]:
        """The process of *name* could not be started at all."""
        return self._died_early(self.slots[name], f"{name} could not be started: {reason}", now)

    def ready(self, name: str, pid: int, now: float) -> list[Action]:
        """*pid* says that it does its work."""
        slot = self.slots[name]
        if slot.pid != pid or slot.state is not State.STARTING:
            return []
        slot.move(State.RUNNING)
        slot.ready_at, slot.timer, slot.early_deaths = now, None, 0
        kind = self._types[slot.member.type]
        kind.ever_ready = kind.is_ready = True
        actions = self._release(now) + self._announce()
        if self._rolling == name:
            old = self.slots.get(name + OLD)
            self._rolling = old.member.name if old is not None else None
            actions += self._end(old, now) if old is not None else self._roll_next(now)
        return actions

    def beat(self, name: str, pid: int, now: float) -> list[Action]:
        """*pid* shows that its code runs, and will again and again from now on."""
        slot = self.slots.get(name)
        if slot is not None and slot.pid == pid:
            slot.beat_at = now
        return []

    def paused(self, seconds: float) -> None:
        """This process itself did not run for so long (SIGSTOP, a frozen container): nobody could be heard."""
        for slot in self.slots.values():
            if slot.beat_at is not None:
                slot.beat_at += seconds
            if slot.state is State.STARTING and slot.timer is not None:
                slot.timer += seconds

    def exited(self, name: str, pid: int, status: int, now: float) -> list[Action]:
        """*pid* is dead and its group killed; *status* is negative for a signal."""
        slot = self.slots[name]
        if slot.pid != pid:
            return []
        slot.pid, slot.exit_status, slot.timer = None, status, None
        what = f"{name} (pid {pid}) {states.describe_exit(status)} after {now - slot.spawned_at:.1f} s"
        if self.stopping:
            slot.move(State.EXITED)
            # A death by the signals of the stop is what was asked for.
            odd = status not in _AS_ASKED | {-signal.SIGKILL}
            return [*([Log("WARNING", what)] if odd else []), *self._advance_stop(now)]
        if slot.leaving or slot.held:
            wanted = slot.state is State.STOPPING and status in _AS_ASKED
            return [*([] if wanted else [Log("WARNING", what)]), *self._gone(slot, now)]
        if slot.replaced:
            slot.replaced = False
            log = [Log("WARNING", f"{what} instead of stopping")] if status not in _AS_ASKED else []
            if slot.waiting:
                slot.move(State.STOPPED)
                return [*log]
            return [*log, *self._spawn(slot, now)]
        if slot.member.runs_once:
            return self._complete(slot, what, status, now)
        kind = self._types[slot.member.type]
        self._note_death(kind, slot, now)
        if slot.ready_at is None:
            return self._died_early(slot, what + " without having been ready", now)
        slot.failures = max(0, slot.failures - int((now - slot.ready_at) / BUDGET_REFILL))
        return self._restart(slot, what, status, now) + self._check_types(now)

    def tick(self, now: float) -> list[Action]:
        """A moment has come: start what was held back, kill what is too slow."""
        if self.stopping:
            return self._advance_stop(now)
        actions: list[Action] = []
        for slot in self.slots.values():
            actions += self._check_beat(slot, now)
            if slot.timer is None or slot.timer > now:
                continue
            slot.timer = None
            if slot.state is State.BACKOFF:
                actions += self._spawn(slot, now)
            elif slot.state is State.STARTING and slot.member.ready_after is not None and slot.pid is not None:
                actions += self.ready(slot.member.name, slot.pid, now)
            elif slot.state is State.STARTING:
                text = f"{slot.member.name} (pid {slot.pid}) is not ready after {self._startup_timeout:g} s; killing it"
                actions += [Log("WARNING", text), Kill(slot.member.name)]
            elif slot.state is State.RUNNING:  # it was told to say what it does
                slot.beat_at = None
                actions.append(Kill(slot.member.name))
            elif slot.state is State.STOPPING:
                text = f"{slot.member.name} (pid {slot.pid}) did not stop in time; killing it"
                actions += [Log("WARNING", text), Kill(slot.member.name)]
        return actions + self._check_types(now)

    def restart(self, names: Iterable[str], now: float) -> list[Action]:
        """Restart the processes *names* one after the other, each when its predecessor's successor is ready.

        What was stopped on request is started.
        """
        if self.stopping:
            return []
        wanted = [name for name in names if name not in self._roll and not self.slots[name].leaving]
        self._roll.extend(wanted)
        several = " one after the other" if len(wanted) > 1 else ""
        log = [Log("INFO", f"restarting {', '.join(wanted)}{several}")] if wanted else []
        return [*log, *([] if self._rolling else self._roll_next(now))]

    def is_restarting(self, name: str) -> bool:
        """Whether a restart has yet to come to *name*, or to end with it."""
        return name in self._roll or self._rolling in (name, name + OLD)

    def start_slots(self, names: Iterable[str], now: float) -> list[Action]:
        """Start what of *names* is down, without what is left of a pause, and keep it running."""
        actions: list[Action] = []
        for slot in [self.slots[name] for name in names] if not self.stopping else []:
            if slot.state is State.STOPPING and slot.held:
                slot.held, slot.replaced = False, True
            elif slot.state in (State.STOPPED, State.BACKOFF, State.EXITED, State.FATAL):
                kind = self._types[slot.member.type]
                if _is_held(kind):
                    kind.wanted_since = now
                slot.waiting = False
                slot.held, slot.timer, slot.failures, slot.early_deaths = False, None, 0, 0
                actions += self._spawn(slot, now)
        return actions

    def reload(self, now: float, held: Iterable[str] = ()) -> list[Action]:
        """The code has changed: end what runs it, and start it anew in order; *held* are started, too."""
        if self.stopping:
            return []
        self._roll.clear()
        self._rolling = None
        ends: list[Action] = []
        starts: list[Action] = []
        slots = [slot for slot in self.slots.values() if slot.member.is_reloaded]
        kinds = {slot.member.type for slot in slots}
        for kind in kinds:
            self._types[kind].is_ready = False
            self._types[kind].down_since, self._types[kind].deaths_while_down = None, 0
        for slot in slots:
            if slot.leaving or (slot.held and slot.member.name not in held):
                ends += self._end(slot, now)
                continue
            slot.held, slot.failures, slot.early_deaths = False, 0, 0
            slot.waiting = not self._may_start(slot)
            if slot.pid is not None:
                slot.replaced = True
                ends += self._end(slot, now)
                slot.timer = now + min(RELOAD_TIMEOUT, self._shutdown_timeout)
            elif not slot.waiting:
                slot.timer = None
                starts += self._spawn(slot, now)
        return [*ends, *starts]

    def stop_slots(self, names: Iterable[str], now: float) -> list[Action]:
        """Stop *names* and keep them down until they are started on request."""
        actions: list[Action] = []
        for name in list(names) if not self.stopping else []:
            slot = self.slots[name]
            if name in self._roll:
                self._roll.remove(name)
            slot.held, slot.replaced = True, False
            old = self.slots.get(name + OLD)
            for each in (slot, old) if old is not None else (slot,):
                actions += self._end(each, now)
            kind = self._types[slot.member.type]
            kind.down_since, kind.deaths_while_down = None, 0
            if self._rolling in (name, name + OLD):
                self._rolling = None
                actions += self._roll_next(now)
        return actions

    def add(self, member: Member, now: float) -> list[Action]:
        """The formation has one slot more, of a type that it has."""
        if self.stopping:
            return []
        slot = self.slots[member.name] = Slot(member)
        self._types[member.type].slots.append(slot)
        return self._spawn(slot, now)

    def remove(self, name: str, now: float) -> list[Action]:
        """The formation has no slot *name* any more, once its process has ended."""
        if self.stopping:
            return []
        slot = self.slots[name]
        actions = self.stop_slots([name], now)
        slot.leaving = True
        return actions if slot.pid is not None else [*actions, *self._gone(slot, now)]

    def stop(self, now: float, status: int = states.STOPPED_BY_REQUEST) -> list[Action]:
        """Stop everything within the shutdown timeout. A stop that has begun is not changed by another."""
        if self.stopping:
            return []
        self.stopping, self.status = True, status
        self._roll.clear()
        total = self._shutdown_timeout
        reserve = min(KILL_RESERVE, total / 2)
        self._moments = [now + min(total / 2, total - reserve), now + total - reserve, now + total - reserve / 2]
        self._moments.append(now + total)
        for slot in self.slots.values():
            slot.timer = None
            if slot.state is State.BACKOFF:
                slot.move(State.STOPPED)
        return [Log("INFO", f"stopping, within {total:g} s"), *self._advance_stop(now)]

    def force(self, now: float) -> list[Action]:
        """Kill everything now."""
        actions = self.stop(now, states.FORCED)
        self.status = states.FORCED if self.status == states.STOPPED_BY_REQUEST else self.status
        self._moments = [now, now, now, now + KILL_RESERVE]
        return [*actions, Log("WARNING", "forced: killing what still runs"), *self._advance_stop(now)]

    def deadline(self) -> float | None:
        """When ``tick`` is due, at the latest; None if nothing waits for time to pass."""
        if self.stopping:
            return self._moments[0] if self._moments and not self._quit else None
        moments = [slot.timer for slot in self.slots.values() if slot.timer is not None]
        moments += [
            slot.beat_at + self._liveness_timeout
            for slot in self.slots.values()
            if slot.beat_at is not None and self._beats(slot)
        ]
        for kind in self._types.values():
            if _is_held(kind) or _is_optional(kind):
                continue
            if not kind.ever_ready:
                moments.append(kind.wanted_since + self._startup_timeout)
            elif (
                kind.down_since is not None
                and _is_needed(kind)
                and kind.deaths_while_down > 1
                and not _has_running(kind)
            ):
                moments.append(kind.down_since + DOWN_LIMIT)
        return min(moments, default=None)

    # What follows.

    def _beats(self, slot: Slot) -> bool:
        watched = slot.state is State.RUNNING and slot.beat_at is not None and slot.timer is None
        return watched and self._liveness_timeout > 0

    def _check_beat(self, slot: Slot, now: float) -> list[Action]:
        """A process in which no code has run for too long says where it is, and is killed a moment later."""
        if not self._beats(slot) or slot.beat_at is None or now < slot.beat_at + self._liveness_timeout:
            return []
        slot.timer = now + LAST_WORDS
        text = f"{slot.member.name} (pid {slot.pid}) has shown no life for {now - slot.beat_at:.0f} s; killing it"
        return [Log("ERROR", text), Abort(slot.member.name)]

    def _spawn(self, slot: Slot, now: float) -> list[Action]:
        slot.move(State.STARTING)
        slot.ready_at = slot.beat_at = None
        slot.restarts += 1
        return [Spawn(slot.member.name)]

    def _may_start(self, slot: Slot) -> bool:
        """Whether what *slot* comes after is as it must be."""
        return all(self._is_met(*wanted) for wanted in slot.member.after if wanted[0] in self._types)

    def _is_met(self, name: str, condition: str) -> bool:
        kind = self._types[name]
        if condition == STARTED:
            return kind.ever_started
        if condition == READY:
            return kind.is_ready
        return _is_complete(kind, only_success=condition == COMPLETED_SUCCESSFULLY)

    def _release(self, now: float) -> list[Action]:
        """Something has become of a type: start what has waited for that."""
        actions: list[Action] = []
        for slot in self.slots.values():
            if slot.waiting and self._may_start(slot):
                self._types[slot.member.type].wanted_since = now
                slot.waiting = False
                if not slot.held and slot.pid is None:
                    actions += self._spawn(slot, now)
        return actions

    def _announce(self) -> list[Action]:
        kinds = [kind for kind in self._types.values() if not all(slot.member.is_optional for slot in kind.slots)]
        if self._announced or not all(map(_is_up, kinds)):
            return []
        self._announced = True
        return [Announce()]

    def _complete(self, slot: Slot, what: str, status: int, now: float) -> list[Action]:
        """A process that runs once has ended."""
        name, kind = slot.member.name, self._types[slot.member.type]
        slot.move(State.EXITED)
        kind.statuses[name] = status
        rolled: list[Action] = []
        if self._rolling == name:
            self._rolling = None
            rolled = self._roll_next(now)
        if not status:
            return [Log("INFO", f"{what}: done"), *self._release(now), *self._announce(), *rolled]
        waiting = [other.member for other in self.slots.values() if other.waiting and not other.held]
        hopeless = [member for member in waiting if (slot.member.type, COMPLETED_SUCCESSFULLY) in member.after]
        names = f"; {', '.join(member.name for member in hopeless)} cannot start without it" if hopeless else ""
        if not all(member.is_optional for member in (slot.member, *hopeless)):
            return [Log("ERROR", f"{what}{names}; giving up"), *self.stop(now, states.NEVER_READY)]
        return [Log("ERROR", f"{what}{names}"), *self._release(now), *rolled]

    def _restart(self, slot: Slot, what: str, status: int, now: float) -> list[Action]:
        """A process that had been ready has died."""
        if not slot.take_budget(now):
            return self._back_off(slot, what, now)
        if status in _BY_SIGNAL:
            slot.move(State.BACKOFF)
            slot.timer = now + HOLD
            return [Log("WARNING", f"{what}; restarting in {HOLD:g} s")]
        return [Log("WARNING", f"{what}; restarting now"), *self._spawn(slot, now)]

    def _died_early(self, slot: Slot, what: str, now: float) -> list[Action]:
        name, kind = slot.member.name, self._types[slot.member.type]
        slot.early_deaths += 1
        if self._rolling == name:
            # The others still run the old code, and go on: a deploy that cannot start must not take the site down.
            self._rolling = None
            self._roll.clear()
            old = self.slots.get(name + OLD)
            if old is not None and old.state is State.RUNNING:
                return [Log("ERROR", f"{what}; the old one stays, and the others too"), *self._take_back(slot, old)]
            what += "; the restart of the others is called off"
        if slot.member.is_reloaded:
            slot.move(State.FATAL)
            return [Log("ERROR", f"{what}; waiting for a change of the code")]
        if not kind.ever_ready and slot.early_deaths >= EARLY_DEATHS and not slot.member.is_optional:
            slot.move(State.FATAL)
            text = f"{what}, {slot.early_deaths} times in a row; giving up"
            return [Log("ERROR", text), *self.stop(now, states.NEVER_READY)]
        return self._back_off(slot, what, now) + self._check_types(now)

    def _back_off(self, slot: Slot, what: str, now: float) -> list[Action]:
        delay = min(BACKOFF_CAP, BACKOFF_FIRST * 2.0**slot.failures)
        # Processes that die of one cause (a database that is away) must not come back in one moment.
        delay *= 1 - self._random() / 4
        slot.failures = min(slot.failures + 1, 16)
        slot.move(State.BACKOFF)
        slot.timer = now + delay
        return [Log("WARNING", f"{what}; start {slot.failures + 1} in {delay:.1f} s")]

    def _note_death(self, kind: _TypeState, slot: Slot, now: float) -> None:
        """Keep count of how long a type has been down, as a whole, while *slot* dies."""
        running = [other for other in kind.slots if other is not slot and other.state is State.RUNNING]
        if any(_is_stable(other, now) for other in running):
            kind.down_since, kind.deaths_while_down = None, 0
        elif kind.ever_ready:
            if kind.down_since is None or _is_stable(slot, now):
                kind.down_since, kind.deaths_while_down = now, 0
            kind.deaths_while_down += 1

    def _check_types(self, now: float) -> list[Action]:
        """Give up when a type cannot be started, or stays down."""
        if self.stopping:
            return []
        for name, kind in self._types.items():
            if _is_held(kind) or _is_optional(kind):
                continue
            if not kind.ever_ready and now >= kind.wanted_since + self._startup_timeout:
                text = f"no {name} was ready within {self._startup_timeout:g} s; giving up"
                return [Log("ERROR", text), *self.stop(now, states.NEVER_READY)]
            down = now - kind.down_since if kind.down_since is not None else 0.0
            if _is_needed(kind) and down >= DOWN_LIMIT and kind.deaths_while_down > 1 and not _has_running(kind):
                text = f"no {name} has stayed up for {down:.0f} s, after {kind.deaths_while_down} crashes; giving up"
                return [Log("ERROR", text), *self.stop(now, states.CRASH_LOOP)]
        return []

    def _roll_next(self, now: float) -> list[Action]:
        while self._roll:
            slot = self.slots.get(self._roll.popleft())
            if slot is None:
                continue
            name = slot.member.name
            if slot.state in (State.BACKOFF, State.STOPPED, State.EXITED, State.FATAL):
                self._rolling = name
                return self.start_slots([name], now)
            if slot.state is State.RUNNING and slot.member.overlaps:
                self._rolling = name
                return self._put_beside(slot, now)
            if slot.state in (State.RUNNING, State.STARTING):
                self._rolling, slot.replaced = name, True
                return self._end(slot, now)
        return []

    def _put_beside(self, old: Slot, now: float) -> list[Action]:
        """Start a successor of *old*, which runs on under another name."""
        name = old.member.name
        slot = Slot(old.member, restarts=old.restarts, budget=old.budget)
        old.member, old.leaving = old.member._replace(name=name + OLD), True
        self._put(name, {name: slot, name + OLD: old})
        self._types[old.member.type].slots.append(slot)
        return [Rename(name, name + OLD), *self._spawn(slot, now)]

    def _take_back(self, slot: Slot, old: Slot) -> list[Action]:
        """The successor *slot* did not come up: *old* is what it was."""
        name = slot.member.name
        old.member, old.leaving = slot.member, False
        del self.slots[name + OLD]
        self._put(name, {name: old})
        self._types[slot.member.type].slots.remove(slot)
        return [Rename(name + OLD, name)]

    def _put(self, name: str, slots: dict[str, Slot]) -> None:
        """Have *slots* in the place of slot *name*."""
        items = list(self.slots.items())
        self.slots.clear()
        for key, slot in items:
            self.slots.update(slots if key == name else {key: slot})

    def _end(self, slot: Slot, now: float) -> list[Action]:
        """Ask the process of *slot* to stop, if it has one."""
        slot.timer = None
        if slot.state is State.BACKOFF:
            slot.move(State.STOPPED)
        if slot.state not in (State.RUNNING, State.STARTING):
            if slot.state is State.STOPPING:
                slot.timer = now + self._shutdown_timeout
            return []
        slot.move(State.STOPPING)
        slot.timer = now + self._shutdown_timeout
        return [self._ask(slot)]

    def _gone(self, slot: Slot, now: float) -> list[Action]:
        """The process of a slot that is held or leaves has ended."""
        actions: list[Action] = []
        name = slot.member.name
        if slot.leaving:
            del self.slots[name]
            self._types[slot.member.type].slots.remove(slot)
            actions.append(Forget(name))
        else:
            slot.move(State.STOPPED)
        if self._rolling == name:
            self._rolling = None
            actions += self._roll_next(now)
        return actions

    def _ask(self, slot: Slot) -> Action:
        name = slot.member.name
        return CloseLifetime(name) if slot.member.stops_by_lifetime else Terminate(name)

    def _advance_stop(self, now: float) -> list[Action]:
        """Whatever the stop has to do next; safe to call at any moment of it."""
        if self._quit:
            return []
        passed = 4 - len(self._moments)
        while self._moments and now >= self._moments[0]:
            del self._moments[0]
            passed += 1
        alive = [slot for slot in self.slots.values() if slot.pid is not None]
        if not alive or passed >= 4:
            self._quit = True
            lost = [Log("ERROR", f"{slot.member.name} (pid {slot.pid}) cannot be killed") for slot in alive]
            return [*lost, Log("INFO", "stopped"), Quit(self.status)]
        actions: list[Action] = []
        first = min(slot.member.stop_phase for slot in alive)
        for slot in alive:
            name, last = slot.member.name, slot.member.stop_phase >= LAST_PHASE
            if name not in self._asked and (slot.member.stop_phase == first or (passed >= 1 and not last)):
                self._asked.add(name)
                if slot.state in ALIVE - {State.STOPPING}:
                    slot.move(State.STOPPING)
                actions.append(self._ask(slot))
            # SIGKILL goes once to each, first to those on whom the last ones wait.
            if f"kill {name}" not in self._asked and passed >= (3 if last else 2):
                self._asked.add(f"kill {name}")
                if self.status != states.FORCED:
                    actions.append(Log("WARNING", f"{name} (pid {slot.pid}) did not stop in time; killing it"))
                actions.append(Kill(name))
        return actions
