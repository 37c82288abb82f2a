"""The channel layers of a project, by alias, from the setting ``CHANNEL_LAYERS``.

Settings are read with the first use, never at import. A project without the setting gets the IPC layer and no
routing, so that its views are served.
"""

from __future__ import annotations

import inspect
import os
import threading
from typing import Any

from procman.channels import DEFAULT_CHANNEL_LAYER
from procman.channels.routing import Router
from procman.channels.utils import name_that_thing
from procman.errors import ConfigurationError
from procman.importing import import_object
from procman.layers.redis.hosts import is_redis
from procman.settings import ENV_LAYER

DEFAULT_BACKEND = "procman.layers.ipc.IPCChannelLayer"
MEMORY_MODULE = "procman.layers.memory"
# What 1.x projects name, and what to write instead.
_REPLACEMENTS = {
    "asgi_ipc": DEFAULT_BACKEND,
    "asgi_redis": "procman.layers.redis.RedisChannelLayer",
    "asgiref": "procman.layers.memory.InMemoryChannelLayer",
    "channels_redis": "procman.layers.redis.RedisChannelLayer",
    "channels": "procman.layers.memory.InMemoryChannelLayer",
}


_BACKENDS = {"ipc": DEFAULT_BACKEND, "redis": "procman.layers.redis.RedisChannelLayer"}
_KEYS = ("BACKEND", "ROUTING", "CONFIG", "TEST_CONFIG")
# Options that every layer has: kept where ``PROCMAN_LAYER`` puts another layer in the place of the one in the settings.
COMMON_OPTIONS = frozenset(
    {"expiry", "group_expiry", "capacity", "channel_capacity", "max_message_size", "prefix"}
)  # fmt: skip


def _other_backend(name: str, backend: str) -> str | None:
    """The backend that ``PROCMAN_LAYER`` asks for where the settings of the default layer name another kind of ours."""
    address = os.environ.get(ENV_LAYER)
    if not address or name != DEFAULT_CHANNEL_LAYER:
        return None
    asked = _BACKENDS["redis" if is_redis(address) else "ipc"]
    return asked if backend in _BACKENDS.values() and backend != asked else None


class InvalidChannelLayerError(ValueError):
    """``CHANNEL_LAYERS`` names no usable layer: the text says which alias and key to change."""


def _check_keys(name: str, described: dict[str, Any], config: Any) -> None:
    """Refuse a key beside ``CONFIG``, which would be ignored."""
    for key in described:
        if key not in _KEYS:
            raise InvalidChannelLayerError(
                f"CHANNEL_LAYERS[{name!r}] has {key!r}, which means nothing: it may have {', '.join(_KEYS)}"
            )
    if not isinstance(config, dict):
        raise InvalidChannelLayerError(f"CONFIG of CHANNEL_LAYERS[{name!r}] is {config!r}; write a dict of options")


def _check_options(name: str, config: dict[str, Any], backend_class: Any) -> None:
    """Refuse an option that the layer does not have."""
    try:
        known = inspect.signature(backend_class).parameters
    except ValueError:  # a class written in C, which is no layer of ours
        return
    unknown = [option for option in config if option not in known]
    if unknown and not any(each.kind is each.VAR_KEYWORD for each in known.values()):
        raise InvalidChannelLayerError(
            f"CONFIG of CHANNEL_LAYERS[{name!r}] has no option {unknown[0]!r}; the layer takes {', '.join(known)}"
        )


