"""Django system checks: would a worker of this project start, and is ``manage.py runserver`` the one of this app?"""

from __future__ import annotations

from typing import Any

from django.core import checks
from django.core.exceptions import ImproperlyConfigured
from django.core.management import get_commands

from procman.channels.asgi import MEMORY_MODULE, ChannelLayerManager, InvalidChannelLayerError, channel_layers
from procman.channels.routing import Router

_is_one_process = False
# Apps whose own runserver knows nothing of workers.
_RIVALS = ("django.contrib.staticfiles", "daphne", "channels")


def register() -> None:
    """Add the checks to Django's; runs when the app is ready."""
    checks.register(check_layers, "procman_channels")
    checks.register(check_runserver, "procman_channels")


def expect_one_process() -> None:
    """The whole site is served by this process or its parent: a layer in memory is no mistake here."""
    global _is_one_process
    _is_one_process = True


def check_layers(app_configs: Any = None, manager: ChannelLayerManager | None = None, **kwargs: Any) -> list[Any]:
    """What is wrong with ``CHANNEL_LAYERS``; makes no layer and no connection."""
    manager = channel_layers if manager is None else manager
    configs = manager.configs
    if not isinstance(configs, dict):
        return [checks.Error("CHANNEL_LAYERS is not a dict of aliases to layers.", id="procman_channels.E001")]
    found: list[Any] = []
    for alias, config in configs.items():
        place = f"CHANNEL_LAYERS[{alias!r}]"
        try:
            backend = manager.backend_class(alias)
        except InvalidChannelLayerError as error:
            found.append(checks.Error(str(error), id="procman_channels.E002"))
        else:
            if backend.__module__ == MEMORY_MODULE and not _is_one_process:
                found.append(
                    checks.Warning(
                        f"{place} lives in the memory of one process: interface and workers do not meet in it.",
                        hint="Use procman.layers.ipc.IPCChannelLayer; the in-memory layer is for tests and runserver.",
                        id="procman_channels.W001",
                    )
                )
        if not isinstance(config, dict):
            continue
        if "ROUTING" not in config:
            found.append(checks.Error(f"{place} has no ROUTING.", id="procman_channels.E003"))
            continue
        try:
            Router(config["ROUTING"])
        except (ImproperlyConfigured, ValueError) as error:
            found.append(checks.Error(f"ROUTING of {place}: {error}", id="procman_channels.E004"))
    return found


def check_runserver(app_configs: Any = None, **kwargs: Any) -> list[Any]:
    """Whether another app's ``runserver`` hides the one of this app: whose it is depends on the order of apps."""
    app = get_commands().get("runserver")
    if app not in _RIVALS:
        return []
    return [
        checks.Warning(
            f"manage.py runserver is the one of {app}: it serves no WebSockets of yours.",
            hint=f"List 'procman.channels' before {app!r} in INSTALLED_APPS.",
            id="procman_channels.W002",
        )
    ]
