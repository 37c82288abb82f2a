"""redis-py clients for a ``Host``: plain, TLS, Unix socket, Sentinel; blocking and asyncio.

A client opens nothing before its first command. It never tries a command twice by itself: only the layer knows what
may be repeated, and how long to wait. Sentinels are asked for the master anew at each connect; a Redis that answers
``READONLY`` is a master no more, so ``is_lost`` counts that as a lost connection.

Threads must not share a connection while it blocks; they may share a client.
"""

from __future__ import annotations

import re
import socket
from typing import Any

import redis
import redis.asyncio
from redis.asyncio.sentinel import Sentinel as AsyncSentinel
from redis.backoff import NoBackoff
from redis.exceptions import MasterDownError, ReadOnlyError, RedisError
from redis.sentinel import Sentinel

from procman.layers.redis.address import Host

# A server on the same network answers the connect in milliseconds; one whose host is gone never does.
CONNECT_TIMEOUT = 5.0  # seconds
# Redis runs one command after the other: a KEYS or a fork for a snapshot by somebody else may hold it for seconds.
ANSWER_TIMEOUT = 10.0  # seconds
# Sentinels are asked in turn, so one whose host is gone must not hold up the others for long.
_SENTINEL_TIMEOUT = 1.0  # seconds

FIRST_PAUSE, LONGEST_PAUSE = 0.05, 2.0  # seconds

# A connection on which nothing happens is checked after 30 s and given up after 30 + 3 x 10 s. Cloud networks silently
# forget connections that are idle for 350 s (AWS) or 4 minutes (Azure).
_KEEPALIVE = {
    getattr(socket, name): value
    for name, value in (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3))
    if hasattr(socket, name)
}


# A pool counts every connection that make_connection() ever made, also those long closed, and ends at a hundred; the
# layer bounds its connections itself.
_ANY_NUMBER = 2**31
# What CLIENT SETNAME refuses.
_NOT_IN_NAMES = re.compile(r"[^!-~]+")


def pause(attempt: int, chance: float) -> float:
    """Seconds to wait before reconnect number *attempt* (from 1); *chance* is random between 0 and 1.

    Doubles from ``FIRST_PAUSE`` to ``LONGEST_PAUSE``. Half of it is random, because a Redis that comes back meets every
    process at once.
    """
    longest: float = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(max(attempt, 1) - 1, 30))
    return longest * (1.0 + chance) / 2.0


def is_lost(error: BaseException) -> bool:
    """Whether *error* means that the server is away or no longer the master: drop the connection, wait, connect again.

    A refused password counts too: a running site outlives its change. Other errors are answers to the command.
    """
    lost = redis.ConnectionError | redis.TimeoutError | ReadOnlyError | MasterDownError | OSError
    if isinstance(error, lost):
        return True
    # Of a script that wrote on a replica of Redis 6, of a blocked command when a master was demoted, and of a master
    # that has lost the replicas without which it takes no writes.
    return isinstance(error, RedisError) and any(
        word in str(error) for word in ("-READONLY", "UNBLOCKED", "NOREPLICAS")
    )


def make_client(host: Host, *, name: str = "", answer_timeout: float | None = ANSWER_TIMEOUT) -> redis.Redis:
    """A blocking client of *host*. *name* is what ``CLIENT LIST`` shows.

    *answer_timeout* is how many seconds an answer may take (None: for ever, for a connection that waits for messages);
    the address's own ``socket_timeout`` goes before it unless it is None.
    """
    from redis.retry import Retry

    arguments = _arguments(host, name, answer_timeout) | {"retry": Retry(NoBackoff(), 0)}
    if host.service:
        sentinel_arguments = _of_sentinels(host, arguments)
        sentinel = Sentinel(host.nodes, sentinel_kwargs=sentinel_arguments, **arguments)  # type: ignore
        return sentinel.master_for(host.service, ssl=host.tls)  # type: ignore
    kind: type[redis.Connection] | type[redis.UnixDomainSocketConnection]
    kind = redis.UnixDomainSocketConnection if host.path else redis.SSLConnection if host.tls else redis.Connection
    return redis.Redis.from_pool(redis.ConnectionPool(connection_class=kind, **_place(host), **arguments))


def make_async_client(
    host: Host, *, name: str = "", answer_timeout: float | None = ANSWER_TIMEOUT
) -> redis.asyncio.Redis:
    """The same for asyncio. Belongs to the event loop that first uses it."""
    from redis.asyncio import Connection, ConnectionPool, SSLConnection, UnixDomainSocketConnection
    from redis.asyncio.retry import Retry

    arguments = _arguments(host, name, answer_timeout) | {"retry": Retry(NoBackoff(), 0)}
    if host.service:
        sentinel_arguments = _of_sentinels(host, arguments)
        sentinel = AsyncSentinel(host.nodes, sentinel_kwargs=sentinel_arguments, **arguments)  # type: ignore
        return sentinel.master_for(host.service, ssl=host.tls)  # type: ignore
    kind = UnixDomainSocketConnection if host.path else SSLConnection if host.tls else Connection
    return redis.asyncio.Redis.from_pool(ConnectionPool(connection_class=kind, **_place(host), **arguments))


def close_client(client: redis.Redis) -> None:
    """Close the connections of *client*, also those to its Sentinels."""
    client.close()
    for sentinel in _sentinels(client):
        sentinel.close()


async def close_async_client(client: redis.asyncio.Redis) -> None:
    """The same for asyncio."""
    await client.aclose()
    for sentinel in _sentinels(client):
        await sentinel.aclose()


def _sentinels(client: Any) -> list[Any]:
    return list(getattr(getattr(client.connection_pool, "sentinel_manager", None), "sentinels", ()))


def _place(host: Host) -> dict[str, Any]:
    if host.path:
        return {"path": host.path}
    (name, port), *_ = host.nodes
    return {"host": name, "port": port}


def _arguments(host: Host, name: str, answer_timeout: float | None) -> dict[str, Any]:
    options = dict(host.options)
    if answer_timeout is not None:
        answer_timeout = options.get("socket_timeout", answer_timeout)
    found: dict[str, Any] = {
        "socket_connect_timeout": CONNECT_TIMEOUT,
        **options,
        "socket_timeout": answer_timeout,
        "db": host.db,
        # RESP 2: every server and proxy speaks it, and nothing that RESP 3 adds is used.
        "protocol": 2,
        "client_name": _NOT_IN_NAMES.sub("-", options.get("client_name") or name) or None,
        "max_connections": _ANY_NUMBER,
    }
    if host.username or host.password:
        found |= {"username": host.username or None, "password": host.password}
    if host.path:
        found.pop("socket_keepalive", None)
    elif found.setdefault("socket_keepalive", True):
        found["socket_keepalive_options"] = _KEEPALIVE
    if host.tls:
        found.setdefault("ssl_cert_reqs", "required")
        if found["ssl_cert_reqs"] == "none":
            found["ssl_check_hostname"] = False
    return found


def _of_sentinels(host: Host, arguments: dict[str, Any]) -> dict[str, Any]:
    kept = ("socket_keepalive", "socket_keepalive_options", "protocol", "retry")
    found = {name: value for name, value in arguments.items() if name in kept or name.startswith("ssl_")}
    found |= {"socket_timeout": _SENTINEL_TIMEOUT, "socket_connect_timeout": _SENTINEL_TIMEOUT, "ssl": host.tls}
    if host.sentinel_username or host.sentinel_password:
        found |= {"username": host.sentinel_username or None, "password": host.sentinel_password}
    return found
