"""The process of ``manage.py runserver`` that outlives a reload: it keeps the sockets while the code is exchanged.

Django's reloader runs the project's code in a child process that ends with status 3 when a file has changed. ``Keeper``
stands in its parent: there are the interface and, unless another process serves it, the hub of the IPC layer; the child
has the workers. While there is no child, or one whose code does not import, frames and requests wait in the hub.

``Kept`` is the child's end of the socket between the two: it tells when the code runs, or why it does not, and ends the
child when the keeper has gone. The server itself is given to the keeper: nothing here knows the interface.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, Self

from procman.channels import tied
from procman.channels.failures import describe_code_error
from procman.clock import SystemClock
from procman.layers.ipc.embedded import HubThread
from procman.lifetime import inherited_fd
from procman.settings import ENV_KEEPER_FD, ENV_KEEPER_LAYER, ProjectConfiguration

_RELOAD = 3  # the status with which Django's reloader ends a child
_LOOK_INTERVAL = 1.0
# A project that takes longer to start, or whose models do not import, is told of to browsers; pages wait until then.
_PATIENCE = 5.0
# Ctrl-C is to be felt at once; what a consumer does after this is cut off.
_END_TIMEOUT = 1.5
# The keeper's end reaches the child twice, by a signal too: this long it is left to that.
_GRACE = 0.3
_LONGEST_END = 3.0


class KeptServer(Protocol):
    """The interface, as the keeper sees it."""

    def start(self, project: ProjectConfiguration, sockets: Sequence[socket.socket]) -> None:
        """Serve *project*, whose workers are elsewhere, on *sockets*, which stay open."""

    def update(self, project: ProjectConfiguration) -> None:
        """Serve by *project* from now on."""

    def show(self, title: str, text: str) -> None:
        """Tell browsers that the code does not run; "" ends that."""

    def is_running(self) -> bool:
        """Whether it still serves."""

    def stop(self) -> None:
        """Close the sockets of clients and end."""


class Keeper:
    """Serves on *sockets* while children come and go. *project* is what is known before the first has started.

    *make_server* makes the server for a project and its root path. *tell* writes a line to the terminal. A project
    whose layer is in memory is served by a hub that only these two processes know, at *private_address*.
    Settings that do not load any more are waited for: a change of the modules in *settings_directory* starts a child.
    """

    def __init__(
        self,
        project: ProjectConfiguration,
        root_path: str,
        make_server: Callable[[ProjectConfiguration, str], KeptServer],
        sockets: Sequence[socket.socket],
        tell: Callable[[str], None],
        private_address: str,
        settings_directory: Path,
    ) -> None:
        self._root_path, self._sockets, self._make_server, self._tell = root_path, sockets, make_server, tell
        self._private_address = private_address
        self._project = self._placed(project)
        self._hub: HubThread | None = None
        self._server: KeptServer | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._link: socket.socket | None = None
        self._settings_directory, self._seen_settings = settings_directory, dict[Path, float]()
        self._is_ready = self._has_told = self._has_served = False

    def run(self, arguments: Sequence[str], environ: dict[str, str]) -> int:
        """Start the children, *arguments* with *environ*, until one ends for good; its exit status. Ctrl-C: 0.

        Raises:
            ProcmanError: the layer cannot be used, or was not reached.
        """
        try:
            self._serve()
            while True:
                status = self._run_child(arguments, environ)
                if status < 0 and self._is_ready:
                    self._tell(f"The process that runs the code was ended by {_name(-status)}; starting it again.")
                elif status > 0 and status != _RELOAD and self._has_served and not self._is_ready:
                    self._wait_for_settings()
                elif status != _RELOAD:
                    return status
        except KeyboardInterrupt:
            return 0
        finally:
            self._end()

    def _wait_for_settings(self) -> None:
        """Settings that do not load end the child: unlike other code nothing in it waits for their repair."""
        self._tell(f"Waiting for a change in {self._settings_directory}: open connections are kept.")
        assert self._server is not None
        self._server.show("The settings do not load", "The terminal of runserver tells why.")
        while self._settings_files() == self._seen_settings:
            threading.Event().wait(_LOOK_INTERVAL)

    def _settings_files(self) -> dict[Path, float]:
        found: dict[Path, float] = {}
        for path in self._settings_directory.glob("*.py"):
            with contextlib.suppress(OSError):  # just removed
                found[path] = path.stat().st_mtime
        return found

    # -- what stays --------------------------------------------------------------------------------------------------

    def _placed(self, project: ProjectConfiguration) -> ProjectConfiguration:
        if project.layer != "memory://":
            return project
        return dataclasses.replace(project, layer=self._private_address)

    def _serve(self) -> None:
        self._keep_layer()
        self._server = self._make_server(self._project, self._root_path)
        self._server.start(self._project, self._sockets)

    def _keep_layer(self) -> None:
        """Be the hub, where the project wants one and nobody else is."""
        if self._hub is None and self._project.layer.startswith("ipc://"):
            hub = HubThread(self._project.layer)
            if hub.is_needed():
                hub.start()
                self._hub = hub

    def _follow(self, project: ProjectConfiguration, root_path: str) -> None:
        """Serve what the child says that the project is now."""
        project, before = self._placed(project), self._project
        assert self._server is not None
        self._project = project
        if (project.layer, project.layer_config, root_path) == (before.layer, before.layer_config, self._root_path):
            self._server.update(project)
            return
        self._root_path = root_path
        self._tell("CHANNEL_LAYERS or FORCE_SCRIPT_NAME has changed: open connections are closed.")
        self._server.stop()
        if self._hub is not None and project.layer != before.layer:
            self._hub.stop()
            self._hub = None
        self._serve()

    # -- children ----------------------------------------------------------------------------------------------------

    def _run_child(self, arguments: Sequence[str], environ: dict[str, str]) -> int:
        ours, theirs = socket.socketpair()
        self._is_ready = self._has_told = False
        self._seen_settings = self._settings_files()
        with ours:
            with theirs:
                os.set_inheritable(theirs.fileno(), True)
                environ = {**environ, ENV_KEEPER_FD: str(theirs.fileno()), ENV_KEEPER_LAYER: self._private_address}
                tie = [sys.executable, "-I", "-S", tied.__file__, str(os.getpid())]
                # As Django does, descriptors that were made inheritable are passed on.
                self._process = subprocess.Popen([*tie, *arguments], env=environ, close_fds=False)
            self._link = ours
            reader = threading.Thread(target=self._listen, args=(ours,), name="keeper", daemon=True)
            reader.start()
            due = SystemClock.monotonic() + _PATIENCE
            while self._process.poll() is None:
                reader.join(_LOOK_INTERVAL)
                if not reader.is_alive():
                    self._process.wait()
                elif self._server is not None and not self._server.is_running():
                    return 1  # it has told why
                else:
                    self._keep_layer()
                    self._look(due)
            self._link = None
            status: int = self._process.returncode
            return status

    def _look(self, due: float) -> None:
        if not self._is_ready and not self._has_told and SystemClock.monotonic() >= due and self._server is not None:
            self._has_told = True
            self._server.show("The code does not run yet", "The terminal of runserver tells why.")

    def _listen(self, link: socket.socket) -> None:
        with contextlib.suppress(OSError), link.makefile("r", encoding="utf-8") as lines:
            for line in lines:
                self._hear(json.loads(line))

    def _hear(self, said: dict[str, Any]) -> None:
        assert self._server is not None
        if "broken" in said:
            self._has_told = True
            self._server.show("The code does not run", said["broken"])
            return
        try:
            self._follow(ProjectConfiguration(**said["project"]), said["root_path"])
        except Exception as error:
            self._tell(f"The site cannot be served as its settings say now: {error}. Start runserver again.")
            return
        self._is_ready = self._has_served = True
        self._server.show("", "")

    def _end(self) -> None:
        """End everything; a second Ctrl-C ends it at once."""
        process, link = self._process, self._link
        try:
            if process is not None and process.poll() is None:
                if link is not None:
                    with contextlib.suppress(OSError):
                        link.shutdown(socket.SHUT_RDWR)
                if not self._is_ready:
                    process.terminate()
            if self._server is not None:
                self._server.stop()
            if process is not None:
                process.wait(_END_TIMEOUT)
        except (KeyboardInterrupt, subprocess.TimeoutExpired):
            assert process is not None
            process.kill()
            process.wait()
        finally:
            if self._hub is not None:
                self._hub.stop()


class Kept:
    """What the child tells its keeper over *link*, and the watch on the keeper's life."""

    def __init__(self, link: socket.socket, private_address: str) -> None:
        self._link = link
        self.private_address = private_address
        self._is_ending = threading.Event()

    @classmethod
    def inherited(cls) -> Self | None:
        """The end of this process, where it is the child of a keeper."""
        fd = inherited_fd(ENV_KEEPER_FD)
        address = os.environ.pop(ENV_KEEPER_LAYER, "")
        return None if fd is None else cls(socket.socket(fileno=fd), address)

    def ready(self, project: ProjectConfiguration, root_path: str) -> None:
        """The code runs, and this is the project now."""
        self._say({"project": dataclasses.asdict(project), "root_path": root_path})

    def broken(self, error: BaseException) -> None:
        """The code does not run, for this reason: what was raised and where comes first, then how it came to that."""
        self._say({"broken": describe_code_error(error)})

    def ending(self) -> None:
        """This process ends already."""
        self._is_ending.set()

    def watch(self) -> None:
        """End this process when the keeper has gone."""
        threading.Thread(target=self._watch, name="keeper", daemon=True).start()

    def _say(self, what: dict[str, Any]) -> None:
        with contextlib.suppress(OSError):  # the keeper has gone: the watch sees to it
            self._link.sendall(json.dumps(what).encode() + b"\n")

    def _watch(self) -> None:
        with contextlib.suppress(OSError):
            self._link.recv(1)
        if not self._is_ending.wait(_GRACE):
            os.kill(os.getpid(), signal.SIGTERM)
        threading.Event().wait(_LONGEST_END)
        os._exit(1)


def watched_files(error: BaseException) -> set[Path]:
    """The files that took part in *error* and its causes: to be watched, as modules that failed are not loaded."""
    found: set[Path] = set()
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, SyntaxError) and cause.filename:
            found.add(Path(cause.filename))
        found |= {Path(frame.filename) for frame in traceback.extract_tb(cause.__traceback__)}
        cause = cause.__cause__ or cause.__context__
    return {path for path in found if path.is_absolute() and path.exists()}


def _name(number: int) -> str:
    try:
        return f"signal {number} ({signal.Signals(number).name})"
    except ValueError:
        return f"signal {number}"
