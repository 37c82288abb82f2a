"""Who may open a WebSocket: decorators of ``websocket.connect`` consumers that look at the ``Origin`` header.

The interface checks the Origin of every handshake against ``ALLOWED_HOSTS`` already, and lets those without one pass,
as no browser sends none. These decorators are stricter, and can be given other rules.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.http.request import validate_host

from procman.channels.exceptions import DenyConnection
from procman.channels.message import Message

# What Django allows with DEBUG on and no ALLOWED_HOSTS.
_DEBUG_HOSTS = [".localhost", "127.0.0.1", "[::1]"]


class BaseOriginValidator:
    """A decorator, to be given its rule by ``validate_origin``.

    Where that says no, the handshake is refused::

        class PartnersOnly(BaseOriginValidator):
            def validate_origin(self, message, origin):
                return origin == "https://partner.example.com"

        @PartnersOnly
        def ws_connect(message):
            message.reply_channel.send({"accept": True})
    """

    def __init__(self, func: Callable[..., Any]) -> None:
        functools.update_wrapper(self, func)
        self.func = func

    def __call__(self, message: Message, *args: Any, **kwargs: Any) -> Any:
        """What the consumer returns. Raises DenyConnection."""
        if not self.validate_origin(message, self.get_origin(message)):
            raise DenyConnection
        return self.func(message, *args, **kwargs)

    def get_header(self, message: Message, name: str | bytes) -> bytes | None:
        """The value of the header *name* (lower case) of *message*, None without one. Raises DenyConnection for two."""
        wanted = name.encode() if isinstance(name, str) else name
        headers = message.get("headers") or []
        pairs = headers.items() if isinstance(headers, dict) else headers
        found = [value for key, value in pairs if _to_bytes(key).lower() == wanted]
        if len(found) > 1:
            raise DenyConnection
        return _to_bytes(found[0]) if found else None

    def get_origin(self, message: Message) -> str:
        """The Origin of *message*. Raises DenyConnection for one that is missing, empty or not ASCII."""
        try:
            origin = (self.get_header(message, b"origin") or b"").decode("ascii")
        except UnicodeDecodeError:
            raise DenyConnection from None
        if not origin:
            raise DenyConnection
        return origin

    def validate_origin(self, message: Message, origin: str) -> bool:
        """Whether a page of *origin* may connect. To be overridden."""
        raise NotImplementedError(f"{type(self).__name__} must say in validate_origin() which origins it allows")


class AllowedHostsOnlyOriginValidator(BaseOriginValidator):
    """Allows pages of ``ALLOWED_HOSTS``. Only the host's name is compared, not the scheme nor the port."""

    def validate_origin(self, message: Message, origin: str) -> bool:
        """Whether the host of *origin* is allowed."""
        try:
            host = urlsplit(origin).hostname or ""
        except ValueError:
            return False
        host = f"[{host}]" if ":" in host else host.removesuffix(".")
        allowed = settings.ALLOWED_HOSTS or (_DEBUG_HOSTS if settings.DEBUG else [])
        return bool(host) and validate_host(host, allowed)


def _to_bytes(value: str | bytes) -> bytes:
    return value.encode("utf-8") if isinstance(value, str) else value


allowed_hosts_only = AllowedHostsOnlyOriginValidator
