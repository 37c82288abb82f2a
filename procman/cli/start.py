"""``channels-run start``: the whole formation."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING, Any

import click

from procman.cli.options import fd_option, layer_option, pick, settings_option, settings_options, to_arguments
from procman.errors import ProcmanError
from procman.settings import (
    ENV_LAYER,
    ENV_PROJECT,
    ENV_RUN,
    InterfaceSettings,
    LayerSettings,
    SupervisorSettings,
    WorkerSettings,
)

if TYPE_CHECKING:
    from procman.cli.listening import Listening


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
    supervisor = SupervisorSettings.load(**pick(SupervisorSettings, values))
    interface = InterfaceSettings.load(**pick(InterfaceSettings, values))
    WorkerSettings.load(**pick(WorkerSettings, values))
    LayerSettings.load(**pick(LayerSettings, values))
    _check_interface(interface)
    if no_color:
        os.environ["NO_COLOR"] = "1"
    sys.exit(_start(supervisor, fd, layer, settings, values))


def _check_interface(settings: InterfaceSettings) -> None:
    """What the interface processes would refuse, each with a restart. Raises ConfigurationError."""
    from procman.interface.forwarded import Trusted
    from procman.interface.scrape import parse_bind
    from procman.interface.tls import build_context

    Trusted(settings.forwarded_allow_ips)
    build_context(settings)
    if settings.metrics_bind:
        parse_bind(settings.metrics_bind)


def _start(
    supervisor: SupervisorSettings,
    fds: tuple[int, ...],
    layer: str | None,
    settings: str | None,
    values: dict[str, Any],
) -> int:
    from procman.cli.project import choose_layer, control_of, describe_project, enter_project, with_layer
    from procman.layers.ipc.address import control_path, parse
    from procman.layers.redis.hosts import is_redis
    from procman.supervision import Supervisor
    from procman.supervision.formation import build_formation
    from procman.supervision.listeners import Lock, listen_unix

    enter_project(settings)
    if layer or os.environ.get(ENV_LAYER):
        # Before the project is read, so that a wrong address is refused early and the project sees the right one.
        os.environ[ENV_LAYER] = choose_layer(layer, "")
    # Before anything slow: a request that arrives while the project is being imported waits in the backlog.
    with contextlib.ExitStack() as stack:
        listening = _listen(supervisor, fds)
        stack.callback(listening.close)
        project = describe_project()
        address = choose_layer(None, project.layer)
        meeting = control_of(address)
        path = parse(meeting).path
        lock = Lock(str(Path(path).with_suffix(".lock")), meeting)
        stack.callback(lock.release)
        environ = dict(os.environ) | {ENV_PROJECT: with_layer(project, address).to_json(), ENV_RUN: token_hex(8)}
        hub = None
        if not is_redis(address):  # the settings themselves say where Redis is, or the flag has told the environment
            environ[ENV_LAYER] = address
            hub = stack.enter_context(listen_unix(path))
            stack.callback(_remove, path)
        kind = "redis" if hub is None else "ipc"
        url = listening.url("https" if values["ssl_certfile"] else "http")
        return Supervisor(
            build_formation(_types(supervisor, values, listening, hub)),
            supervisor,
            control_path=control_path(meeting),
            ready_line=f"ready: {url} ({_summary(supervisor)}, {kind} layer)",
            environ=environ,
        ).run()


def _types(
    supervisor: SupervisorSettings, values: dict[str, Any], listening: Listening, hub: socket.socket | None
) -> list[Any]:
    """The formation: who runs, in starting order; phases of a stop run interface, workers, layer."""
    from procman.forking import IS_SUPPORTED
    from procman.supervision.formation import ProcessType

    us = [sys.executable, "-m", "procman"]
    interface_flags = to_arguments(InterfaceSettings, values)
    layer_flags = to_arguments(LayerSettings, values)
    worker_flags = to_arguments(WorkerSettings, values)
    layer = (
        []
        if hub is None
        else [
            ProcessType(
                "layer",
                [*us, "layer", "--fd", str(hub.fileno()), *layer_flags],
                pass_fds=(hub.fileno(),),
                stop_phase=2,
                stops_by_lifetime=True,
                single=True,
            )
        ]
    )
    preloader = []
    if supervisor.preload and IS_SUPPORTED:
        preloader = [
            ProcessType("preloader", [*us, "preloader", *worker_flags], single=True, overlaps=True, is_needed=False,
                        is_preloader=True, stop_phase=1, stops_by_lifetime=True)
        ]  # fmt: skip
    return [
        *layer,
        ProcessType("interface", [*us, "interface", *interface_flags], count=supervisor.interfaces, stop_phase=0,
                    listeners=tuple(tuple(listener.fileno() for listener in each) for each in listening.each)),
        *preloader,
        ProcessType("worker", [*us, "worker", *worker_flags], count=supervisor.workers, stop_phase=1,
                    stops_by_lifetime=True, overlaps=True, is_forked=True,
                    after="preloader" if preloader else ""),
    ]  # fmt: skip


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
