"""The process that has imported the project once and forks the workers from it.

A worker that is forked is there within milliseconds, whatever the project's import takes, and shares the memory of what
was imported. Decides whether that is safe: a project that starts a thread or opens a connection while it is imported
would share those, broken, with every worker. ``procman.forking`` forks.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import logging
import os
import socket
import sys
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from procman.channels.describe import build_configuration, write_description
from procman.channels.failures import code_traceback, describe_code_error
from procman.channels.leftovers import close_connections
from procman.errors import ConfigurationError
from procman.forking import Report, report, send_report, serve
from procman.lifetime import announce_ready
from procman.log import escape
from procman.settings import ENV_PROJECT, ProjectConfiguration

logger = logging.getLogger("django.channels")
_REFUSED = 2  # exit status, where the description says why
# What a forked process would share with the others: sockets, and event loops that watch some.
_SHARED = ("socket:", "anon_inode:[eventpoll]", "anon_inode:[io_uring]")


def run_preloader(settings: Any, control_fd: int, describe_fd: int | None = None) -> int:
    """Load the project, then fork a worker for each request on *control_fd*; the exit status of whichever ends.

    What other processes must know of the project is written to *describe_fd* first, if there is one.

    Raises:
        ConfigurationError: as for ``run_worker``.
    """
    from procman.channels.worker import load_worker, run_loaded

    control = socket.socket(fileno=control_fd)
    control.set_inheritable(False)
    before = _shared_fds()
    project = None
    if describe_fd is not None:
        project = write_description(describe_fd)
        if project is None:
            return _REFUSED
    try:
        worker, channels = load_worker(settings)
        project = project or _describe_again()
    except BaseException as error:
        cause = error.__cause__ if isinstance(error, ConfigurationError) and error.__cause__ else error
        send_report(control, Report("does not load the project", {"broken": describe_code_error(cause)}))
        if isinstance(error, ConfigurationError) or not isinstance(error, Exception):
            raise
        sys.stderr.write(code_traceback(error))
        return 1
    _close_databases()
    _begin_layers_anew()
    gc.collect()
    gc.freeze()  # what the collector does not look at, it does not write to: it stays shared
    unsafe = describe_unsafe(before)
    report(control, unsafe, {"project": dataclasses.asdict(project)})
    if not unsafe:
        logger.info("project loaded; workers are forked from here")
    announce_ready()
    if serve(control):
        _begin_layers_anew()  # connections bear the name of their process
        return run_loaded(worker, channels, settings)
    return 0


def _describe_again() -> ProjectConfiguration:
    """The project as its code says now, at the layer at which the site meets. Raises ConfigurationError."""
    known = ProjectConfiguration.from_json(os.environ[ENV_PROJECT])
    return build_configuration(known.settings_module, known.layer, known.layer_config)


def describe_unsafe(before: Iterable[int]) -> str:
    """What this process has that must not be shared, beyond the descriptors *before*; "" if there is nothing."""
    threads = [describe_thread(thread) for thread in threading.enumerate() if thread is not threading.main_thread()]
    known = len(threads) + 1
    with contextlib.suppress(OSError):
        tasks = list(Path("/proc/self/task").iterdir())
        if len(tasks) > known:
            names = {(task / "comm").read_text().strip() for task in tasks}
            threads.append(f"{len(tasks) - known} made by a C library ({escape(', '.join(sorted(names)))})")
    if threads:
        return f"starts threads while it is imported: {', '.join(threads)}"
    opened = [describe_fd(fd) for fd in sorted(_shared_fds() - set(before))]
    return f"opens connections while it is imported: {', '.join(opened)}" if opened else ""


def describe_thread(thread: threading.Thread) -> str:
    """The name of *thread* and where its code is."""
    target = getattr(thread, "_target", None) or type(thread).run
    module = getattr(target, "__module__", "") or "?"
    return f"{escape(thread.name)} ({escape(module)}.{escape(getattr(target, '__qualname__', '?'))})"


def describe_fd(fd: int) -> str:
    """What descriptor *fd* is connected to."""
    try:
        with socket.socket(fileno=os.dup(fd)) as found:
            return escape(f"a socket to {found.getpeername()!r}")
    except OSError:
        with contextlib.suppress(OSError):
            return escape(f"{Path(f'/proc/self/fd/{fd}').readlink()} (descriptor {fd})")
        return f"descriptor {fd}"


def _shared_fds() -> set[int]:
    found = set()
    for entry in list(Path("/proc/self/fd").iterdir()):
        with contextlib.suppress(OSError):
            if str(entry.readlink()).startswith(_SHARED):
                found.add(int(entry.name))
    return found


def _begin_layers_anew() -> None:
    from procman.channels.asgi import channel_layers

    for layer in channel_layers.backends.values():
        close = getattr(layer, "close", None)
        if close is not None:
            close()


def _close_databases() -> None:
    from django.core.cache import close_caches

    close_connections()
    close_caches()
