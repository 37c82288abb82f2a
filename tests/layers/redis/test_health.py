"""What is found about real servers before a site uses them."""

from collections.abc import Iterator

import pytest

from procman.layers.redis.address import parse_hosts
from procman.layers.redis.health import examine, faults
from tests.support.processes import free_port
from tests.support.redis import RedisServer, running_redis, running_sentinels

SOUND = {"redis_version": "7.0.15", "redis_mode": "standalone", "role": "master", "maxmemory": 0, "maxclients": 10_000}


def findings(address: str) -> list[tuple[str, str]]:
    (host,) = parse_hosts(address)
    return list(examine(host))


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with running_redis() as server:
        yield server


def test_a_sound_server_has_no_faults() -> None:
    assert list(faults(SOUND)) == list(faults({})) == []


@pytest.mark.parametrize(
    ("fields", "level", "words"),
    [
        ({"redis_version": "6.0.16"}, "error", "too old"),
        ({"redis_version": "3.2.1"}, "error", "too old"),
        ({"redis_mode": "cluster"}, "error", "Cluster"),
        ({"role": "slave", "master_host": "m", "master_port": 1}, "error", "its master m:1"),
        ({"maxmemory": 100, "maxmemory_policy": "volatile-ttl"}, "warning", "noeviction"),
        ({"maxmemory": 100, "used_memory": 95}, "warning", "95 %"),
        ({"rdb_last_bgsave_status": "err"}, "warning", "snapshot failed"),
        ({"maxclients": 20, "connected_clients": 12}, "warning", "8 more connections"),
    ],
)
def test_each_fault_is_one_line_with_the_way_out(fields: dict[str, object], level: str, words: str) -> None:
    ((found, text),) = faults(SOUND | fields)
    assert found == level and words in text and "\n" not in text


def test_a_policy_without_a_limit_hurts_nobody() -> None:
    assert list(faults(SOUND | {"maxmemory_policy": "allkeys-lru"})) == []


def test_a_real_server_is_found_sound_and_left_as_it_was(server: RedisServer) -> None:
    assert findings(server.url) == findings(server.unix_url) == []
    assert server.client.keys() == [] and server.connections("procman:check") == []


def test_valkey_is_found_sound() -> None:
    with running_redis("valkey-server") as valkey:
        assert findings(valkey.url) == []
        assert valkey.client.info()["server_name"] == "valkey"


def test_a_replica_is_found(server: RedisServer) -> None:
    with running_redis(replicaof=f"127.0.0.1 {server.port}") as replica:
        ((level, text),) = findings(replica.url)
        assert level == "error" and f"127.0.0.1:{server.port}" in text


def test_a_user_who_may_not_run_scripts_is_found(server: RedisServer) -> None:
    server.client.acl_setuser("reader", enabled=True, passwords=["+s3cr3t"], commands=["+info", "+client"], keys=["*"])
    ((level, text),) = findings(f"redis://reader:s3cr3t@127.0.0.1:{server.port}")
    assert level == "error" and "+@all" in text and "s3cr3t" not in text


def test_a_server_that_is_not_there_is_found() -> None:
    ((level, text),) = findings(f"redis://127.0.0.1:{free_port()}")
    assert level == "error" and "nothing listens there" in text


@pytest.mark.slow
def test_the_master_behind_sentinels_is_found() -> None:
    with running_sentinels() as sentinels:
        assert findings(sentinels.url) == []
        ((level, text),) = findings(sentinels.url.replace("mymaster", "yours"))
        assert level == "error" and "service's name" in text
