"""``channels-run start``: the whole formation."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING, Any

import click

from procman.cli import exits
from procman.cli.environment import load_environment, recognise_platform
from procman.cli.options import fd_option, layer_option, pick, settings_option, settings_options
from procman.errors import ConfigurationError, ProcmanError
from procman.settings import (
    ENV_LAYER,
    ENV_PROJECT,
    ENV_RUN,
    InterfaceSettings,
    LayerSettings,
    SupervisorSettings,
    WorkerSettings,
    drain_timeout,
)

if TYPE_CHECKING:
    from procman.cli.listening import Listening
    from procman.settings import ProjectConfiguration
    from procman.supervision.prestart import Prestarted


@click.command("start")
@click.argument("names", nargs=-1)
@settings_options(SupervisorSettings)
@fd_option
@settings_options(WorkerSettings)
@layer_option
@settings_option
@click.option("--no-color", is_flag=True, help="No colors in the log.  [environment: NO_COLOR]")
@settings_options(InterfaceSettings)
@settings_options(LayerSettings)
def command(
    names: tuple[str, ...], fd: tuple[int, ...], layer: str | None, settings: str | None, no_color: bool, **values: Any
) -> None:
    """Start the layer, the interface and the workers, restart what crashes, and print one merged log.

    With NAMES: start those of the running site that are down, such as worker.2 after `stop worker.2`.
    """
    if names:
        from procman.cli.running import ask, print_states

        print_states(ask(layer, settings, "procman.start", *names), "RUNNING")
        return
    from procman.cli.formation import own_counts

    platform = recognise_platform(values["platform"])
    has_port = "PORT" in os.environ
    files = load_environment(values["platform"])
    is_own_machine = platform is None or platform.looks_for_env
    if "PORT" in os.environ and not has_port and values["bind"] is None and is_own_machine:
        values["bind"] = "127.0.0.1"  # what a developer's file says of the port opens nothing to the outside
    defaults = platform.defaults if platform else {}
    values |= own_counts(values["count"] or "")
    supervisor = SupervisorSettings.load(defaults=defaults, **pick(SupervisorSettings, values))
    values = _with_defaults(values, supervisor, defaults)
    interface = InterfaceSettings.load(**pick(InterfaceSettings, values))
    WorkerSettings.load(**pick(WorkerSettings, values))
    LayerSettings.load(**pick(LayerSettings, values))
    _check_interface(interface)
    if no_color:
        os.environ["NO_COLOR"] = "1"
    notes = [*([platform.describe(), *platform.notes] if platform else []), *(f"variables from {f}" for f in files)]
    sys.exit(_start(supervisor, fd, layer, settings, values, notes))


def _with_defaults(
    values: dict[str, Any], supervisor: SupervisorSettings, defaults: Mapping[str, Any]
) -> dict[str, Any]:
    """*values* with what follows for the other processes from those of the supervisor, where they are not given.

    *defaults* are those of the platform.
    """
    derived: dict[str, Any] = {"drain_timeout": drain_timeout(supervisor.shutdown_timeout)}
    if "forwarded_allow_ips" in defaults and not os.environ.get("FORWARDED_ALLOW_IPS"):
        derived["forwarded_allow_ips"] = defaults["forwarded_allow_ips"]
    return values | {name: value for name, value in derived.items() if values[name] is None}


def _check_interface(settings: InterfaceSettings) -> None:
    """What the interface processes would refuse, each with a restart. Raises ConfigurationError."""
    from procman.interface.forwarded import Trusted
    from procman.interface.tls import build_context

    Trusted(settings.forwarded_allow_ips)
    build_context(settings)
    if settings.metrics_bind:
        from procman.interface.scrape import parse_bind

        parse_bind(settings.metrics_bind)


def _start(
    supervisor: SupervisorSettings,
    fds: tuple[int, ...],
    layer: str | None,
    settings: str | None,
    values: dict[str, Any],
    notes: Sequence[str] = (),
) -> int:
    from procman.cli.formation import build_site, read_procfile
    from procman.cli.project import choose_layer, control_of, enter_project, with_layer
    from procman.layers.ipc.address import control_path, parse
    from procman.layers.redis.hosts import is_redis

    enter_project(settings)
    procfile = read_procfile(supervisor)
    if layer or os.environ.get(ENV_LAYER):
        # Before the project is read, so that a wrong address is refused early and the project sees the right one.
        os.environ[ENV_LAYER] = choose_layer(layer, "")
    # Before anything slow: a request that arrives while the project is being imported waits in the backlog.
    with contextlib.ExitStack() as stack:
        listening = _listen(supervisor, fds)
        stack.callback(listening.close)
        run_id = token_hex(8)
        first, project = _import_project(stack, supervisor, values, run_id)
        from procman.supervision.engine import Supervisor
        from procman.supervision.formation import build_formation
        from procman.supervision.listeners import Lock, listen_unix

        address = choose_layer(None, project.layer)
        meeting = control_of(address)
        path = parse(meeting).path
        lock = Lock(str(Path(path).with_suffix(".lock")), meeting)
        stack.callback(lock.release)
        environ = dict(os.environ) | {ENV_PROJECT: with_layer(project, address).to_json(), ENV_RUN: run_id}
        hub = None
        if not is_redis(address):  # the settings themselves say where Redis is, or the flag has told the environment
            environ[ENV_LAYER] = address
            hub = stack.enter_context(listen_unix(path))
            stack.callback(_remove, path)
        kind = "redis" if hub is None else "ipc"
        url = listening.url("https" if values["ssl_certfile"] else "http")
        return Supervisor(
            build_formation(build_site(supervisor, values, listening, hub, procfile, control_path(meeting))),
            supervisor,
            control_path=control_path(meeting),
            prestarted=first,
            notes=[*notes, *procfile.describe()],
            ready_line=f"ready: {url} ({_summary(supervisor)}, {kind} layer)",
            environ=environ,
        ).run()


def _import_project(
    stack: contextlib.ExitStack, supervisor: SupervisorSettings, values: dict[str, Any], run_id: str
) -> tuple[Prestarted | None, ProjectConfiguration]:
    """The preloader, if there is one, and what the project is. With ``--reload``, code that starts is waited for."""
    from procman.cli.formation import read_description, start_preloader, watched_directories
    from procman.cli.project import describe_project

    while True:
        first = stack.enter_context(start_preloader(supervisor, values, run_id))
        # While the project is being imported there is time for imports here.
        importlib.import_module("procman.supervision.engine")
        if first is None:
            return None, describe_project()
        try:
            return first, read_description(first, supervisor)
        except ConfigurationError as error:
            if not supervisor.reload:
                raise
            click.echo(f"channels-run: error: {error}; waiting for a change of the code", err=True)
            _wait_for_change(watched_directories(supervisor), supervisor.reload_include)


def _wait_for_change(directories: Sequence[str], include: str) -> None:
    from procman.cli.reloader import wait_for_change

    try:
        wait_for_change(directories, include)
    except KeyboardInterrupt:
        sys.exit(exits.OK)


def _listen(supervisor: SupervisorSettings, fds: tuple[int, ...]) -> Listening:
    from procman.cli.listening import open_listeners
    from procman.supervision.errors import PortInUse

    try:
        return open_listeners(supervisor, fds, os.environ)
    except PortInUse:
        _refuse_second_one()
        raise


def _refuse_second_one() -> None:
    """Say that this very project runs already, where that is why the port is in use. Raises AlreadyRunning."""
    from procman.cli.project import choose_layer, control_of, settings_file
    from procman.layers.ipc.address import control_path, project_address
    from procman.supervision import control
    from procman.supervision.errors import AlreadyRunning

    own = project_address(settings_file(os.environ["DJANGO_SETTINGS_MODULE"]))
    address = control_of(choose_layer(None, own))
    try:
        pid = control.call(control_path(address), "supervisor.getPID")
    except ProcmanError:
        return
    raise AlreadyRunning(pid, address)


def _summary(supervisor: SupervisorSettings) -> str:
    workers = _count(supervisor.workers, "worker")
    return workers if supervisor.interfaces == 1 else f"{_count(supervisor.interfaces, 'interface')}, {workers}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _remove(path: str) -> None:
    Path(path).unlink(missing_ok=True)
