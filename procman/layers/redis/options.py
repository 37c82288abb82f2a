"""Options of a connection to Redis, as they stand in URLs, settings and redis-py's keyword arguments, checked.

Pure. Names are redis-py's. Values may be texts, as in a URL, or what redis-py takes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from procman.errors import ConfigurationError

_CERT_REQS = ("none", "optional", "required")


def _text(value: Any) -> str:
    if not isinstance(value, str | int):
        raise ValueError("a text")
    return str(value)


def _seconds(value: Any) -> float:
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        seconds = 0.0
    if not 0 < seconds < 1e6:
        raise ValueError("a number of seconds above 0")
    return seconds


def _switch(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if str(value).lower() in ("1", "true", "yes", "on", "0", "false", "no", "off"):
        return str(value).lower() in ("1", "true", "yes", "on")
    raise ValueError("true or false")


def _database(value: Any) -> int:
    if not str(value).isdecimal() or int(value) > 65535:
        raise ValueError("a database number such as 0")
    return int(value)


def _cert_reqs(value: Any) -> str:
    if value is None or value is False:  # as redis-py and the ssl module write it
        return "none"
    number = value if isinstance(value, int) else None
    if number in (0, 1, 2):
        return _CERT_REQS[number]
    name = str(value).lower().removeprefix("cert_")
    if name not in _CERT_REQS:
        raise ValueError("none, optional or required")
    return name


# What is said to the server once the connection stands, and where to find it; the rest concerns the connection.
OWN = {
    "db": _database,
    "service": _text,
    "username": _text,
    "password": _text,
    "sentinel_username": _text,
    "sentinel_password": _text,
}
_OPTIONS: dict[str, Callable[[Any], Any]] = {
    **OWN,
    "client_name": _text,
    "socket_connect_timeout": _seconds,
    "socket_keepalive": _switch,
    "socket_timeout": _seconds,
    "ssl_ca_certs": _text,
    "ssl_ca_path": _text,
    "ssl_cert_reqs": _cert_reqs,
    "ssl_certfile": _text,
    "ssl_check_hostname": _switch,
    "ssl_keyfile": _text,
    "ssl_password": _text,
}
# Of redis-py's pool and decoding, and of other programs that read the same address (ioredis: family).
_IGNORED = {
    "decode_responses", "encoding", "encoding_errors", "family", "health_check_interval", "legacy_responses",
    "max_connections", "protocol", "retry_on_error", "retry_on_timeout", "socket_read_size", "timeout",
}  # fmt: skip


def check_options(given: Mapping[str, Any], where: str) -> dict[str, Any]:
    """*given* with its values in their types; *where* begins the text of an error.

    Raises:
        ConfigurationError: an option that does not exist, or a value that does not fit.
    """
    return dict(_checked(given, where))


def _checked(given: Mapping[str, Any], where: str) -> Iterator[tuple[str, Any]]:
    for name, value in given.items():
        if name in _IGNORED or (value is None and name != "ssl_cert_reqs"):
            continue
        check = _OPTIONS.get(name)
        if check is None:
            raise ConfigurationError(f"{where}: there is no option {name!r}; there are {', '.join(sorted(_OPTIONS))}")
        try:
            yield name, check(value)
        except ValueError as error:
            # The value is not shown: it may be a password at the wrong place.
            raise ConfigurationError(f"{where}: option {name!r} must be {error}") from None
