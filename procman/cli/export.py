"""``channels-run export``: this project as units of systemd, programs of supervisord, or lines of a Procfile."""

from __future__ import annotations

import getpass
import os
import shlex
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from procman.cli.options import layer_option, pick, settings_option, settings_options, to_arguments
from procman.errors import ConfigurationError
from procman.settings import ENV_LAYER, InterfaceSettings, LayerSettings, SupervisorSettings, WorkerSettings

if TYPE_CHECKING:
    from procman.supervision.formation import ProcessType

FORMATS = ("supervisord", "systemd", "procfile")
_SETTINGS = "DJANGO_SETTINGS_MODULE"
_ALL = (SupervisorSettings, WorkerSettings, InterfaceSettings, LayerSettings)
# What belongs to where a site listens: the others have flags for all roles.
_LISTENING = ("bind", "port", "socket_mode", "interfaces", "workers")


@dataclass(frozen=True)
class Site:
    """What an export says of the project. ``flags`` are those of each role, ``environ`` what it must have set.

    ``others`` are the lines of a Procfile that run beside it.
    """

    name: str
    directory: str
    user: str
    program: str
    environ: Mapping[str, str]
    settings: SupervisorSettings
    flags: Mapping[str, Sequence[str]]
    has_hub: bool
    others: Sequence[ProcessType] = ()


@click.command("export")
@click.argument("format", type=click.Choice(FORMATS))
@click.option("--name", metavar="NAME", help="Name of the site in the output.  [default: the directory's]")
@click.option("--user", metavar="USER", help="User that the site runs as.  [default: you]")
@settings_options(SupervisorSettings)
@settings_options(WorkerSettings)
@layer_option
@settings_option
@settings_options(InterfaceSettings)
@settings_options(LayerSettings)
def command(
    format: str, name: str | None, user: str | None, layer: str | None, settings: str | None, **values: Any
) -> None:
    """Print the configuration with which another process manager runs this project.

    \b
        channels-run export systemd --port 8000 --workers 4
        channels-run export supervisord --bind 0.0.0.0 > /etc/supervisor/conf.d/site.conf
        channels-run export procfile > Procfile

    systemd and a Procfile run `channels-run` itself. supervisord runs each role, and the lines of a Procfile, and holds
    the listening socket; it knows no order of starts but that of the programs.
    """
    from procman.cli.formation import PHASES, counts_of, read_procfile
    from procman.cli.project import enter_project, guess_layer
    from procman.layers.redis.hosts import is_redis
    from procman.supervision.procfile import build_types

    module = enter_project(settings)
    address = guess_layer(settings, layer)
    given = SupervisorSettings.load(**pick(SupervisorSettings, values))
    lines = read_procfile(given)
    own = {key: value for key, value in values.items() if key not in _LISTENING}
    site = Site(
        name=_checked(name or Path.cwd().name),
        directory=str(Path.cwd()),
        user=user or getpass.getuser(),
        program=str(Path(sys.executable).with_name("channels-run")),
        environ={_SETTINGS: module} | ({ENV_LAYER: address} if layer or os.environ.get(ENV_LAYER) else {}),
        settings=given,
        flags={
            "start": [word for kind in _ALL for word in to_arguments(kind, values)],
            "interface": to_arguments(InterfaceSettings, own),
            "worker": to_arguments(WorkerSettings, own),
            "layer": to_arguments(LayerSettings, own),
        },
        has_hub=not is_redis(address),
        others=build_types(lines, counts_of(given, lines), given.port, PHASES),
    )  # fmt: skip
    click.echo({"supervisord": supervisord, "systemd": systemd, "procfile": procfile}[format](site), nl=False)


def _checked(name: str) -> str:
    if not name.replace("-", "").replace("_", "").isalnum() or not name.isascii():
        raise ConfigurationError(
            f"{name!r} cannot be the name of a unit or program: give --name, of letters and digits"
        )
    return name


