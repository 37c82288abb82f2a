"""Whether a Redis or Valkey server is fit to carry the layer: ``channels-run check`` asks before the site does.

``faults`` is pure: what the answer to ``INFO`` says. ``examine`` asks a server for it. A fault is one line with the way
out, and whether the layer cannot work (``error``) or will be hurt one day (``warning``).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import redis

from procman.layers.redis.address import Host
from procman.layers.redis.connect import close_client, make_client
from procman.layers.redis.trouble import describe, explain

# XTRIM MINID, with which an interface empties its inbox.
MINIMUM_VERSION = (6, 2)
_TIMEOUT = 3.0  # seconds: somebody waits for the answer
_FEW_CONNECTIONS = 20
_FULL = 0.9


def examine(host: Host) -> Iterator[tuple[str, str]]:
    """The faults of the server at *host*, as (``error`` or ``warning``, text)."""
    own = dict(host.options)
    patient = {"socket_connect_timeout": _TIMEOUT, "socket_timeout": _TIMEOUT, **own}
    hurried = dataclasses.replace(host, options=tuple(sorted(patient.items())))
    client = make_client(hurried, name="procman:check")
    try:
        info: Mapping[str, Any] = client.info()
        found = list(faults(info))
        yield from ((level, f"{host.hidden}: {text}") for level, text in found)
        if not any(level == "error" for level, _ in found):
            # A user may be let in and yet not be allowed what every message needs.
            client.eval("return redis.call('EXISTS', KEYS[1])", 1, "{procman}:check")
    except redis.exceptions.NoPermissionError as error:
        yield "error", f"{host.hidden}: {explain(error)}"
    except (redis.RedisError, OSError) as error:
        yield "error", describe(host, error)
    finally:
        close_client(client)


def faults(info: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What *info*, the answer to ``INFO``, says against this server; fields that a platform hides say nothing."""
    version = str(info.get("redis_version", ""))
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if numbers and numbers < MINIMUM_VERSION:
        yield "error", f"Redis {version} is too old: use 6.2 or newer, or Valkey"
    if info.get("redis_mode") == "cluster":
        yield (
            "error",
            "it is part of a Redis Cluster, which the layer does not use: name single servers in 'hosts' instead",
        )
    if info.get("role") == "slave":
        master = f"{info.get('master_host')}:{info.get('master_port')}"
        yield "error", f"it is a replica that takes no writes: name its master {master}, or use redis+sentinel://"
    yield from _memory_faults(info)
    if info.get("rdb_last_bgsave_status") == "err":
        yield (
            "warning",
            "its last snapshot failed, and by default it refuses writes then: free its disk, or switch snapshots off "
            "(save '')",
        )
    room = int(info.get("maxclients", 10_000)) - int(info.get("connected_clients", 0))
    if room < _FEW_CONNECTIONS:
        yield (
            "warning",
            f"{room} more connections fit, and each interface and worker needs two: raise maxclients, or run fewer",
        )


def _memory_faults(info: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    limit, used = int(info.get("maxmemory", 0)), int(info.get("used_memory", 0))
    policy = info.get("maxmemory_policy", "noeviction")
    # Without a limit nothing is ever thrown away; the policy says nothing then.
    if not limit:
        return
    if policy != "noeviction":
        yield (
            "warning",
            f"maxmemory-policy is {policy}: once it is full, it silently throws away messages that wait; "
            "set it to noeviction",
        )
    if used > _FULL * limit:
        yield "warning", f"{used * 100 // limit} % of its memory (maxmemory) is used: once it is full, sends fail"
