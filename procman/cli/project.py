"""Finds the Django project of this directory, and asks it for what processes without Django must know.

Never imports the project: its settings module is read as text or asked in a process of its own.
"""

from __future__ import annotations

import ast
import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

from procman.cli import environment
from procman.errors import ConfigurationError
from procman.settings import ENV_LAYER, ENV_PROJECT, ProjectConfiguration

_SETTINGS = "DJANGO_SETTINGS_MODULE"
# What stands in settings whose layer is not at the project's own address.
_NAMING = ("address", "procman.layers.redis.RedisChannelLayer")


def find_settings_module(given: str | None, directory: Path, environ: Mapping[str, str]) -> str:
    """The settings module: *given* (a flag), else of the environment, else what ``manage.py`` in *directory* names.

    Raises:
        ConfigurationError: there is none.
    """
    if given:
        return given
    if environ.get(_SETTINGS):
        return environ[_SETTINGS]
    manage = directory / "manage.py"
    if not manage.is_file():
        above = next((parent for parent in directory.parents if (parent / "manage.py").is_file()), None)
        if above is not None:
            raise ConfigurationError(f"no manage.py here, but there is one in {above}: run channels-run there")
        raise ConfigurationError(
            f"no manage.py here and {_SETTINGS} is not set: run channels-run in the directory of a Django project, "
            "or give --settings mysite.settings"
        )
    found = _settings_named_in(manage)
    if found is None:
        raise ConfigurationError(f"{manage} names no {_SETTINGS}: give --settings mysite.settings")
    return found


def _settings_named_in(manage: Path) -> str | None:
    """The value of ``os.environ.setdefault("DJANGO_SETTINGS_MODULE", value)`` or of an assignment to that item."""
    try:
        tree = ast.parse(manage.read_bytes())
    except (SyntaxError, ValueError) as error:
        raise ConfigurationError(f"cannot read {manage}: {error}; give --settings mysite.settings") from None
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and len(node.args) >= 2:
            name, value = node.args[0], node.args[1]
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Subscript):
            name, value = node.targets[0].slice, node.value
        else:
            continue
        if isinstance(name, ast.Constant) and name.value == _SETTINGS and isinstance(value, ast.Constant):
            return str(value.value)
    return None


def settings_file(module: str) -> Path:
    """Where the settings *module* is, without importing it or its packages, which may import Django.

    Raises:
        ConfigurationError: there is no such module.
    """
    locations: Sequence[str] | None = None
    parts = module.split(".")
    for number, _ in enumerate(parts, 1):
        name = ".".join(parts[:number])
        spec = PathFinder.find_spec(name, locations)
        if spec is None:
            break
        if number == len(parts) and spec.origin:
            return Path(spec.origin)
        locations = spec.submodule_search_locations or ()
    raise ConfigurationError(
        f"there is no settings module {module!r} (no {name!r}): run channels-run in the project's directory or correct "
        f"--settings or {_SETTINGS}"
    )


def enter_project(settings: str | None = None) -> str:
    """Make this process one of the project in the working directory; its settings module.

    Reads ``.env``, sets ``DJANGO_SETTINGS_MODULE`` and puts the directory on ``sys.path``, for this process and those
    it starts.
    """
    environment.load_environment()
    directory = Path.cwd()
    module = find_settings_module(settings, directory, os.environ)
    os.environ[_SETTINGS] = module
    if str(directory) not in sys.path:
        sys.path.insert(0, str(directory))
    settings_file(module)
    return module


def describe_project() -> ProjectConfiguration:
    """What a short-lived process with Django says of the project; call ``enter_project`` first.

    Raises:
        ConfigurationError: the project does not start; the text is its reason.
    """
    read, write = os.pipe()
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "procman.channels.describe", str(write)],
            pass_fds=(write,), stdin=subprocess.DEVNULL, stdout=sys.__stderr__,
        )  # fmt: skip
    finally:
        os.close(write)
    with os.fdopen(read, "rb") as answers, process:
        line = answers.readline()
    return parse_description(line, lambda: process.returncode)


def parse_description(line: bytes, exit_status: Callable[[], int]) -> ProjectConfiguration:
    """The project that *line* describes; *exit_status* is that of the process that should have written it.

    Raises:
        ConfigurationError: the project does not start; the text is its reason.
    """
    try:
        answer = json.loads(line)
    except ValueError:
        answer = None
    if not isinstance(answer, dict) or not ("error" in answer or "project" in answer):
        raise ConfigurationError(
            f"the project could not be read: importing it ended with status {exit_status()}; see above"
        )
    if "error" in answer:
        raise ConfigurationError(str(answer["error"]))
    return _configuration(answer["project"])


def _configuration(fields: dict[str, Any]) -> ProjectConfiguration:
    return ProjectConfiguration.from_json(json.dumps(fields))


def project_of_role(settings: str | None = None) -> ProjectConfiguration:
    """The project as the supervisor passed it on, else as the project itself says."""
    text = os.environ.get(ENV_PROJECT)
    if text:
        return ProjectConfiguration.from_json(text)
    enter_project(settings)
    return describe_project()


def choose_layer(given: str | None, default: str) -> str:
    """The layer's address: *given* by flag or ``PROCMAN_LAYER``, else *default*.

    Raises:
        ConfigurationError: an address that is not understood, or a layer that several processes cannot share.
    """
    from procman.layers.ipc.address import parse
    from procman.layers.redis.hosts import choose_hosts, is_redis

    chosen = given or os.environ.get(ENV_LAYER) or default
    if chosen == "memory":
        chosen += "://"
    try:
        if is_redis(chosen):
            choose_hosts(None, None, None, {**os.environ, ENV_LAYER: chosen})
            return chosen
        address = parse(chosen)
    except ConfigurationError as error:
        if given or not os.environ.get(ENV_LAYER):
            raise
        raise ConfigurationError(f"environment variable {ENV_LAYER}: {error}") from None
    if address.scheme == "memory":
        raise ConfigurationError(
            "a memory:// layer lives within one process, and the interface and the workers are several: "
            "use the IPC layer (leave --layer out)"
        )
    return f"ipc://{address.path}"


def control_of(address: str) -> str:
    """The address by which the processes of this project find their supervisor; call ``enter_project`` first.

    With an IPC layer that is the layer's own; projects that share a Redis have supervisors of their own.
    """
    from procman.layers.ipc.address import project_address
    from procman.layers.redis.hosts import is_redis

    return project_address(settings_file(os.environ[_SETTINGS])) if is_redis(address) else address


def with_layer(project: ProjectConfiguration, layer: str) -> ProjectConfiguration:
    """*project* with another layer address."""
    return dataclasses.replace(project, layer=layer)


def guess_layer(settings: str | None, given: str | None) -> str:
    """The layer's address without importing the project, where its settings leave that open.

    Only settings that seem to name an address (or that are made of other modules) are asked.
    """
    from procman.layers.ipc.address import project_address

    if given or os.environ.get(ENV_LAYER):
        return choose_layer(given, "")
    path = settings_file(enter_project(settings))
    if _may_name_address(path):
        return choose_layer(None, describe_project().layer)
    return project_address(path)


def _may_name_address(path: Path) -> bool:
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return False
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and node.value in _NAMING:
            return True
        if isinstance(node, ast.keyword) and node.arg == "address":
            return True
        if isinstance(node, ast.ImportFrom) and any(alias.name == "*" for alias in node.names):
            return True
    return False
