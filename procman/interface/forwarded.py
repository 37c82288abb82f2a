"""Whom to believe what a proxy says of its clients, and what is believed.

Pure. Headers of anybody else are the client's own words.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable

from procman.errors import ConfigurationError
from procman.interface.messages import Header

# What every log and every header takes as it is; longer than any id in use (a UUID has 36 characters).
_REQUEST_ID = re.compile(rb"[A-Za-z0-9][-A-Za-z0-9._~+/=:@]{0,99}")


class Trusted:
    """Addresses of proxies: *text* is a list of addresses and networks with commas between, or ``*`` for all.

    Raises:
        ConfigurationError: one of them is no address and no network.
    """

    def __init__(self, text: str) -> None:
        words = [word.strip() for word in text.split(",") if word.strip()]
        self._has_all = "*" in words
        try:
            self._networks = [ipaddress.ip_network(word) for word in words if word != "*"]
        except ValueError as error:
            raise ConfigurationError(f"--forwarded-allow-ips is {text!r}: {error}") from None

    def includes(self, host: str) -> bool:
        """Whether the peer *host* is believed; "" is a Unix socket's, whose file says who may connect."""
        if self._has_all or not host:
            return True
        try:
            address = ipaddress.ip_address(host.partition("%")[0])
        except ValueError:
            return False
        mapped = getattr(address, "ipv4_mapped", None) or address
        return any(mapped in network for network in self._networks)


def request_id(headers: Iterable[Header], host: str, trusted: Trusted) -> str:
    """The ``X-Request-ID`` that the proxy at *host* gave; "" if there is none to use. Names are in lower case."""
    values = [value for name, value in headers if name == b"x-request-id"]
    if len(values) != 1 or not _REQUEST_ID.fullmatch(values[0]) or not trusted.includes(host):
        return ""
    return values[0].decode("ascii")
