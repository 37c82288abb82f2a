"""``channels-run check``: what would go wrong with this project, before it does."""

from __future__ import annotations

import json
import os
import stat
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import click

from procman.cli import exits
from procman.cli.options import layer_option, settings_option
from procman.settings import ProjectConfiguration

# Below these a busy moment, not a fault, answers clients with 503.
_FEW_MESSAGES = 10
_SHORT_EXPIRY = 5.0  # seconds


class Finding(NamedTuple):
    """One thing to change. *level* is ``error`` (it will not work) or ``warning`` (it will hurt)."""

    level: str
    text: str


@click.command("check")
@click.option("--json", "as_json", is_flag=True, help="One JSON object, for programs.")
@layer_option
@settings_option
def command(as_json: bool, layer: str | None, settings: str | None) -> None:
    """Report what would go wrong: settings, routing, layer, limits. Starts nothing. Exit status 2 with an error."""
    from procman.cli.project import choose_layer, describe_project, enter_project
    from procman.errors import ConfigurationError
    from procman.layers.redis.hosts import is_redis

    enter_project(settings)
    project = describe_project()
    found = [*project_findings(project, os.environ)]
    try:
        address = choose_layer(layer, project.layer)
    except ConfigurationError as error:
        found.append(Finding("error", str(error)))
        address = layer or project.layer
    else:
        # A Redis address of the project is fit to be shown, without passwords: the servers are chosen once more.
        found += layer_findings("redis" if is_redis(address) else address, project.layer_config, layer)
    address = _hide(address)
    if as_json:
        click.echo(
            json.dumps(
                {
                    "settings": project.settings_module,
                    "layer": address,
                    "findings": [finding._asdict() for finding in found],
                }
            )
        )
    else:
        click.echo(f"settings  {project.settings_module}\nlayer     {address}")
        for level, text in found:
            click.echo(f"{level:<9} {text}")
        if not found:
            click.echo("nothing to change")
    if any(finding.level == "error" for finding in found):
        sys.exit(exits.USAGE)


def project_findings(project: ProjectConfiguration, environ: Mapping[str, str]) -> Iterator[Finding]:
    """What the project's settings will lead to."""
    config = project.layer_config
    if not project.allowed_hosts and not project.debug:
        yield Finding(
            "error",
            "ALLOWED_HOSTS is empty and DEBUG is off: every request is answered 400 and every browser's WebSocket 403; "
            "name your hosts",
        )
    if project.debug and environ.get("PORT"):
        yield Finding(
            "warning",
            "DEBUG is on and PORT is set, so it listens on all addresses and shows tracebacks to everybody: "
            "switch DEBUG off",
        )
    capacity = config.get("capacity")
    if capacity is not None and capacity < _FEW_MESSAGES:
        yield Finding(
            "warning",
            f"capacity is {capacity}: when more requests than that wait for a worker, the others are answered 503; "
            "the default is 100",
        )
    for pattern, count in (config.get("channel_capacity") or {}).items():
        if count < _FEW_MESSAGES:
            yield Finding(
                "warning",
                f"channel_capacity of {pattern!r} is {count}: a group send or a burst of more is dropped there; "
                "the default is 100",
            )
    expiry = config.get("expiry")
    if expiry is not None and expiry < _SHORT_EXPIRY:
        yield Finding(
            "warning",
            f"expiry is {expiry:g} s: a request that waits longer for a worker is answered 503; the default is 60",
        )


def _hide(address: str) -> str:
    from procman.layers.redis.address import hide

    return hide(address)


def layer_findings(address: str, config: Mapping[str, Any], layer: str | None = None) -> Iterator[Finding]:
    """Whether the layer at *address* can work: the directory of its socket, or its Redis servers, which are asked.

    *layer* is what ``--layer`` said.
    """
    from procman.errors import ConfigurationError

    if address.startswith("ipc://"):
        path = Path(address.removeprefix("ipc://"))
        yield from directory_findings(path.parent)
        yield from socket_findings(path)
        return
    from procman.layers.redis.health import examine
    from procman.layers.redis.hosts import choose_hosts
    from procman.settings import ENV_LAYER

    environ = dict(os.environ) | ({ENV_LAYER: layer} if layer else {})
    given = config.get("address") or (None if config.get("hosts") else address)
    try:
        hosts = choose_hosts(given, config.get("hosts"), config.get("connection_kwargs"), environ)
    except ConfigurationError as error:
        yield Finding("error", str(error))
        return
    for host in hosts:
        yield from (Finding(level, text) for level, text in examine(host))


def socket_findings(path: Path) -> Iterator[Finding]:
    """Whether what stands at the place of the layer's socket is a socket of this user's."""
    try:
        found = path.lstat()
    except OSError:
        return  # nothing yet, or a directory about which directory_findings speaks
    if not stat.S_ISSOCK(found.st_mode):
        yield Finding("error", f"{path} stands where the layer's socket belongs, and is none: remove it")
    elif found.st_uid != os.getuid():
        yield Finding("error", f"the layer's socket {path} belongs to another user: run channels-run as that user")
    elif stat.S_IMODE(found.st_mode) & 0o066:
        yield Finding("warning", f"others may connect to the layer's socket {path}, and are refused: chmod 600 {path}")


def directory_findings(directory: Path) -> Iterator[Finding]:
    """Whether the layer's socket can live in *directory*, and only its owner can reach it."""
    try:
        found = directory.stat()
    except OSError as error:
        yield Finding("error", f"the directory of the layer's socket, {directory}, cannot be used: {error.strerror}")
        return
    if found.st_uid not in (0, os.getuid()):
        yield Finding("error", f"{directory} belongs to another user, who could put a socket of theirs in its place")
    elif stat.S_IMODE(found.st_mode) & 0o022 and not found.st_mode & stat.S_ISVTX:
        yield Finding(
            "error", f"others may write to {directory} and replace the layer's socket: chmod go-w, or choose another"
        )
    elif stat.S_IMODE(found.st_mode) & 0o077:
        yield Finding(
            "warning",
            f"others may look into {directory}; the socket itself is private, a directory of mode 0700 is safer",
        )
