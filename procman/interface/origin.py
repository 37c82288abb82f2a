"""Whether the page that opens a WebSocket may do so: its Origin against ``ALLOWED_HOSTS``.

Pure. Browsers send an Origin with every WebSocket handshake and no same-origin rule protects the server, so a foreign
page could use a visitor's cookies. A client without an Origin is no browser and carries nobody's cookies: allowed.
Refuses to look at scheme and port: ``ALLOWED_HOSTS`` names hosts only, and proxies change both.
"""

from collections.abc import Sequence
from urllib.parse import urlsplit

# What Django allows when DEBUG is on and ALLOWED_HOSTS is empty (django.http.request.HttpRequest.get_host).
DEBUG_HOSTS = (".localhost", "127.0.0.1", "[::1]")


def is_allowed(origins: Sequence[bytes], allowed_hosts: Sequence[str], debug: bool = False) -> bool:
    """Whether a handshake with these ``Origin`` header values may go on.

    ``null``, ``file://`` and whatever has no host are allowed only by ``"*"``; more than one value never is.
    """
    if not origins:
        return True
    if len(origins) > 1:
        return False
    hosts = allowed_hosts or (DEBUG_HOSTS if debug else ())
    if "*" in hosts:
        return True
    host = origin_host(origins[0])
    return bool(host) and any(host_matches(host, pattern) for pattern in hosts)


def origin_host(origin: bytes) -> str:
    """Lower-case host of *origin*, IPv6 addresses in brackets; ``""`` if it is not ``scheme://host[:port]``."""
    try:
        text = origin.decode("ascii")
        parts = urlsplit(text)
        host = (parts.hostname or "").removesuffix(".")
        _ = parts.port  # raises ValueError for a port that is no number
    except (UnicodeDecodeError, ValueError):
        return ""
    # A serialised origin has neither path nor user; one that does is an attempt to look like another host.
    if not host or parts.path or parts.query or parts.fragment or "@" in parts.netloc or not text.isprintable():
        return ""
    if ":" in host:
        return f"[{host}]"
    return host if all(character.isalnum() or character in "-._" for character in host) else ""


def host_matches(host: str, pattern: str) -> bool:
    """Django's ``is_same_domain``, and ``"*"``: ``.example.com`` matches the domain and everything below it."""
    pattern = pattern.lower()
    if pattern.startswith("."):
        return host == pattern[1:] or host.endswith(pattern)
    return pattern in ("*", host)
