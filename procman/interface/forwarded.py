"""Who asks, when a proxy asks for somebody: ``X-Forwarded-For``, ``X-Forwarded-Proto`` and ``X-Request-ID``.

Pure. Anybody can send these headers, so they count only if the peer's own address is trusted, and of the addresses in
them only as far from the right as trusted ones wrote them. Never raises for what a client sends.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from typing import NamedTuple

from procman.errors import ConfigurationError
from procman.interface.messages import Address, Header

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

# What every log and every header takes as it is; longer than any id in use (a UUID has 36 characters).
_REQUEST_ID = re.compile(rb"[A-Za-z0-9][-A-Za-z0-9._~+/=:@]{0,99}")
MAX_HOPS = 32  # addresses looked at, from the right
_SECURE = {b"https": "https", b"wss": "https", b"http": "http", b"ws": "http"}


class Client(NamedTuple):
    """Who is at the other end of a connection, and how it came; *scheme* is http or https."""

    address: Address
    server: Address
    scheme: str

    @property
    def host(self) -> str:
        """Its address in text, empty if it has none."""
        return str(self.address[0]) if self.address else ""


class Trusted:
    """The addresses in *text*: addresses and networks with commas between them; ``*`` is whoever connects.

    A peer on a Unix socket has no address: whoever may open the socket is trusted, unless *text* is empty.

    Raises:
        ConfigurationError: a part is neither.
    """

    def __init__(self, text: str) -> None:
        parts = [part.strip() for part in text.split(",") if part.strip()]
        self._is_anybody = "*" in parts
        self._is_nobody = not parts
        self._networks: list[Network] = []
        for part in parts:
            if part != "*":
                try:
                    self._networks.append(ipaddress.ip_network(part))
                except ValueError as error:
                    raise ConfigurationError(
                        f"--forwarded-allow-ips has {part!r}: write addresses or networks such as 10.0.0.0/8, or *"
                        f" ({error})"
                    ) from None

    def __contains__(self, address: IPAddress) -> bool:
        return any(address in network for network in self._networks)

    def resolve(self, client: Client, headers: Iterable[Header]) -> Client:
        """*client*, or for whom it asks according to *headers* (names in lower case) if it is trusted."""
        if not self.includes(client.host):
            return client
        hops: list[bytes] = []
        scheme = client.scheme
        for name, value in headers:
            if name == b"x-forwarded-for":
                hops += value.split(b",")
            elif name == b"x-forwarded-proto":
                scheme = _SECURE.get(value.rpartition(b",")[2].strip().lower(), scheme)
        address = client.address
        for hop in reversed(hops[-MAX_HOPS:]):
            found = parse_address(hop)
            if found is None:
                break  # what stands further left was written by nobody who is known
            address = (str(found), 0)
            if found not in self:
                break
        return Client(address, client.server, scheme)

    def includes(self, host: str) -> bool:
        """Whether the peer *host* is believed; "" is a Unix socket's."""
        if self._is_anybody or not host:
            return not self._is_nobody
        found = parse_address(host.partition("%")[0].encode())
        return found is not None and found in self


def request_id(headers: Iterable[Header], host: str, trusted: Trusted) -> str:
    """The ``X-Request-ID`` that the proxy at *host* gave; "" if there is none to use. Names are in lower case."""
    values = [value for name, value in headers if name == b"x-request-id"]
    if len(values) != 1 or not _REQUEST_ID.fullmatch(values[0]) or not trusted.includes(host):
        return ""
    return values[0].decode("ascii")


def parse_address(text: bytes) -> IPAddress | None:
    """The address in *text*, which may have brackets and a port; None if there is none."""
    word = text.strip()
    if word.startswith(b"["):
        word = word[1:].partition(b"]")[0]
    elif word.count(b":") == 1:
        word = word.partition(b":")[0]
    if b"%" in word:  # a zone, which could be any text
        return None
    try:
        found = ipaddress.ip_address(word.decode("ascii"))
    except ValueError:  # UnicodeDecodeError is one
        return None
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return mapped or found
