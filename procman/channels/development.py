"""The parts of ``manage.py runserver``: which layer it uses, its log lines, its worker threads. All in one process.

Messages stay in the process unless a layer answers that others can reach: a project that names the IPC layer is served
while no layer process runs, and one that names Redis needs its Redis. ``management/commands/runserver.py`` puts these
parts and the interface together.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

from procman.channels import DEFAULT_CHANNEL_LAYER
from procman.channels.asgi import (
    COMMON_OPTIONS,
    DEFAULT_BACKEND,
    ChannelLayerManager,
    ChannelLayerWrapper,
    InvalidChannelLayerError,
)
from procman.channels.timeouts import watchdog
from procman.channels.worker import Worker, WorkerGroup
from procman.importing import import_object
from procman.layers.errors import LayerUnavailable
from procman.layers.memory import InMemoryChannelLayer
from procman.log import escape
from procman.settings import WorkerSettings

ActionLogger = Callable[[str, str, dict[str, Any]], None]
# What an access record's action is called in 1.x.
_ACTIONS = {
    "REQUEST": ("http", "complete"),
    "CONNECT": ("websocket", "connecting"),
    "ACCEPT": ("websocket", "connected"),
    "REJECT": ("websocket", "rejected"),
    "DISCONNECT": ("websocket", "disconnected"),
}
_SOCKET_WORDS = {
    "connecting": "HANDSHAKING",
    "connected": "CONNECT",
    "rejected": "REJECT",
    "disconnected": "DISCONNECT",
}


def choose_layer(manager: ChannelLayerManager) -> tuple[ChannelLayerWrapper, str]:
    """The default layer to serve with, in its place in *manager*, and a note for the user ("" if there is none).

    Raises:
        InvalidChannelLayerError, ConfigurationError: the setting is wrong. LayerUnavailable: no Redis answers.
    """
    wrapper = manager[DEFAULT_CHANNEL_LAYER]
    if isinstance(wrapper.channel_layer, InMemoryChannelLayer):
        return wrapper, ""
    try:
        wrapper.channel_layer.statistics()
    except LayerUnavailable:
        if not isinstance(wrapper.channel_layer, import_object(DEFAULT_BACKEND)):
            raise
    else:
        return wrapper, ""
    local = ChannelLayerWrapper(InMemoryChannelLayer(**_limits(manager)), DEFAULT_CHANNEL_LAYER, wrapper.routing)
    manager.set(DEFAULT_CHANNEL_LAYER, local)
    return local, (
        f"no layer process answers at {wrapper.channel_layer.address}: messages stay in this process, other processes "
        "(shell, cron) do not reach them; run `channels-run layer` beside for that"
    )


def use_address(manager: ChannelLayerManager, address: str) -> ChannelLayerWrapper:
    """The default layer; one in memory is replaced in *manager* by that of the hub at *address*, limits kept.

    Raises:
        InvalidChannelLayerError: the setting is wrong.
    """
    wrapper = manager[DEFAULT_CHANNEL_LAYER]
    if not isinstance(wrapper.channel_layer, InMemoryChannelLayer):
        return wrapper
    backend = import_object(DEFAULT_BACKEND)
    shared = ChannelLayerWrapper(backend(address, **_limits(manager)), DEFAULT_CHANNEL_LAYER, wrapper.routing)
    manager.set(DEFAULT_CHANNEL_LAYER, shared)
    return shared


def layer_without_routing(manager: ChannelLayerManager) -> ChannelLayerWrapper:
    """The default layer by itself, for a process that runs no consumers; a Redis has answered.

    Raises:
        InvalidChannelLayerError, ConfigurationError: the setting is wrong. LayerUnavailable: no Redis answers.
    """
    backend = manager.backend_class(DEFAULT_CHANNEL_LAYER)
    config = manager.configs[DEFAULT_CHANNEL_LAYER].get("CONFIG") or {}
    try:
        layer = backend(**manager.options(DEFAULT_CHANNEL_LAYER, config))
    except TypeError as error:
        raise InvalidChannelLayerError(f"CONFIG of CHANNEL_LAYERS['default'] is refused: {error}") from error
    if not isinstance(layer, InMemoryChannelLayer | import_object(DEFAULT_BACKEND)):
        layer.statistics()
    return ChannelLayerWrapper(layer, DEFAULT_CHANNEL_LAYER, [])


def can_be_kept(manager: ChannelLayerManager) -> bool:
    """Whether the default layer is one that an interface outside of this process can use."""
    if DEFAULT_CHANNEL_LAYER not in manager:
        return False
    try:
        return str(manager.backend_class(DEFAULT_CHANNEL_LAYER).__module__).startswith("procman.layers.")
    except InvalidChannelLayerError:
        return False


def _limits(manager: ChannelLayerManager) -> dict[str, Any]:
    config = manager.configs[DEFAULT_CHANNEL_LAYER].get("CONFIG") or {}
    return {name: config[name] for name in COMMON_OPTIONS if name in config}


def action_line(protocol: str, action: str, details: dict[str, Any]) -> str:
    """What 1.x logs of *action*; "" for one that it does not know. What a client chose is escaped."""
    facts = {name: escape(value) if isinstance(value, str) else value for name, value in details.items()}
    if protocol == "http" and action == "complete":
        return (
            f"HTTP {facts['method']} {facts['path']} {facts['status']} [{facts['time_taken']:.2f}, {facts['client']}]"
        )
    if protocol == "websocket" and action in _SOCKET_WORDS:
        return f"WebSocket {_SOCKET_WORDS[action]} {facts['path']} [{facts['client']}]"
    return ""


class ActionHandler(logging.Handler):
    """Passes records of the interface's access log on, as an *action_logger* of 1.x expects them."""

    def __init__(self, action_logger: ActionLogger) -> None:
        super().__init__()
        self._action_logger = action_logger

    def emit(self, record: logging.LogRecord) -> None:
        """Call the logger."""
        known = _ACTIONS.get(getattr(record, "action", ""))
        if known is not None:
            self._action_logger(*known, record.__dict__["details"])


class WorkerThreads:
    """*count* worker threads of this process, until ``stop``."""

    def __init__(self, channel_layer: ChannelLayerWrapper, count: int) -> None:
        self._worker: Worker
        if count > 1:
            self._worker = WorkerGroup(channel_layer, n_threads=count, signal_handlers=False)
        else:
            self._worker = Worker(channel_layer, signal_handlers=False)
        # The interface goes first; disconnects of its sockets are still to be run.
        self._worker.lingers = True
        self._thread = threading.Thread(target=self._worker.run, name="worker-1", daemon=True)

    def start(self) -> None:
        """Begin to take messages."""
        # A consumer that takes too long loses its client; a thread cannot be ended.
        watchdog.default = WorkerSettings.load().consumer_timeout or None
        self._worker.ready()
        self._thread.start()

    def stop(self, timeout: float, lingers: bool = True) -> None:
        """Let consumers end, and those of messages that are still coming if it *lingers*; at most *timeout* seconds."""
        if lingers:
            self._worker.sigterm_handler(0, None)
        else:
            self._worker.stop()
        self._thread.join(timeout)
