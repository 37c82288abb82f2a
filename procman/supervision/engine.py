"""Runs a formation: spawns, reaps, reads the processes' output and carries out what ``policy.py`` decides.

Drives processes, pipes, signals and timers on one asyncio loop in one thread; holds no rule of its own. It must run in
the main thread of a process that has no other threads (children are forked) and no other children. Wakes up for exits
(pidfd, or SIGCHLD where the system has none), never polls, and never blocks on its output.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import itertools
import json
import os
import random
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from procman import lifetime
from procman.clock import Clock, SystemClock
from procman.errors import ConfigurationError
from procman.log import escape
from procman.settings import ENV_RUN, MAX_COUNT, SupervisorSettings
from procman.supervision import actions, policy, states, usage
from procman.supervision.children import Child, Launcher
from procman.supervision.console import Console
from procman.supervision.environ import children_environ, is_colored
from procman.supervision.formation import ProcessSpec
from procman.supervision.guard import Guard
from procman.supervision.listeners import listen_unix
from procman.supervision.logfiles import LogFiles
from procman.supervision.logformat import TEXT
from procman.supervision.logring import LogRing
from procman.supervision.memorycheck import MemoryCheck
from procman.supervision.mergedlog import MergedLog
from procman.supervision.notify import ALIVE, READY, STOPPING, VARIABLES, notify, watchdog_interval
from procman.supervision.pipes import OutputPipes
from procman.supervision.prestart import Prestarted
from procman.supervision.readiness import ReadyLine, wait_for_port
from procman.supervision.rpc import ControlServer
from procman.supervision.signals import SignalInbox, has_terminal
from procman.supervision.spawn import become_subreaper
from procman.supervision.states import ProcessInfo, State

SHOWN_FILES = 3  # that have changed at once
PAUSE = 1.0  # seconds that a timer is late by when this process was stopped; a busy one is not as late


def _member(spec: ProcessSpec) -> actions.Member:
    kind = spec.kind
    return actions.Member(
        spec.name, kind.name, kind.stop_phase, kind.stops_by_lifetime, kind.overlaps, kind.after, kind.is_needed,
        kind.is_optional, kind.runs_once, kind.ready_after, kind.is_reloaded,
    )  # fmt: skip


class Supervisor:
    """Runs *specs* until it is asked to stop or gives up.

    *control_path* is where the control socket is made; *notes* are lines for the start of the log; *ready_line* is
    printed once every type has a process that is ready; *color* None means: see ``is_colored``. SIGHUP restarts
    *roll_types*. *prestarted* is the first process of the preloader, if it was started already.
    """

    def __init__(
        self,
        specs: Sequence[ProcessSpec],
        settings: SupervisorSettings,
        *,
        control_path: str | None = None,
        notes: Sequence[str] = (),
        ready_line: str = "ready",
        roll_types: Sequence[str] = ("worker",),
        color: bool | None = None,
        environ: Mapping[str, str] | None = None,
        prestarted: Prestarted | None = None,
        stdout: int = 1,
        clock: Clock | None = None,
    ) -> None:
        self._specs = {spec.name: spec for spec in specs}
        self._templates = {spec.type: spec for spec in specs}
        self.ring = LogRing()
        environ = dict(os.environ if environ is None else environ)
        self._notify_environ = {name: environ[name] for name in VARIABLES if name in environ}
        if color is None:
            color = is_colored(environ, os.isatty(stdout))
        self._color = color and settings.log_format == TEXT
        self._environ = children_environ(environ, settings, self._color)
        self._prestarted = prestarted
        self._settings = settings
        self._files: LogFiles | None = None
        if settings.log_dir:
            self._files = LogFiles(
                settings.log_dir, settings.log_max_bytes, settings.log_backups, lambda text: self.log("ERROR", text)
            )
        self._stdout, self._ready_line = stdout, ready_line
        self._notes = tuple(notes)
        self._control_path, self._roll_types = control_path, tuple(roll_types)
        self._clock = clock or SystemClock()
        members = [_member(spec) for spec in specs]
        self._policy = policy.Policy(
            members,
            settings.startup_timeout,
            settings.shutdown_timeout,
            settings.liveness_timeout,
            random.Random().random,
        )
        self._children: dict[int, Child] = {}
        self._names: dict[str, Child] = {}
        self._unsafe: set[str] = set()  # preloaders that must not be forked
        self._news = b""  # the last that was told
        self._times: dict[str, tuple[float, float]] = {}  # wall clock: started, ended
        self._memory = MemoryCheck(settings.max_rss)
        self._guard = Guard(f"{ENV_RUN}={self._environ[ENV_RUN]}" if self._environ.get(ENV_RUN) else "")
        self._interrupts = 0
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0

    def run(self) -> int:
        """Run the formation to its end; the exit status (see ``states``)."""
        # Before asyncio, which would install a handler of its own for SIGINT otherwise.
        self._had_terminal = has_terminal()
        self._inbox = SignalInbox()
        try:
            return asyncio.run(self._main())
        finally:
            self._inbox.close()

    # What the control socket asks.

    def names_of(self, word: str) -> list[str]:
        """The processes that *word* names: one, all of a type, ``type:name``, ``type:*`` or ``all``; maybe none."""
        kind, _, name = word.rpartition(":")
        slots = {key: slot for key, slot in self._policy.slots.items() if not slot.leaving}
        if kind:
            return [key for key, slot in slots.items() if slot.member.type == kind and name in ("*", key)]
        return [key for key, slot in slots.items() if word in ("all", key, slot.member.type)]

    def start(self, names: Sequence[str]) -> None:
        """Start those that are down."""
        self._do(self._policy.start_slots(names, self._clock.monotonic()))

    def stop(self, names: Sequence[str]) -> None:
        """Stop these, until they are started."""
        self._do(self._policy.stop_slots(names, self._clock.monotonic()))

    def restart(self, names: Sequence[str]) -> list[str]:
        """Restart these one after the other, and before all of a type that is forked what it is forked from."""
        wanted = dict.fromkeys(names)
        for kind in {self._specs[name].type for name in names if self._specs[name].kind.is_forked}:
            if wanted.keys() >= set(self.names_of(kind)):
                sources = [spec.name for spec in self._specs.values() if spec.kind.is_preloader]
                wanted = dict.fromkeys([*(name for name in sources if name in self.names_of("all")), *wanted])
        self._do(self._policy.restart(list(wanted), self._clock.monotonic()))
        return list(wanted)

    def is_restarting(self, name: str) -> bool:
        """Whether a restart has yet to come to *name*, or to end with it."""
        return self._policy.is_restarting(name)

    def scale(self, kind: str, count: int) -> list[str]:
        """Have *count* processes of type *kind*; the names of those that come or go.

        Raises:
            ConfigurationError: there is no such type, or its number is fixed.
        """
        template = self._templates.get(kind)
        if template is None or not template.is_scalable:
            kinds = " or ".join(spec.type for spec in self._templates.values() if spec.is_scalable)
            what = "its number is fixed" if template is not None else "there is none"
            raise ConfigurationError(f"cannot scale {kind!r}: {what}; this can be scaled: {kinds or 'nothing'}")
        if not 0 <= count <= MAX_COUNT:
            raise ConfigurationError(f"cannot scale {kind} to {count}: choose 0 to {MAX_COUNT}")
        names = self.names_of(kind)
        now = self._clock.monotonic()
        gone, come = names[count:], []
        for name in reversed(gone):
            self._do(self._policy.remove(name, now))
        numbers = (number for number in itertools.count(1) if f"{kind}.{number}" not in self._policy.slots)
        for number in itertools.islice(numbers, max(0, count - len(names))):
            spec = dataclasses.replace(template, name=f"{kind}.{number}", number=number)
            self._specs[spec.name] = spec
            come.append(spec.name)
            self._do(self._policy.add(_member(spec), now))
        return [*come, *gone]

    def reload(self, files: Sequence[str]) -> None:
        """The code has changed in *files*: start anew what runs it.

        Raises:
            ConfigurationError: nothing here runs code that is being written.
        """
        if not any(spec.kind.is_reloaded for spec in self._specs.values()):
            raise ConfigurationError("this site was started without --reload")
        shown = ", ".join([escape(file) for file in files[:SHOWN_FILES]])
        more = f" and {len(files) - SHOWN_FILES} more" if len(files) > SHOWN_FILES else ""
        self._tell_news({"changed": files})
        held, self._unsafe = self._unsafe, set()
        self._do(self._policy.reload(self._clock.monotonic(), held))
        self.log("INFO", f"{shown}{more} changed; reloading")

    def signal(self, names: Sequence[str], signum: int) -> None:
        """Send *signum* to the processes *names*."""
        for name in names:
            self._signal(name, os.kill, signum)

    def shutdown(self) -> None:
        """Stop everything, as on SIGTERM."""
        self._loop.call_soon(lambda: self._do(self._policy.stop(self._clock.monotonic())))

    async def wait_until(self, predicate: Callable[[], bool]) -> bool:
        """Whether *predicate* came true before everything stopped; it is asked whenever a state may have changed."""
        while not predicate():
            if self._done.done():
                return False
            await asyncio.shield(self._changed)
        return True

    def is_stopping(self) -> bool:
        """Whether a stop has begun."""
        return self._policy.stopping

    def processes(self) -> list[ProcessInfo]:
        """Every process of the formation, in its order; those of a type stand together."""
        now = self._clock.monotonic()
        found = []
        types = list(dict.fromkeys(slot.member.type for slot in self._policy.slots.values()))
        for name, slot in sorted(self._policy.slots.items(), key=lambda item: types.index(item[1].member.type)):
            ready = slot.ready_at is not None and slot.pid is not None
            uptime = now - slot.ready_at if ready and slot.ready_at is not None else 0.0
            started, ended = self._times.get(name, (0.0, 0.0))
            found.append(
                ProcessInfo(
                    name, slot.member.type, slot.pid, slot.state, uptime, started, ended, max(slot.restarts, 0),
                    slot.exit_status,
                )
            )  # fmt: skip
        return found

    # The loop.

    async def _main(self) -> int:
        loop = self._loop = asyncio.get_running_loop()
        self._done: asyncio.Future[int] = loop.create_future()
        self._changed: asyncio.Future[None] = loop.create_future()
        self._console = Console(self._stdout, lambda: self._pipes.resume(), self._output_closed)
        settings, names = self._settings, list(self._specs)
        self._log = MergedLog(self._console, self.ring, settings, self._clock, names, self._color, self._files)
        self._pipes = OutputPipes(self._log)
        self._launcher = Launcher(self._environ, self._fork_failed)
        become_subreaper()
        loop.add_reader(self._inbox.fd, self._signals_arrived)
        control = ControlServer(self._control_path, self) if self._control_path else None
        try:
            if control is not None and self._control_path:
                await control.start(listen_unix(self._control_path))
            self._start_guardian()
            for note in (*self._notes, usage.describe_limits()):
                self.log("INFO", note)
            if self._memory.interval:
                loop.call_later(self._memory.interval, self._look_at_memory)
            self._show_life()
            self._do(self._policy.start(self._clock.monotonic()))
            return await self._done
        finally:
            loop.remove_reader(self._inbox.fd)
            if control is not None:
                control.close()
            self._clean_up()

    def _do(self, wanted: list[actions.Action]) -> None:
        """Carry out what is *wanted* in order, and what follows from them; then wait for the next moment."""
        queue = list(wanted)
        while queue:
            queue[:0] = self._do_one(queue.pop(0))
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        changed, self._changed = self._changed, self._loop.create_future()
        changed.set_result(None)
        deadline = self._policy.deadline()
        if deadline is not None and not self._done.done():
            now = self._clock.monotonic()
            self._due = max(deadline, now)
            delay = self._due - now
            self._timer = self._loop.call_later(delay, self._tick)

    def _tick(self) -> None:
        self._timer = None
        late = self._clock.monotonic() - self._due
        if late > PAUSE:
            self._policy.paused(late)
        # After a pause of this process itself (SIGSTOP) signs of life of the others wait unread.
        for child in list(self._children.values()):
            if child.ready_fd >= 0:
                self._status_arrived(child)
        self._do(self._policy.tick(self._clock.monotonic()))

    def _do_one(self, action: actions.Action) -> list[actions.Action]:
        match action:
            case actions.Spawn(name):
                return self._spawn(name)
            case actions.Terminate(name):
                kind = self._specs[name].kind
                self._signal(name, os.killpg if kind.signals_group else os.kill, kind.stop_signal)
            case actions.Kill(name):
                self._signal(name, os.killpg, signal.SIGKILL)
            case actions.Abort(name):
                self._signal(name, os.kill, signal.SIGABRT)
            case actions.CloseLifetime(name):
                child = self._names.get(name)
                if child is not None:
                    child.end_lifetime()
                    is_preloader = self._specs[name].kind.is_preloader
                    if is_preloader:
                        child.end_forking()
                    # What is not ready yet, because it imports the project, does not look at its pipe. A preloader that
                    # is not forked from ends by the signal alone, too.
                    if is_preloader or self._policy.slots[name].ready_at is None:
                        self._signal(name, os.kill, signal.SIGTERM)
            case actions.Log(level, text):
                self.log(level, text)
            case actions.Rename(name, to):
                self._rename(name, to)
            case actions.Forget(name):
                for known in (self._specs, self._times):
                    known.pop(name, None)
                self._launcher.forget(name)
                self.ring.forget(name)
            case actions.Announce():
                self.log("INFO", self._ready_line)
                notify(self._notify_environ, READY, f"STATUS={self._ready_line}")
            case actions.Quit(status):
                notify(self._notify_environ, STOPPING)
                if not self._done.done():
                    self._done.set_result(status)
        return []

    def _rename(self, name: str, to: str) -> None:
        spec = self._specs.pop(name)
        self._specs[to] = dataclasses.replace(spec, name=to)
        if to.endswith(policy.OLD):  # its successor runs by the same
            self._specs[name] = spec
        self._times[to] = self._times.get(name, (0.0, 0.0))
        child = self._names.pop(name, None)
        if child is not None:
            child.name, self._names[to] = to, child
        self._launcher.pass_on(name.removesuffix(policy.OLD))

    def _signal(self, name: str, send: Callable[[int, int], None], signum: int) -> None:
        child = self._names.get(name)
        if child is not None:
            # Nobody else reaps it, so the number is still its own.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                send(child.process.pid, signum)

    def log(self, level: str, text: str) -> None:
        """Print a line of the supervisor's own."""
        self._log.say(level, text)

    # Starting.

    def _spawn(self, name: str) -> list[actions.Action]:
        spec, now, voice = self._specs[name], self._clock.monotonic(), self._log.voice(name)
        if spec.kind.is_preloader and self._prestarted is not None:
            process, self._prestarted = self._prestarted, None
            return self._watch(self._launcher.adopt(process, name, voice), now, process.output)
        try:
            child = self._launcher.start(spec, voice, self._preloaders())
        except (OSError, subprocess.SubprocessError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            return self._policy.spawn_failed(name, f"{reason} ({spec.argv[0]})", now)
        return self._watch(child, now)

    def _preloaders(self) -> list[Child]:
        """Those that run; while the successor of one starts, the old one is what others come from."""
        found = [child for child in self._names.values() if self._specs[child.name].kind.is_preloader]
        found = [child for child in found if self._policy.slots[child.name].state is State.RUNNING]
        return sorted(found, key=lambda child: not child.name.endswith(policy.OLD))

    def _fork_failed(self, child: Child, error: OSError) -> None:
        self.log("WARNING", f"{child.name} (pid {child.process.pid}) forks nothing: {error}; killing it")
        self._signal(child.name, os.killpg, signal.SIGKILL)

    def _watch(self, child: Child, now: float, output: bytes = b"") -> list[actions.Action]:
        """See to *child* from here on; *output* is what was read of it already."""
        name, pid, kind = child.name, child.process.pid, self._specs[child.name].kind
        child.tell(self._news)
        self._guard.add(pid)
        self._children[pid] = self._names[name] = child
        self._times[name] = (self._clock.wall(), self._times.get(name, (0.0, 0.0))[1])
        self._pipes.add(child.out_fd, child.voice, self._ready_line_watch(child), output)
        os.set_blocking(child.ready_fd, False)
        self._loop.add_reader(child.ready_fd, self._status_arrived, child)
        if hasattr(os, "pidfd_open"):
            with contextlib.suppress(OSError):
                child.pidfd = os.pidfd_open(pid)
                self._loop.add_reader(child.pidfd, self._reap)
        if kind.ready_port:
            port = kind.ready_port + self._specs[name].number - 1
            child.waiting = self._loop.create_task(self._watch_port(child, port))
        return self._policy.spawned(name, pid, now)

    def _ready_line_watch(self, child: Child) -> Callable[[bytes], bool] | None:
        """What looks for the line by which *child* shows that it is ready; None if there is no such line."""
        pattern = self._specs[child.name].kind.ready_log
        if not pattern:
            return None
        line = ReadyLine(pattern)

        def look(data: bytes) -> bool:
            if not line.feed(data):
                return False
            self._do(self._policy.ready(child.name, child.process.pid, self._clock.monotonic()))
            return True

        return look

    async def _watch_port(self, child: Child, port: int) -> None:
        await wait_for_port(port)
        self._do(self._policy.ready(child.name, child.process.pid, self._clock.monotonic()))

    def _judge(self, child: Child) -> None:
        """Ask a preloader that has loaded the project whether it may be forked."""
        if child.fork_server is None:
            return
        said = child.fork_server.report()
        self._tell_news(said.news)
        if said.unsafe:
            child.end_forking()
            self._unsafe.add(child.name)
            self.log(
                "WARNING",
                f"workers are not forked from the preloader, each imports the project itself: it {said.unsafe}. Do "
                "that in a receiver of worker_process_ready instead, or give --no-preload",
            )
            self._loop.call_soon(self.stop, [child.name])

    def _tell_news(self, news: Mapping[str, Any]) -> None:
        """Pass what is known of the project on to those who want to hear it; who does not read misses it."""
        if not news:
            return
        self._news = json.dumps(news).encode() + b"\n"
        for child in self._children.values():
            child.tell(self._news)

    def _status_arrived(self, child: Child) -> None:
        """What *child* says of itself: see ``procman.lifetime``."""
        try:
            said = os.read(child.ready_fd, 4096)
        except BlockingIOError:
            return
        if not said:
            self._close_ready(child)
            return
        pid, now = child.process.pid, self._clock.monotonic()
        if lifetime.READY in said:
            self._judge(child)
            self._do(self._policy.ready(child.name, pid, now))
        if lifetime.BEAT in said:
            self._do(self._policy.beat(child.name, pid, now))
        if lifetime.SUCCESSOR in said:
            self._do(self._policy.restart([child.name], now))

    def _close_ready(self, child: Child) -> None:
        if child.ready_fd >= 0:
            self._loop.remove_reader(child.ready_fd)
            os.close(child.ready_fd)
            child.ready_fd = -1

    # Exits and signals.

    def _signals_arrived(self) -> None:
        now = self._clock.monotonic()
        for signum in self._inbox.take():
            if signum == signal.SIGCHLD:
                self._reap()
            elif signum == signal.SIGINT:
                self._interrupts += 1
                self._do(self._policy.stop(now) if self._interrupts == 1 else self._policy.force(now))
            elif signum == signal.SIGTERM or (self._had_terminal and not has_terminal()):
                # Platforms send SIGTERM several times, hence it never forces; a terminal that has gone means stop too.
                self._do(self._policy.stop(now))
            else:
                self.restart([name for kind in self._roll_types for name in self.names_of(kind)])

    def _reap(self) -> None:
        """Everything that has died: children, the guardian, orphans that were adopted."""
        while True:
            try:
                found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if found is None:
                return
            child = self._children.pop(found.si_pid, None)
            if child is not None:
                self._ended(child)
                continue
            if self._prestarted is not None and found.si_pid == self._prestarted.process.pid:
                self._prestarted.end()
                self._prestarted = None  # another one will be started in its place
                continue
            os.waitpid(found.si_pid, 0)
            if found.si_pid == self._guard.pid and not self._done.done():
                self._guard.ended()
                self.log("WARNING", f"the guardian (pid {found.si_pid}) has gone; starting another")
                self._start_guardian()

    def _ended(self, child: Child) -> None:
        pid = child.process.pid
        # While its leader is a zombie the group cannot be anybody else's.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)
        self._guard.remove(pid)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        child.process.returncode = status
        if child.ready_fd >= 0:
            # It may have been ready and dead within one turn of the loop.
            self._status_arrived(child)
            self._close_ready(child)
        if child.pidfd >= 0:
            self._loop.remove_reader(child.pidfd)
        if child.fork_server is not None and self._policy.slots[child.name].ready_at is None:
            self._tell_news(child.fork_server.report().news)
        child.close()
        del self._names[child.name]
        self._times[child.name] = (self._times[child.name][0], self._clock.wall())
        # Its last words come before the line that says that it is dead.
        self._pipes.drain(child.voice)
        if self._memory.may_have_killed(status):
            text = "has killed a process for lack of memory: give it more, or fewer --workers, or --max-rss"
            self.log("ERROR", f"{child.name} (pid {pid}) was probably that one: the kernel {text}")
        self._do(self._policy.exited(child.name, pid, status, self._clock.monotonic()))

    def _show_life(self) -> None:
        """Tell systemd, again and again, that this loop runs, where it wants to know."""
        interval = watchdog_interval(self._notify_environ, os.getpid())
        if interval and not self._done.done():
            notify(self._notify_environ, ALIVE)
            self._loop.call_later(interval, self._show_life)

    # Memory.

    def _look_at_memory(self) -> None:
        if self._done.done() or self._policy.stopping:
            return
        self._loop.call_later(self._memory.interval, self._look_at_memory)
        workers = {
            child.name: pid
            for pid, child in self._children.items()
            if self._specs[child.name].kind.overlaps and not self._specs[child.name].kind.is_preloader
            and self._policy.slots[child.name].state is State.RUNNING
        }  # fmt: skip
        warnings, name = self._memory.look([os.getpid(), *self._children], workers)
        for text in warnings:
            self.log("WARNING", text)
        if name is not None:
            self._do(self._policy.restart([name], self._clock.monotonic()))

    def _start_guardian(self) -> None:
        try:
            self._guard.start(self._children)
        except OSError as error:
            self.log("ERROR", f"no guardian: {error.strerror}; a kill -9 of this process may leave others behind")

    # The end.

    def _output_closed(self) -> None:
        self._loop.call_soon(lambda: self._do(self._policy.stop(self._clock.monotonic(), states.OUTPUT_CLOSED)))

    def _clean_up(self) -> None:
        """Leave nothing behind: descriptors, orphans that were adopted, the guardian, unwritten lines."""
        if self._timer is not None:
            self._timer.cancel()
        for child in list(self._children.values()):
            self._signal(child.name, os.killpg, signal.SIGKILL)
        self._kill_adopted()
        for child in list(self._children.values()):
            self._close_ready(child)
        self._pipes.close()
        self._console.close()
        if self._files is not None:
            self._files.close()
        self._launcher.close()
        self._guard.close()

    def _kill_adopted(self) -> None:
        """Kill what left its group (setsid) and became this process's when its parent died; Linux only."""
        listing = Path(f"/proc/self/task/{os.getpid()}/children")
        spared = {self._guard.pid}
        for _ in range(10):  # each round adopts the children of those it killed
            try:
                pids = {int(pid) for pid in listing.read_text().split()} - spared - set(self._children)
            except OSError:
                return
            if not pids:
                return
            for pid in pids:
                with contextlib.suppress(ProcessLookupError, PermissionError, ChildProcessError):
                    os.kill(pid, signal.SIGKILL)
                    os.waitpid(pid, 0)