def supervisord(site: Site) -> str:
    """Programs for supervisord: it binds the socket, as descriptor 0 of each interface process."""
    if site.settings.bind.startswith("unix:"):
        socket = f"unix://{_percent(site.settings.bind.removeprefix('unix:'))}"
    else:
        socket = f"tcp://{site.settings.bind}:{site.settings.port}"
    wait = int(site.settings.shutdown_timeout) + 1
    common = [
        f"directory={_percent(site.directory)}",
        f"user={site.user}",
        "environment=" + ",".join(f'{key}="{_percent(value)}"' for key, value in site.environ.items()),
        "autorestart=true",
        "startsecs=2",
        f"stopwaitsecs={wait}",
        "stopasgroup=true",
        "killasgroup=true",
        "redirect_stderr=true",
    ]

    def program(kind: str, role: str, count: int, priority: int, *more: str) -> list[str]:
        command = shlex.join([site.program, role, *(("--fd", "0") if role == "interface" else ()), *site.flags[role]])
        several = ["process_name=%(program_name)s-%(process_num)d", f"numprocs={count}", "numprocs_start=1"]
        return [
            f"[{kind}:{site.name}-{role}]", f"command={_percent(command)}", *(several if count > 1 else []), *more,
            f"priority={priority}", *common, "",
        ]  # fmt: skip

    # A program in fcgi-program must be in no [group:...]: supervisord would start it without its socket.
    lines = [f"; {site.name}: channels-run, one program per role", ""]
    if site.has_hub:
        lines += program("program", "layer", 1, 100)
    lines += program("fcgi-program", "interface", site.settings.interfaces, 200, f"socket={socket}")
    lines += program("program", "worker", site.settings.workers, 300)
    for kind in site.others:
        lines += _other_program(site, kind, wait)
    return "\n".join(lines)


def _other_program(site: Site, kind: ProcessType, wait: int) -> list[str]:
    """A line of a Procfile. Its copies are numbered by their ports, as supervisord can count but not reckon."""
    environ = {**site.environ, **kind.env}
    variables = [f'{key}="{_percent(value)}"' for key, value in environ.items()] + ['PORT="%(process_num)d"']
    once = ["autorestart=false", "startsecs=0", "exitcodes=0"]
    return [
        f"[program:{site.name}-{kind.name}]",
        f"command={_percent(shlex.join(kind.argv))}",
        "process_name=%(program_name)s-%(process_num)d",
        f"numprocs={kind.count}",
        f"numprocs_start={kind.port}",
        "priority=400",
        f"directory={_percent(site.directory)}",
        f"user={site.user}",
        f"environment={','.join(variables)}",
        *(once if kind.runs_once else ["autorestart=true"]),
        f"stopsignal={signal.Signals(kind.stop_signal).name.removeprefix('SIG')}",
        f"stopwaitsecs={wait}",
        "stopasgroup=true",
        "killasgroup=true",
        "redirect_stderr=true",
        "",
    ]


def systemd(site: Site) -> str:
    """A socket unit, which holds the port through restarts, and the service that runs the site."""
    if site.settings.bind.startswith("unix:"):
        listen = [
            f"ListenStream={_percent(site.settings.bind.removeprefix('unix:'))}",
            f"SocketUser={site.user}",
            f"SocketMode=0{site.settings.socket_mode}",
        ]
    else:
        host = f"[{site.settings.bind}]" if ":" in site.settings.bind else site.settings.bind
        listen = [f"ListenStream={host}:{site.settings.port}"]
    command = shlex.join([site.program, "start", *_without_listening(site.flags["start"])])
    environment = [f'Environment="{key}={_percent(value)}"' for key, value in site.environ.items()]
    lines = [
        f"# /etc/systemd/system/{site.name}.socket",
        "[Unit]",
        f"Description={site.name}: the listening socket",
        "",
        "[Socket]",
        *listen,
        "",
        "[Install]",
        "WantedBy=sockets.target",
        "",
        f"# /etc/systemd/system/{site.name}.service",
        "[Unit]",
        f"Description={site.name}",
        f"Requires={site.name}.socket",
        f"After=network.target {site.name}.socket",
        "",
        "[Service]",
        "Type=notify",
        f"User={site.user}",
        f"WorkingDirectory={_percent(site.directory)}",
        *environment,
        f"ExecStart={_percent(command)}",
        "ExecReload=/bin/kill -HUP $MAINPID",
        "KillMode=mixed",
        f"TimeoutStopSec={int(site.settings.shutdown_timeout) + 2}",
        f"TimeoutStartSec={int(site.settings.startup_timeout) + 30}",
        "WatchdogSec=30",
        "Restart=on-failure",
        "",
        "[Install]",
        "WantedBy=multi-user.target",
        "",
    ]
    return "\n".join(lines)


def procfile(site: Site) -> str:
    """One line: the platform's PORT is found in the environment, and everything else runs below it."""
    return f"web: {shlex.join(['channels-run', *_without_listening(site.flags['start'], count=False)])}\n"


def _without_listening(words: Sequence[str], count: bool = True) -> list[str]:
    """*words* without those that say where to listen, which the platform does; and the counts, unless they *count*."""
    names = {"--bind", "--port", "--socket-mode"} | (set() if count else {"--interfaces"})
    return [word for at, word in enumerate(words) if word not in names and (at == 0 or words[at - 1] not in names)]


def _percent(text: str) -> str:
    if any(ord(character) < 32 for character in text):
        raise ConfigurationError(f"{text!r} has a control character: neither systemd nor supervisord can be told of it")
    return text.replace("%", "%%")
