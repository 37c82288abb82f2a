"""What a user writes about Redis servers -> ``Host`` objects: URLs, (host, port) pairs, dictionaries.

Pure: opens nothing and looks nothing up. Understood are

    redis://[user:password@]host[:port][/db][?option=value&...]     rediss:// the same over TLS
    unix://[user:password@]/path/of.sock[?db=0&...]
    redis+sentinel://[user:password@]host[:port],host[:port]/service[/db][?...]     rediss+sentinel:// the same over TLS
    ("host", port)
    {"address": URL, ...}, {"host": ..., "port": ..., ...}, {"path": ..., ...}, {"sentinels": [...], "master_name": ...}

A user name, password, path and option is percent-encoded where it holds a character that means something in a URL.
Options have the names that redis-py gives them; what only concerns its pool or other programs' clients is ignored.
No text made here shows a password: errors and logs use ``hide`` and ``Host.hidden``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from procman.errors import ConfigurationError
from procman.layers.redis.options import OWN, check_options

PORT = 6379
SENTINEL_PORT = 26379
SCHEMES = ("redis", "rediss", "unix", "redis+sentinel", "rediss+sentinel")

# Where platforms and add-ons put the address, the first one that is set wins: most say REDIS_URL; Heroku's older
# plans add the TLS address beside a plain one; Redis Cloud and Upstash have names of their own.
PLATFORM_VARIABLES = ("REDIS_URL", "REDIS_TLS_URL", "VALKEY_URL", "REDISCLOUD_URL", "UPSTASH_REDIS_URL")
# Beside one of these: "none" accepts the self-signed certificates of Heroku Data for Redis and the like.
CERT_REQS_VARIABLE = "REDIS_SSL_CERT_REQS"

_EXAMPLE = "write redis://host:6379/0, rediss://user:password@host:6379/0, unix:///path/redis.sock or " \
    "redis+sentinel://host:26379,host:26379/service/0"  # fmt: skip
_SECRET = re.compile(r"(?i)([?&][^=&]*password=)[^&\s]*")
_CREDENTIALS = re.compile(r"(?s)^([a-z+]*://)?.*@")
# A space or comma separates addresses only where another scheme follows it.
_BETWEEN = re.compile(r"[\s,]+(?=[a-z+]+://)")


def hide(text: str) -> str:
    """*text*, an address or several, with credentials as ``***``; fit for logs even if it does not parse."""
    return " ".join(_SECRET.sub(r"\1***", _CREDENTIALS.sub(r"\1***@", part)) for part in _BETWEEN.split(text.strip()))


@dataclass(frozen=True, slots=True, repr=False)
class Host:
    """One server: where it is and how it is spoken to.

    Without ``service``, ``nodes`` is the one address (or empty, and ``path`` is a Unix socket). With it, ``nodes`` are
    the Sentinels that know where the master of that service is. ``options`` are keyword arguments of a redis-py
    connection, as sorted pairs.
    """

    nodes: tuple[tuple[str, int], ...] = ()
    path: str = ""
    service: str = ""
    db: int = 0
    tls: bool = False
    username: str = ""
    password: str = ""
    sentinel_username: str = ""
    sentinel_password: str = ""
    options: tuple[tuple[str, Any], ...] = ()

    @property
    def hidden(self) -> str:
        """The address without credentials and options, for logs."""
        user = "***@" if self.username or self.password else ""
        scheme = "rediss" if self.tls else "redis"
        if self.path:
            return f"unix://{user}{self.path}?db={self.db}"
        places = ",".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.nodes)
        if self.service:
            return f"{scheme}+sentinel://{user}{places}/{self.service}/{self.db}"
        return f"{scheme}://{user}{places}/{self.db}"

    def __repr__(self) -> str:
        return f"<Host {self.hidden}>"


def parse_hosts(address: str | Sequence[Any], options: Mapping[str, Any] | None = None) -> list[Host]:
    """The servers that *address* names: one address, several separated by spaces or commas, or a sequence.

    *options* apply to each server; those in an address go before them. The order of the servers is part of the
    sharding: every process must name them in the same order.

    Raises:
        ConfigurationError: one line that says what to write instead.
    """
    if isinstance(address, bytes):
        address = address.decode()
    if not isinstance(address, Sequence):
        address = [address]
    common = check_options(dict(options or {}), "the layer's connection_kwargs")
    entries: Sequence[Any] = (
        [part for part in _BETWEEN.split(address.strip()) if part] if isinstance(address, str) else address
    )
    # A pair as it stands is one server, not two.
    if isinstance(address, tuple) and len(address) in (2, 3) and isinstance(address[1], int):
        entries = [address]
    hosts = [_parse_one(entry, common) for entry in entries]
    if not hosts:
        raise ConfigurationError(f"the layer's 'hosts' names no Redis server: {_EXAMPLE}")
    places = [(host.nodes, host.path, host.service, host.db) for host in hosts]
    for number, host in enumerate(hosts):
        if places.index(places[number]) != number:
            raise ConfigurationError(f"the layer's 'hosts' names {host.hidden} twice: name each server once")
    return hosts


def platform_address(environ: Mapping[str, str]) -> str | None:
    """The address that a platform has put into *environ*, None without one.

    ``REDIS_SSL_CERT_REQS`` beside it is added as the option ``ssl_cert_reqs`` unless the address has its own.
    """
    found = next((environ[name].strip() for name in PLATFORM_VARIABLES if environ.get(name, "").strip()), None)
    wanted = environ.get(CERT_REQS_VARIABLE, "").strip()
    if found and wanted and found.startswith("rediss") and "ssl_cert_reqs=" not in found:
        found += ("&" if "?" in found else "?") + f"ssl_cert_reqs={wanted}"
    return found


def _parse_one(entry: Any, common: Mapping[str, Any]) -> Host:
    if isinstance(entry, bytes):
        entry = entry.decode()
    if isinstance(entry, str):
        return _parse_url(entry, common)
    if isinstance(entry, Mapping):
        return _parse_mapping(dict(entry), common)
    if isinstance(entry, Sequence) and len(entry) in (2, 3):
        node = _node(entry[0], entry[1], str(entry[0]))
        return _build({"db": entry[2] if len(entry) == 3 else 0}, common, str(entry[0]), nodes=(node,))
    raise ConfigurationError(f"the layer's 'hosts' holds an item of type {type(entry).__name__}: {_EXAMPLE}")


def _parse_url(text: str, common: Mapping[str, Any]) -> Host:
    shown = hide(text)
    scheme, _, rest = text.partition("://")
    if scheme not in SCHEMES or "://" not in text or (scheme == "unix" and not rest):
        raise ConfigurationError(f"Redis address {shown!r} is not understood: {_EXAMPLE}")
    try:
        url = urlsplit(text)
        fields: dict[str, Any] = dict(parse_qsl(url.query, keep_blank_values=True, strict_parsing=bool(url.query)))
    except ValueError:
        raise ConfigurationError(
            f"Redis address {shown!r} is not a URL: percent-encode special characters of the password "
            "(/ is %2F, # is %23, ? is %3F, @ is %40)"
        ) from None
    if "@" in url.path or "@" in url.fragment or "@" in url.query.partition("=")[0]:
        raise ConfigurationError(
            f"Redis address {shown!r} has an '@' behind its host: percent-encode special characters of the password "
            "(/ is %2F, # is %23, ? is %3F, @ is %40)"
        )
    user, places = _credentials(url)
    fields = {**user, **fields}
    if scheme == "unix":
        return _build(fields, common, shown, path=unquote(places + url.path))
    tls = scheme.startswith("rediss")
    parts = [unquote(part) for part in url.path.split("/") if part]
    if scheme.endswith("+sentinel"):
        return _build(_sentinel_path(parts, fields, shown), common, shown, nodes=_places(places, shown, True), tls=tls)
    if len(parts) > 1:
        raise ConfigurationError(f"Redis address {shown!r} has more than a database number behind its host")
    if parts:
        fields.setdefault("db", parts[0])
    nodes = _places(places, shown, False)
    return _build(fields, common, shown, nodes=nodes, tls=tls)


def _credentials(url: SplitResult) -> tuple[dict[str, str], str]:
    """User name and password as fields, and what of the address is left."""
    user, separator, places = url.netloc.rpartition("@")
    if not separator:
        return {}, places
    name, _, password = user.partition(":")
    found = {"username": unquote(name), "password": unquote(password)}
    return {field: value for field, value in found.items() if value}, places


def _sentinel_path(parts: Sequence[str], fields: dict[str, Any], shown: str) -> dict[str, Any]:
    if not 1 <= len(parts) <= 2:
        raise ConfigurationError(
            f"Redis address {shown!r} does not name the service that the Sentinels watch: "
            "write redis+sentinel://host:26379/mymaster/0"
        )
    found = {"service": parts[0], **fields}
    if len(parts) == 2:
        found.setdefault("db", parts[1])
    return found


def _places(text: str, shown: str, several: bool) -> tuple[tuple[str, int], ...]:
    default = SENTINEL_PORT if several else PORT
    found = []
    for place in text.split(",") if several else [text]:
        match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.%]+)\]|([^\[\]:,]*))(?::(\d*))?", place)
        if match is None:
            raise ConfigurationError(f"Redis address {shown!r} has no usable host and port: {_EXAMPLE}")
        host = unquote(match[1] or match[2] or "localhost")
        found.append(_node(host, match[3] or default, shown))
    return tuple(found)


def _node(host: Any, port: Any, shown: str) -> tuple[str, int]:
    try:
        number = int(port)
    except (TypeError, ValueError):
        number = 0
    if not isinstance(host, str) or not host or not 0 < number < 65536:
        raise ConfigurationError(f"Redis server {shown!r} needs a host name and a port between 1 and 65535")
    return host, number


def _parse_mapping(entry: dict[str, Any], common: Mapping[str, Any]) -> Host:
    """A dictionary as channels_redis and redis-py take it."""
    if "address" in entry:
        address = entry.pop("address")
        return _parse_one(address, {**common, **check_options(entry, "a dictionary of the layer's 'hosts'")})
    tls = bool(entry.pop("ssl", False))
    if "sentinels" in entry:
        for field, value in dict(entry.pop("sentinel_kwargs", None) or {}).items():
            entry.setdefault(f"sentinel_{field}" if field in ("username", "password") else field, value)
        nodes = tuple(_node(name, port, "sentinels") for name, port in entry.pop("sentinels"))
        service = entry.pop("master_name", None) or entry.pop("service_name", None) or entry.pop("service", "")
        if not nodes or not service:
            raise ConfigurationError("Redis through Sentinel needs 'sentinels': [(host, port), ...] and 'master_name'")
        return _build({**entry, "service": service}, common, "sentinels", nodes=nodes, tls=tls)
    path = entry.pop("path", None) or entry.pop("unix_socket_path", None)
    if path:
        return _build(entry, common, str(path), path=str(path))
    host = entry.pop("host", "localhost")
    return _build(entry, common, str(host), nodes=(_node(host, entry.pop("port", PORT), str(host)),), tls=tls)


def _build(fields: dict[str, Any], common: Mapping[str, Any], shown: str, **where: Any) -> Host:
    fields = check_options({**common, **fields}, f"Redis server {shown!r}")
    own = {name: fields.pop(name) for name in OWN if name in fields}
    if where.get("path") and not str(where["path"]).startswith("/"):
        raise ConfigurationError(f"Redis address {shown!r} needs an absolute path: write unix:///path/redis.sock")
    if not where.get("tls"):
        # Options for all servers may name certificates that only some of them use.
        fields = {name: value for name, value in fields.items() if not name.startswith("ssl_")}
    return Host(**where, **own, options=tuple(sorted(fields.items())))
