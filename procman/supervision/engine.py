"""Runs a formation: spawns, reaps, reads the processes' output and carries out what ``policy.py`` decides.

Drives processes, pipes, signals and timers on one asyncio loop in one thread; holds no rule of its own. It must run in
the main thread of a process that has no other threads (children are forked) and no other children. Wakes up for exits
(pidfd, or SIGCHLD where the system has none), never polls, and never blocks on its output.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from procman.clock import Clock, SystemClock
from procman.settings import ENV_LIFETIME_FD, ENV_NAME, ENV_READY_FD, SupervisorSettings
from procman.supervision import policy, states
from procman.supervision.console import Console
from procman.supervision.formation import ProcessSpec
from procman.supervision.listeners import listen_unix
from procman.supervision.output import SYSTEM, build_prefixes, prefix_lines
from procman.supervision.pipes import OutputPipes
from procman.supervision.rpc import ControlServer
from procman.supervision.signals import SignalInbox, has_terminal
from procman.supervision.spawn import become_subreaper, spawn
from procman.supervision.states import ProcessInfo

_GUARDIAN = str(Path(__file__).with_name("guardian.py"))


class _Child:
    """A running process and what belongs to this one run of its slot."""

    __slots__ = ("lifetime_fd", "name", "pidfd", "process", "ready_fd")

    def __init__(self, name: str, process: subprocess.Popen[bytes], ready_fd: int, lifetime_fd: int | None) -> None:
        self.name, self.process, self.ready_fd, self.lifetime_fd = name, process, ready_fd, lifetime_fd
        self.pidfd: int | None = None


class Supervisor:
    """Runs *specs* until it is asked to stop or gives up.

    *control_path* is where the control socket is made; *ready_line* is printed once every type has a process that is
    ready; *color* None means: where stdout is a terminal and NO_COLOR is not set. SIGHUP restarts *roll_types*.
    """

    def __init__(
        self,
        specs: Sequence[ProcessSpec],
        settings: SupervisorSettings,
        *,
        control_path: str | None = None,
        ready_line: str = "ready",
        roll_types: Sequence[str] = ("worker",),
        color: bool | None = None,
        environ: Mapping[str, str] | None = None,
        stdout: int = 1,
        clock: Clock | None = None,
    ) -> None:
        self._specs = {spec.name: spec for spec in specs}
        self._environ = dict(os.environ if environ is None else environ)
        if color is None:
            color = os.isatty(stdout) and not self._environ.get("NO_COLOR") and self._environ.get("TERM") != "dumb"
        self._color, self._stdout, self._ready_line = color, stdout, ready_line
        self._control_path, self._roll_types = control_path, tuple(roll_types)
        self._clock = clock or SystemClock()
        self._prefixes = build_prefixes(list(self._specs), color)
        members = [policy.Member(s.name, s.type, s.stop_phase, s.stops_by_lifetime) for s in specs]
        self._policy = policy.Policy(
            members, settings.startup_timeout, settings.shutdown_timeout, random.Random().random
        )
        self._children: dict[int, _Child] = {}
        self._names: dict[str, _Child] = {}
        self._times: dict[str, tuple[float, float]] = {}  # wall clock: started, ended
        self._guardian: subprocess.Popen[bytes] | None = None
        self._guardian_fd: int | None = None
        self._interrupts = 0
        self._timer: asyncio.TimerHandle | None = None

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

    def is_stopping(self) -> bool:
        """Whether a stop has begun."""
        return self._policy.stopping

    def processes(self) -> list[ProcessInfo]:
        """Every process of the formation, in its order."""
        now = self._clock.monotonic()
        found = []
        for name, slot in self._policy.slots.items():
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
        self._console = Console(self._stdout, lambda: self._pipes.resume(), self._output_closed)
        self._pipes = OutputPipes(self._console)
        self._lifetime_read, self._lifetime_write = os.pipe()
        become_subreaper()
        loop.add_reader(self._inbox.fd, self._signals_arrived)
        control = ControlServer(self._control_path, self) if self._control_path else None
        try:
            if control is not None and self._control_path:
                await control.start(listen_unix(self._control_path))
            self._start_guardian()
            self._do(self._policy.start(self._clock.monotonic()))
            return await self._done
        finally:
            loop.remove_reader(self._inbox.fd)
            if control is not None:
                control.close()
            self._clean_up()

    def _do(self, actions: list[policy.Action]) -> None:
        """Carry out *actions* in order, and what follows from them; then wait for the next moment."""
        queue = list(actions)
        while queue:
            queue[:0] = self._do_one(queue.pop(0))
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        deadline = self._policy.deadline()
        if deadline is not None and not self._done.done():
            delay = max(0.0, deadline - self._clock.monotonic())
            self._timer = self._loop.call_later(delay, self._tick)

    def _tick(self) -> None:
        self._timer = None
        self._do(self._policy.tick(self._clock.monotonic()))

    def _do_one(self, action: policy.Action) -> list[policy.Action]:
        match action:
            case policy.Spawn(name):
                return self._spawn(name)
            case policy.Terminate(name):
                self._signal(name, os.kill, signal.SIGTERM)
            case policy.Kill(name):
                self._signal(name, os.killpg, signal.SIGKILL)
            case policy.CloseLifetime(name):
                child = self._names.get(name)
                if child is not None and child.lifetime_fd is not None:
                    os.close(child.lifetime_fd)
                    child.lifetime_fd = None
            case policy.Log(level, text):
                self.log(level, text)
            case policy.Announce():
                self.log("INFO", self._ready_line)
            case policy.Quit(status):
                if not self._done.done():
                    self._done.set_result(status)
        return []

    def _signal(self, name: str, send: Callable[[int, int], None], signum: int) -> None:
        child = self._names.get(name)
        if child is not None:
            # Nobody else reaps it, so the number is still its own.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                send(child.process.pid, signum)

    def log(self, level: str, text: str) -> None:
        """Print a line of the supervisor's own."""
        line = text if level == "INFO" else f"{level} {text}"
        self._console.write(prefix_lines(self._prefixes[SYSTEM], line.encode(errors="backslashreplace")))

    # Starting.

    def _child_environ(self, spec: ProcessSpec) -> dict[str, str]:
        environ = self._environ | {"PYTHONUNBUFFERED": "1"}
        if self._color:
            environ |= {"FORCE_COLOR": "1", "CLICOLOR_FORCE": "1"}
        return environ | dict(spec.env) | {ENV_NAME: spec.name}

    def _spawn(self, name: str) -> list[policy.Action]:
        spec, now = self._specs[name], self._clock.monotonic()
        fds: list[int] = []
        try:
            for _ in range(3 if spec.stops_by_lifetime else 2):
                fds += os.pipe()
            out_read, out_write, ready_read, ready_write, *own = fds
            lifetime_read = own[0] if own else self._lifetime_read
            environ = self._child_environ(spec)
            environ |= {ENV_READY_FD: str(ready_write), ENV_LIFETIME_FD: str(lifetime_read)}
            passed = (*spec.pass_fds, ready_write, lifetime_read)
            process = spawn(spec.argv, environ, stdout=out_write, pass_fds=passed)
        except (OSError, subprocess.SubprocessError) as error:
            for fd in fds:
                os.close(fd)
            reason = error.strerror if isinstance(error, OSError) else str(error)
            return self._policy.spawn_failed(name, f"{reason} ({spec.argv[0]})", now)
        self._tell_guardian(b"+", process.pid)
        for fd in (out_write, ready_write, *own[:1]):
            os.close(fd)
        child = _Child(name, process, ready_read, own[1] if own else None)
        self._children[process.pid] = self._names[name] = child
        self._times[name] = (self._clock.wall(), self._times.get(name, (0.0, 0.0))[1])
        self._pipes.add(out_read, self._prefixes[name])
        self._loop.add_reader(ready_read, self._ready_arrived, child)
        if hasattr(os, "pidfd_open"):
            with contextlib.suppress(OSError):
                child.pidfd = os.pidfd_open(process.pid)
                self._loop.add_reader(child.pidfd, self._reap)
        return self._policy.spawned(name, process.pid, now)

    def _ready_arrived(self, child: _Child) -> None:
        is_ready = bool(os.read(child.ready_fd, 1))
        self._close_ready(child)
        if is_ready:
            self._do(self._policy.ready(child.name, child.process.pid, self._clock.monotonic()))

    def _close_ready(self, child: _Child) -> None:
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
                self._do(self._policy.restart(self._roll_types, now))

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
            os.waitpid(found.si_pid, 0)
            if self._guardian is not None and found.si_pid == self._guardian.pid and not self._done.done():
                self._guardian.returncode = 0
                self.log("WARNING", f"the guardian (pid {found.si_pid}) has gone; starting another")
                self._start_guardian()

    def _ended(self, child: _Child) -> None:
        pid = child.process.pid
        # While its leader is a zombie the group cannot be anybody else's.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)
        self._tell_guardian(b"-", pid)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        child.process.returncode = status
        if child.ready_fd >= 0:
            # It may have been ready and dead within one turn of the loop.
            self._ready_arrived(child)
        if child.pidfd is not None:
            self._loop.remove_reader(child.pidfd)
            os.close(child.pidfd)
        if child.lifetime_fd is not None:
            os.close(child.lifetime_fd)
        del self._names[child.name]
        self._times[child.name] = (self._times[child.name][0], self._clock.wall())
        # Its last words come before the line that says that it is dead.
        self._pipes.drain(self._prefixes[child.name])
        self._do(self._policy.exited(child.name, pid, status, self._clock.monotonic()))

    def _start_guardian(self) -> None:
        if self._guardian_fd is not None:
            os.close(self._guardian_fd)
        read, self._guardian_fd = os.pipe()
        os.set_blocking(self._guardian_fd, False)
        argv = [sys.executable, "-I", "-S", _GUARDIAN]
        try:
            self._guardian = spawn(argv, {}, stdin=read, dies_with_parent=False)
        except OSError as error:
            self._guardian = None
            self.log("ERROR", f"no guardian: {error.strerror}; a kill -9 of this process may leave others behind")
        os.close(read)
        for pid in self._children:
            self._tell_guardian(b"+", pid)

    def _tell_guardian(self, sign: bytes, pid: int) -> None:
        if self._guardian_fd is not None:
            with contextlib.suppress(BrokenPipeError, BlockingIOError):  # a dead one is replaced and told everything
                os.write(self._guardian_fd, b"%s%d\n" % (sign, pid))

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
        os.close(self._lifetime_read)
        os.close(self._lifetime_write)
        if self._guardian_fd is not None:
            os.close(self._guardian_fd)
        if self._guardian is not None and self._guardian.returncode is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._guardian.wait(1.0)

    def _kill_adopted(self) -> None:
        """Kill what left its group (setsid) and became this process's when its parent died; Linux only."""
        listing = Path(f"/proc/self/task/{os.getpid()}/children")
        spared = {self._guardian.pid} if self._guardian is not None else set()
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
