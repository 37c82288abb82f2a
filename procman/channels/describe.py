"""``python -m procman.channels.describe FD``: tells processes without Django what they must know of a project.

Runs in the project's directory with ``DJANGO_SETTINGS_MODULE`` set, imports what a worker would import, and writes
one JSON line to descriptor FD (stdout belongs to the project's own prints): ``{"project": {...}}``, the fields of
``procman.settings.ProjectConfiguration``, or ``{"error": "what is wrong and what to do"}``. Exit status 0 or 2.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import re
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from procman.errors import ConfigurationError
from procman.layers.ipc import address
from procman.layers.redis.hosts import choose_hosts, hidden
from procman.settings import ENV_LAYER, ProjectConfiguration

# RFC 6455: a sub-protocol's name is a token of HTTP.
_TOKEN = re.compile(r"[-!#$%&'*+.^_`|~0-9A-Za-z]+")
# What the interface can do with messages for a client that reads slowly.
_POLICIES = ("disconnect", "drop-oldest", "latest-only")
_IPC, _MEMORY, _REDIS = "procman.layers.ipc", "procman.layers.memory", "procman.layers.redis"


def describe(load: bool = True) -> ProjectConfiguration:
    """What other processes must know of the project that ``DJANGO_SETTINGS_MODULE`` names.

    Without *load* the project's routing, URLs and middleware are not imported, so that nothing is said of them.

    Raises:
        ConfigurationError: the project cannot be served as it is; the text is one line.
    """
    module = os.environ.get("DJANGO_SETTINGS_MODULE")
    if not module:
        raise ConfigurationError("DJANGO_SETTINGS_MODULE is not set: name the settings module, such as mysite.settings")
    with _blaming(f"settings module {module!r}"):
        loaded = importlib.import_module(module)
    import django
    from django.conf import settings

    with _blaming("the settings"):
        _ = settings.INSTALLED_APPS, settings.SECRET_KEY
    with _blaming("the apps in INSTALLED_APPS"):
        django.setup(set_prefix=False)
    layer, config = _describe_layer(loaded, load)
    if load and getattr(settings, "ROOT_URLCONF", None):
        from django.urls import get_resolver

        with _blaming(f"ROOT_URLCONF {settings.ROOT_URLCONF!r}"):
            _ = get_resolver().url_patterns
        from procman.channels.handler import ViewConsumer

        with _blaming("MIDDLEWARE"):
            ViewConsumer()
    return build_configuration(module, layer, config)


def build_configuration(
    settings_module: str, layer: str, layer_config: dict[str, Any] | None = None
) -> ProjectConfiguration:
    """What the settings say as they are now, for a project that meets at *layer*.

    Raises:
        ConfigurationError: a setting cannot be used.
    """
    from django.conf import settings

    return ProjectConfiguration(
        settings_module=settings_module,
        layer=layer,
        layer_config=layer_config or {},
        allowed_hosts=[str(host) for host in settings.ALLOWED_HOSTS],
        debug=bool(settings.DEBUG),
        ws_protocols=_ws_protocols(settings),
        slow_readers=_slow_readers(settings),
        **_static_files(settings),
    )


def _ws_protocols(settings: Any) -> list[str]:
    chosen = getattr(settings, "CHANNELS_WS_PROTOCOLS", None) or ()
    if isinstance(chosen, str) or not all(isinstance(each, str) and _TOKEN.fullmatch(each) for each in chosen):
        raise ConfigurationError(f"CHANNELS_WS_PROTOCOLS is {chosen!r}: write a list of names, such as ['graphql-ws']")
    return list(chosen)


def _static_files(settings: Any) -> dict[str, Any]:
    """``static_url`` and ``static_roots``; none where files are elsewhere, or found in a way that only Django knows."""
    from django.apps import apps

    url = str(settings.STATIC_URL or "")
    if not url.startswith("/") or url.startswith("//"):
        return {}
    if not settings.DEBUG:
        return {"static_url": url, "static_roots": [["", str(settings.STATIC_ROOT)]] if settings.STATIC_ROOT else []}
    if not apps.ready or not apps.is_installed("django.contrib.staticfiles"):
        return {}
    from django.contrib.staticfiles.finders import AppDirectoriesFinder, FileSystemFinder, get_finders

    roots: list[list[str]] = []
    for finder in get_finders():
        if type(finder) is FileSystemFinder:
            roots += [[prefix or "", str(directory)] for prefix, directory in finder.locations]
        elif type(finder) is AppDirectoriesFinder:
            roots += [["", str(storage.location)] for storage in finder.storages.values()]
        else:
            return {}
    return {"static_url": url, "static_roots": roots}


def _slow_readers(settings: Any) -> dict[str, str]:
    chosen = getattr(settings, "CHANNELS_SLOW_READERS", None) or {}
    if isinstance(chosen, dict) and all(isinstance(k, str) and v in _POLICIES for k, v in chosen.items()):
        return dict(chosen)
    raise ConfigurationError(
        f"CHANNELS_SLOW_READERS is {chosen!r}: write a dict of group names or globs, each with one of "
        f"{', '.join(_POLICIES)}, such as {{'ticker.*': 'latest-only'}}"
    )


def _describe_layer(settings_module: Any, load: bool) -> tuple[str, dict[str, Any]]:
    """Address URL and configuration of the default layer; with *load* its routing is imported on the way."""
    from procman.channels import DEFAULT_CHANNEL_LAYER
    from procman.channels.asgi import InvalidChannelLayerError, channel_layers
    from procman.channels.routing import Router

    if DEFAULT_CHANNEL_LAYER not in channel_layers:
        raise ConfigurationError("CHANNEL_LAYERS has no layer 'default': add one, or remove the setting")
    with _blaming("CHANNEL_LAYERS"):
        settings = channel_layers.configs[DEFAULT_CHANNEL_LAYER]
        try:
            backend = channel_layers.backend_class(DEFAULT_CHANNEL_LAYER)
            config = channel_layers.options(DEFAULT_CHANNEL_LAYER, settings.get("CONFIG") or {})
        except InvalidChannelLayerError as error:
            raise ConfigurationError(str(error)) from error
        if "ROUTING" not in settings:
            raise ConfigurationError("CHANNEL_LAYERS['default'] has no ROUTING: name your list of routes, or give []")
    with _blaming("CONFIG of CHANNEL_LAYERS['default']"):
        backend(**config)
    if load:
        with _blaming("ROUTING of CHANNEL_LAYERS['default']"):
            Router(settings["ROUTING"])
    return _layer_url(backend, config, settings_module), _plain(config)


def _layer_url(backend: Any, config: dict[str, Any], settings_module: Any) -> str:
    modules = {kind.__module__ for kind in getattr(backend, "__mro__", (backend,))}
    chosen = config.get("address") or os.environ.get(ENV_LAYER)
    if any(name == _IPC or name.startswith(_IPC + ".") for name in modules):
        return chosen or address.project_address(settings_module.__file__)
    if _MEMORY in modules:
        return "memory://"
    if any(name == _REDIS or name.startswith(_REDIS + ".") for name in modules):
        hosts = choose_hosts(config.get("address"), config.get("hosts"), config.get("connection_kwargs"), os.environ)
        return hidden(hosts)
    raise ConfigurationError(
        f"BACKEND {backend.__module__}.{backend.__qualname__} is no layer that the interface server can use: "
        f"use {_IPC}.IPCChannelLayer"
    )


def _plain(config: dict[str, Any]) -> dict[str, Any]:
    """*config* as JSON can carry it. Raises ConfigurationError for a value that it cannot."""
    try:
        text = json.dumps(config)
    except TypeError:
        patterns = config.get("channel_capacity")
        if isinstance(patterns, dict) and any(isinstance(key, re.Pattern) for key in patterns):
            raise ConfigurationError(
                "CONFIG of CHANNEL_LAYERS['default'] has compiled patterns in channel_capacity: "
                "write globs such as 'http.request*'"
            ) from None
        raise ConfigurationError(
            "CONFIG of CHANNEL_LAYERS['default'] may hold numbers, strings, lists and dicts only"
        ) from None
    plain: dict[str, Any] = json.loads(text)
    return plain


@contextmanager
def _blaming(what: str) -> Iterator[None]:
    """Turn whatever the project raises into a ConfigurationError of one line that says where to look."""
    try:
        yield
    except ConfigurationError:
        raise
    except SyntaxError as error:
        raise ConfigurationError(
            f"{what} cannot be loaded: {error.filename}:{error.lineno}: {type(error).__name__}: {error.msg}"
        ) from error
    except (Exception, SystemExit) as error:
        text = " ".join(str(error).split())
        place = _place(error)
        kind = type(error).__name__
        raise ConfigurationError(f"{what} cannot be loaded: {kind}: {text}{f' ({place})' if place else ''}") from error


def _place(error: BaseException) -> str:
    """File and line of the project's code where *error* was raised, or the import that failed is written."""
    # The first cause knows best: a routing that does not import is wrapped twice on its way here.
    while error.__cause__ is not None:
        error = error.__cause__
    root = os.path.realpath(os.curdir) + os.sep
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = os.path.realpath(frame.filename)
        if frame.filename.startswith("<"):  # the import system's own frames have no file
            continue
        if path.startswith(root) and "site-packages" not in path:
            return f"{os.path.relpath(path)}:{frame.lineno}"
    return ""


def write_description(fd: int) -> ProjectConfiguration | None:
    """Write the line to *fd*, which is closed; the project, or None if it cannot be served."""
    answer: dict[str, Any]
    project = None
    try:
        project = describe()
        answer = {"project": dataclasses.asdict(project)}
    except ConfigurationError as error:
        answer = {"error": str(error)}
    with os.fdopen(fd, "w", encoding="utf-8") as pipe:
        pipe.write(json.dumps(answer) + "\n")
    return project


if __name__ == "__main__":
    sys.exit(0 if write_description(int(sys.argv[1])) else 2)
