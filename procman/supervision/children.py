"""The supervisor's children: what belongs to a running one, and how one comes to be.

Drives fork, exec and pipes. When a process is started, and what its end or its words mean, is the engine's business.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from procman.forking import ForkServer
from procman.settings import (
    ENV_LAYER,
    ENV_LIFETIME_FD,
    ENV_NAME,
    ENV_NEWS_FD,
    ENV_PROJECT,
    ENV_READY_FD,
    ENV_RUN,
)
from procman.supervision.spawn import spawn

if TYPE_CHECKING:
    import asyncio

    from procman.supervision.formation import ProcessSpec
    from procman.supervision.logformat import Voice
    from procman.supervision.prestart import Prestarted


class Forked:
    """A process that somebody else has forked for this one."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None


class Child:
    """A running process and what belongs to this one run of its slot; descriptors are -1 where there is none."""

    __slots__ = (
        "fork_server",
        "lifetime_fd",
        "name",
        "news_fd",
        "out_fd",
        "pidfd",
        "process",
        "ready_fd",
        "voice",
        "waiting",
    )

    def __init__(
        self, name: str, process: subprocess.Popen[bytes] | Forked, voice: Voice, out_fd: int, ready_fd: int
    ) -> None:
        self.name, self.process, self.voice = name, process, voice
        self.out_fd, self.ready_fd = out_fd, ready_fd  # their reader closes them
        self.lifetime_fd = self.news_fd = self.pidfd = -1
        self.fork_server: ForkServer | None = None  # of a preloader that may be forked from
        self.waiting: asyncio.Task[None] | None = None  # for its port

    def tell(self, news: bytes) -> None:
        """Write *news* to it, if it listens; who does not read misses them."""
        if self.news_fd >= 0 and news:
            with contextlib.suppress(BlockingIOError, BrokenPipeError):
                os.write(self.news_fd, news)

    def end_lifetime(self) -> None:
        """Close its lifetime pipe, at which it ends."""
        if self.lifetime_fd >= 0:
            os.close(self.lifetime_fd)
            self.lifetime_fd = -1

    def end_forking(self) -> None:
        """Nothing more is forked from it."""
        if self.fork_server is not None:
            self.fork_server.close()
            self.fork_server = None

    def close(self) -> None:
        """It has ended: close what nobody reads."""
        self.end_lifetime()
        self.end_forking()
        for fd in (self.pidfd, self.news_fd):
            if fd >= 0:
                os.close(fd)
        self.pidfd = self.news_fd = -1
        if self.waiting is not None:
            self.waiting.cancel()


class Launcher:
    """Starts children in *environ*: by their command, or by a fork of a preloader.

    *fork_failed* is called with a preloader that did not answer and the reason; the child is then started otherwise.
    """

    def __init__(self, environ: Mapping[str, str], fork_failed: Callable[[Child, OSError], None]) -> None:
        self._environ = environ
        self._fork_failed = fork_failed
        self._turns: Counter[str] = Counter()
        self._lifetime_read, self._lifetime_write = os.pipe()

    def start(self, spec: ProcessSpec, voice: Voice, preloaders: Iterable[Child]) -> Child:
        """A process of *spec*, forked from the first of *preloaders* that does it if *spec* may be forked.

        Raises:
            OSError, SubprocessError: it cannot be started.
        """
        fds: list[int] = []
        news: list[int] = []
        try:
            for _ in range(3 if spec.kind.stops_by_lifetime else 2):
                fds += os.pipe()
            out_read, out_write, ready_read, ready_write, *own = fds
            own_fds = {ENV_READY_FD: ready_write, ENV_LIFETIME_FD: own[0] if own else self._lifetime_read}
            fork_server = ForkServer() if spec.kind.is_preloader else None
            process: subprocess.Popen[bytes] | Forked | None
            process = self._fork(spec, out_write, own_fds, preloaders)
            if process is None:
                if spec.kind.hears_news:
                    news += os.pipe()
                    own_fds[ENV_NEWS_FD] = news[0]
                process = self._execute(spec, out_write, own_fds, fork_server)
        except (OSError, subprocess.SubprocessError):
            for fd in (*fds, *news):
                os.close(fd)
            raise
        for fd in (out_write, ready_write, *own[:1], *news[:1]):
            os.close(fd)
        child = Child(spec.name, process, voice, out_read, ready_read)
        if own:
            child.lifetime_fd = own[1]
        if fork_server is not None:
            fork_server.started()
            child.fork_server = fork_server
        if news:
            child.news_fd = news[1]
            os.set_blocking(news[1], False)
        return child

    def adopt(self, process: Prestarted, name: str, voice: Voice) -> Child:
        """A preloader that runs already, as the child *name*."""
        process.adopt()
        child = Child(name, process.process, voice, process.out_read, process.ready_read)
        child.lifetime_fd, child.fork_server = process.lifetime_write, process.fork_server
        return child

    def pass_on(self, name: str) -> None:
        """The next child *name* may run beside one that had this name.

        The two must not be taken for one that has come back: a layer would take from the old one what it has in flight.
        """
        self._turns[name] ^= 1

    def forget(self, name: str) -> None:
        """There will be no child *name* any more."""
        self._turns.pop(name, None)

    def close(self) -> None:
        """End all children that have no lifetime pipe of their own."""
        os.close(self._lifetime_read)
        os.close(self._lifetime_write)

    def _own_environ(self, spec: ProcessSpec) -> dict[str, str]:
        """What the environment of a process has beyond that of its siblings."""
        own = dict(spec.kind.env) | {ENV_NAME: spec.name}
        # A preloader that is older than its supervisor does not know these, nor does who is forked from it.
        own |= {name: self._environ[name] for name in (ENV_LAYER, ENV_PROJECT) if name in self._environ}
        if spec.kind.port:
            own["PORT"] = str(spec.kind.port + spec.number - 1)
        if ENV_RUN in self._environ:
            own[ENV_RUN] = self._environ[ENV_RUN] + "+" * self._turns[spec.name]
        return own

    def _execute(
        self, spec: ProcessSpec, stdout: int, own_fds: Mapping[str, int], fork_server: ForkServer | None
    ) -> subprocess.Popen[bytes]:
        environ, argv, passed = {**self._environ, **self._own_environ(spec)}, list(spec.argv), list(spec.pass_fds)
        if spec.kind.announces:
            environ |= {variable: str(fd) for variable, fd in own_fds.items()}
            passed += own_fds.values()
        if fork_server is not None:
            passed.append(fork_server.theirs)
            argv += ["--control-fd", str(fork_server.theirs)]
        return spawn(argv, environ, stdout=stdout, pass_fds=passed)

    def _fork(
        self, spec: ProcessSpec, stdout: int, fds: Mapping[str, int], preloaders: Iterable[Child]
    ) -> Forked | None:
        if not spec.kind.is_forked:
            return None
        for child in preloaders:
            if child.fork_server is None:
                continue
            try:
                return Forked(child.fork_server.fork(self._own_environ(spec), stdout, fds))
            except OSError as error:
                self._fork_failed(child, error)
        return None
