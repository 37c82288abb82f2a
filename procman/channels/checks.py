"""Django system checks: would a worker of this project start?"""

from __future__ import annotations

from typing import Any

from django.core import checks
from django.core.exceptions import ImproperlyConfigured

from procman.channels.asgi import MEMORY_MODULE, ChannelLayerManager, InvalidChannelLayerError, channel_layers
from procman.channels.routing import Router


def register() -> None:
    """Add the checks to Django's; runs when the app is ready."""
    checks.register(check_layers, "procman_channels")


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
            if backend.__module__ == MEMORY_MODULE:
                found.append(
                    checks.Warning(
                        f"{place} lives in the memory of one process: interface and workers do not meet in it.",
                        hint="Use procman.layers.ipc.IPCChannelLayer; the in-memory layer is for tests and runserver.",
                        id="procman_channels.W001",
                    )
                )
        if "ROUTING" not in config:
            found.append(checks.Error(f"{place} has no ROUTING.", id="procman_channels.E003"))
            continue
        try:
            Router(config["ROUTING"])
        except (ImproperlyConfigured, ValueError) as error:
            found.append(checks.Error(f"ROUTING of {place}: {error}", id="procman_channels.E004"))
    return found
