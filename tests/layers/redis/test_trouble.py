"""Each way in which a real Redis refuses is explained in one line that says what to do."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
import redis

from procman.layers.redis.address import parse_hosts
from procman.layers.redis.connect import close_client, make_client
from procman.layers.redis.trouble import describe, explain
from tests.support.processes import free_port
from tests.support.redis import RedisServer, running_redis, running_tls

SECRET = "s3cr3t"


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[str, RedisServer]]:
    with ExitStack() as stack:
        found = {
            "plain": stack.enter_context(running_redis()),
            "password": stack.enter_context(running_redis(requirepass="right")),
            "tls": stack.enter_context(running_tls()),
        }
        found["replica"] = stack.enter_context(running_redis(replicaof=f"127.0.0.1 {found['plain'].port}"))
        found["full"] = stack.enter_context(running_redis(maxmemory="1000"))
        found["cluster"] = stack.enter_context(running_redis(cluster_enabled="yes", cluster_port=str(free_port())))
        found["crowded"] = stack.enter_context(running_redis(maxclients="1"))
        found["plain"].client.acl_setuser(
            "reader", enabled=True, passwords=[f"+{SECRET}"], commands=["+get"], keys=["*"]
        )
        yield found


def at(
    name: str, credentials: str = "", scheme: str = "redis", tail: str = ""
) -> Callable[[dict[str, RedisServer]], str]:
    return lambda servers: f"{scheme}://{credentials}127.0.0.1:{servers[name].port}{tail}"


@pytest.mark.parametrize(
    ("address", "words"),
    [
        (at("password"), "wants a password"),
        (at("password", f":{SECRET}@"), "refuses the user name or password"),
        (at("password", f"h:{SECRET}@"), "made up by a platform"),
        (at("plain", f":{SECRET}@"), "leave the password out"),
        (at("plain", f"reader:{SECRET}@"), "may not do what"),
        (at("plain", tail="/99"), "use 0"),
        (at("plain", scheme="rediss", tail="?socket_timeout=0.3"), "redis:// instead of rediss://"),
        (at("tls"), "rediss://"),
        (at("tls", scheme="rediss"), "?ssl_cert_reqs=none"),
        (at("replica"), "name the master"),
        (at("full"), "maxmemory"),
        (at("cluster"), "Redis Cluster"),
        (at("crowded"), "raise maxclients"),
        (lambda _: f"redis://127.0.0.1:{free_port()}", "nothing listens there"),
        (lambda _: "unix:///nowhere/redis.sock", "no socket at that path"),
        (lambda _: "redis://no-such-host.invalid", "host"),
    ],
)
def test_what_a_server_refuses_is_explained(
    servers: dict[str, RedisServer], address: Callable[[dict[str, RedisServer]], str], words: str
) -> None:
    (host,) = parse_hosts(address(servers))
    client = make_client(host)
    with pytest.raises(redis.RedisError) as refused:
        client.set("a", "x")
    close_client(client)
    text = describe(host, refused.value)
    assert text.startswith(host.hidden + ": ") and words in text
    assert SECRET not in text and "\n" not in text


def test_an_unknown_error_is_shown_in_one_safe_line() -> None:
    assert explain(redis.ResponseError("odd\nthing\x1b[31m")) == "odd\\x0athing\\x1b[31m"
    assert explain(redis.ResponseError()) == "ResponseError"