class ChannelLayerManager:
    """Channel layers by alias, each made once."""

    def __init__(self) -> None:
        self.backends: dict[str, ChannelLayerWrapper] = {}
        self._lock = threading.RLock()

    @property
    def configs(self) -> dict[str, Any]:
        """``CHANNEL_LAYERS``, or what stands for it in a project without."""
        from django.conf import settings

        configs: dict[str, Any] | None = getattr(settings, "CHANNEL_LAYERS", None)
        if configs is None:
            return {DEFAULT_CHANNEL_LAYER: {"BACKEND": DEFAULT_BACKEND, "ROUTING": []}}
        return configs

    def make_backend(self, name: str) -> ChannelLayerWrapper:
        """A layer as ``CONFIG`` describes it. Raises InvalidChannelLayerError."""
        return self._make(name, self._config(name).get("CONFIG") or {})

    def make_test_backend(self, name: str) -> ChannelLayerWrapper:
        """A layer as ``TEST_CONFIG`` describes it. Raises InvalidChannelLayerError, also if there is none."""
        config = self._config(name)
        if "TEST_CONFIG" not in config:
            raise InvalidChannelLayerError(f"CHANNEL_LAYERS[{name!r}] has no TEST_CONFIG")
        return self._make(name, config["TEST_CONFIG"])

    def _config(self, name: str) -> dict[str, Any]:
        config = self.configs.get(name)
        if config is None:
            there = ", ".join(map(repr, self.configs)) or "none"
            raise InvalidChannelLayerError(f"CHANNEL_LAYERS has no layer {name!r}; there is {there}")
        if not isinstance(config, dict):
            raise InvalidChannelLayerError(
                f"CHANNEL_LAYERS[{name!r}] is {config!r}; write a dict with BACKEND, ROUTING"
            )
        return dict(config)

    def backend_class(self, name: str) -> Any:
        """The class that ``BACKEND`` names. Raises InvalidChannelLayerError."""
        backend = self._config(name).get("BACKEND")
        other = _other_backend(name, str(backend))
        if other:
            return import_object(other)
        if not backend:
            raise InvalidChannelLayerError(
                f"no BACKEND specified for CHANNEL_LAYERS[{name!r}]: use {DEFAULT_BACKEND!r}"
            )
        if not isinstance(backend, str):
            raise InvalidChannelLayerError(f"BACKEND of CHANNEL_LAYERS[{name!r}] is {backend!r}; write a dotted name")
        try:
            return import_object(backend)
        except ConfigurationError as error:
            instead = _REPLACEMENTS.get(str(backend).split(".")[0])
            hint = f"; write {instead!r}" if instead else ""
            raise InvalidChannelLayerError(
                f"BACKEND {backend!r} of CHANNEL_LAYERS[{name!r}] cannot be imported: {error}{hint}"
            ) from error

    def options(self, name: str, config: dict[str, Any]) -> dict[str, Any]:
        """What of *config* concerns the layer that is used. Raises InvalidChannelLayerError for what it cannot mean."""
        described = self._config(name)
        _check_keys(name, described, config)
        if _other_backend(name, str(described.get("BACKEND"))):
            return {option: value for option, value in config.items() if option in COMMON_OPTIONS}
        _check_options(name, config, self.backend_class(name))
        return config

    def _make(self, name: str, config: dict[str, Any]) -> ChannelLayerWrapper:
        backend_class = self.backend_class(name)
        if "ROUTING" not in self._config(name):
            raise InvalidChannelLayerError(f"no ROUTING specified for CHANNEL_LAYERS[{name!r}]")
        options = self.options(name, config)
        try:
            layer = backend_class(**options)
        except (TypeError, ValueError) as error:
            raise InvalidChannelLayerError(f"CONFIG of CHANNEL_LAYERS[{name!r}] is refused: {error}") from error
        return ChannelLayerWrapper(layer, name, self._config(name)["ROUTING"])

    def __getitem__(self, key: str) -> ChannelLayerWrapper:
        found = self.backends.get(key)
        if found is None:
            with self._lock:
                found = self.backends.get(key)
                if found is None:
                    found = self.backends[key] = self.make_backend(key)
        return found

    def __contains__(self, key: object) -> bool:
        return key in self.configs

    def set(self, key: str, layer: ChannelLayerWrapper | None) -> ChannelLayerWrapper | None:
        """Put *layer* (None: make a fresh one on next use) in place of *key*'s; returns the one before, if any."""
        with self._lock:
            before = self.backends.pop(key, None)
            if layer is not None:
                self.backends[key] = layer
        return before


class ChannelLayerWrapper:
    """A layer with its alias and routing; everything else is the layer's own."""

    def __init__(self, channel_layer: Any, alias: str, routing: Any) -> None:
        self.channel_layer = channel_layer
        self.alias = alias
        self.routing = routing
        self.router = Router(routing)

    def __getattr__(self, name: str) -> Any:
        if name == "channel_layer":  # not there yet: a copy or an unpickled wrapper is asked for its attributes
            raise AttributeError(name)
        return getattr(self.channel_layer, name)

    def __str__(self) -> str:
        return f"{self.alias} ({name_that_thing(self.channel_layer)})"

    def local_only(self) -> bool:
        """Whether the layer reaches this process only."""
        module = type(self.channel_layer).__module__
        return module == MEMORY_MODULE or "inmemory" in module


def get_channel_layer(alias: str = DEFAULT_CHANNEL_LAYER) -> Any:
    """The layer itself, without its wrapper; sets Django up. Servers take it as ``project.asgi:channel_layer``."""
    import django

    django.setup(set_prefix=False)
    return channel_layers[alias].channel_layer


channel_layers = ChannelLayerManager()
