"""Which Redis servers a layer uses: of the command line, of its settings, of the platform.

Pure. ``PROCMAN_LAYER`` (which ``--layer`` sets) goes before the settings where it names Redis, so that one site can be
tried on another server; then come the layer's ``hosts`` or ``address``; a layer without either takes what the platform
put into ``REDIS_URL`` and its like, else the server on this machine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from procman.layers.redis.address import SCHEMES, Host, parse_hosts, platform_address
from procman.settings import ENV_LAYER

LOCAL = "redis://localhost:6379/0"


def is_redis(address: str) -> bool:
    """Whether *address* names Redis servers."""
    return isinstance(address, str) and (address == "redis" or address.partition("://")[0] in SCHEMES)


def choose_hosts(
    address: str | None,
    hosts: Sequence[Any] | str | None,
    options: Mapping[str, Any] | None,
    environ: Mapping[str, str],
) -> list[Host]:
    """The servers, in the order of the sharding. Raises ConfigurationError."""
    chosen: Any = environ.get(ENV_LAYER, "")
    if not is_redis(chosen):
        given = hosts if address is None else address
        chosen = "redis" if given is None else given
    if chosen in ("redis", "redis://"):
        chosen = platform_address(environ) or LOCAL
    return parse_hosts(chosen, options)


def hidden(hosts: Sequence[Host]) -> str:
    """All addresses, without passwords."""
    return " ".join(host.hidden for host in hosts)
