"""The processes of a site, in the order in which they are started: its own, and those of a Procfile.

Builds their command lines; ``supervision`` runs them.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from procman.cli.options import to_arguments
from procman.cli.project import parse_description
from procman.errors import ConfigurationError
from procman.forking import IS_SUPPORTED
from procman.settings import (
    ENV_NAME,
    ENV_RUN,
    InterfaceSettings,
    LayerSettings,
    ProjectConfiguration,
    SupervisorSettings,
    WorkerSettings,
)
from procman.supervision.actions import READY
from procman.supervision.environ import children_environ, is_colored
from procman.supervision.formation import ProcessType
from procman.supervision.prestart import Prestarted, prestarted
from procman.supervision.procfile import Procfile, build_types, conditions_for, parse_counts, parse_procfile

if TYPE_CHECKING:
    from procman.cli.listening import Listening

# When each of the site's own types stops.
PHASES = {"interface": 0, "preloader": 1, "worker": 1, "layer": 2}
# What lines of a Procfile can come after or before.
OWN = ("layer", "interface", "worker")
_DEFAULT_BASE_PORT = 5000  # foreman's, where the site itself has no port


def read_procfile(settings: SupervisorSettings) -> Procfile:
    """What ``--procfile`` names, checked together with ``--count``; without it nothing.

    Raises:
        ConfigurationError: the file cannot be read, or a line of it, or a count is wrong.
    """
    found = Procfile("")
    if settings.procfile:
        try:
            data = Path(settings.procfile).read_bytes()
        except OSError as error:
            raise ConfigurationError(f"cannot read the Procfile {settings.procfile}: {error.strerror}") from None
        found = parse_procfile(data, settings.procfile, OWN)
    counts_of(settings, found)
    return found


def counts_of(settings: SupervisorSettings, procfile: Procfile) -> dict[str, int]:
    """How many copies ``--count`` asks for, by type.

    Raises:
        ConfigurationError: it is not written so, or there is no such type.
    """
    return parse_counts(settings.count, [entry.name for entry in procfile.entries] + ["worker", "interface"])


def own_counts(text: str) -> dict[str, int]:
    """Settings of the site's own types that ``--count`` *text* gives, as if by their flags.

    Raises:
        ConfigurationError: it is not written so.
    """
    counts = parse_counts(text)
    return {f"{name}s": counts[name] for name in ("worker", "interface") if name in counts}


def build_site(
    settings: SupervisorSettings,
    values: Mapping[str, Any],
    listening: Listening,
    hub: socket.socket | None,
    procfile: Procfile,
    control_path: str,
) -> list[ProcessType]:
    """Who runs, in starting order. *hub* is the socket of the layer's process, if there is one."""
    us = [sys.executable, "-m", "procman"]
    types = build_types(procfile, counts_of(settings, procfile), _base_port(listening), PHASES)
    if hub is not None:
        types.append(
            ProcessType("layer", [*us, "layer", "--fd", str(hub.fileno()), *to_arguments(LayerSettings, values)],
                        pass_fds=(hub.fileno(),), stop_phase=PHASES["layer"], stops_by_lifetime=True, single=True,
                        after=conditions_for(procfile, "layer"))
        )  # fmt: skip
    types.append(
        ProcessType("interface", [*us, "interface", *to_arguments(InterfaceSettings, values)],
                    count=settings.interfaces, stop_phase=PHASES["interface"],
                    listeners=tuple(tuple(each.fileno() for each in one) for one in listening.each),
                    after=conditions_for(procfile, "interface"), hears_news=settings.reload)
    )  # fmt: skip
    after = conditions_for(procfile, "worker")
    if _has_preloader(settings):
        types.append(
            ProcessType("preloader", _preloader_command(values), single=True, overlaps=True, is_needed=False,
                        is_preloader=True, stop_phase=PHASES["preloader"], stops_by_lifetime=True,
                        after=after, is_reloaded=settings.reload)
        )  # fmt: skip
        after = (("preloader", READY),)
    types.append(
        ProcessType("worker", [*us, "worker", *to_arguments(WorkerSettings, values)], count=settings.workers,
                    stop_phase=PHASES["worker"], stops_by_lifetime=True, overlaps=settings.overlap, is_forked=True,
                    after=after, is_reloaded=settings.reload)
    )  # fmt: skip
    if settings.reload:
        types.append(_build_reloader([*us, "reloader"], settings, control_path))
    return types


def _base_port(listening: Listening) -> int:
    name = listening.sockets[0].getsockname()
    return int(name[1]) if isinstance(name, tuple) else _DEFAULT_BASE_PORT


def _has_preloader(settings: SupervisorSettings) -> bool:
    return settings.preload and IS_SUPPORTED


def _preloader_command(values: Mapping[str, Any]) -> list[str]:
    return [sys.executable, "-m", "procman", "preloader", *to_arguments(WorkerSettings, values)]


@contextlib.contextmanager
def start_preloader(
    settings: SupervisorSettings, values: Mapping[str, Any], run_id: str
) -> Iterator[Prestarted | None]:
    """The preloader, which describes the project first, for a supervisor to adopt; None where there is to be none."""
    if not _has_preloader(settings):
        yield None
        return
    environ = children_environ(os.environ, settings, is_colored(os.environ, sys.stdout.isatty()))
    with prestarted(_preloader_command(values), environ | {ENV_NAME: "preloader", ENV_RUN: run_id}) as process:
        yield process


def read_description(process: Prestarted, settings: SupervisorSettings) -> ProjectConfiguration:
    """What *process* says of the project.

    Raises:
        ConfigurationError: the project does not start; what it has printed has been passed on to stderr.
    """
    try:
        return parse_description(process.answer(settings.startup_timeout), process.end)
    except ConfigurationError:
        sys.stderr.buffer.write(process.output)
        sys.stderr.flush()
        raise


def watched_directories(settings: SupervisorSettings) -> list[str]:
    """What a reload follows: the project's directory and those of ``--reload-dir``.

    Raises:
        ConfigurationError: one of them is no directory.
    """
    others = [directory for directory in settings.reload_dir.split(",") if directory]
    for directory in others:
        if not Path(directory).is_dir():
            raise ConfigurationError(f"--reload-dir {directory} is no directory")
    return [str(Path.cwd()), *others]


def _build_reloader(command: Sequence[str], settings: SupervisorSettings, control_path: str) -> ProcessType:
    """The process that watches the project's files."""
    words = ["--control", control_path, "--include", settings.reload_include]
    for directory in watched_directories(settings):
        words += ["--directory", directory]
    return ProcessType("reloader", [*command, *words], single=True, is_needed=False, is_optional=True)
