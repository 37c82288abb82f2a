"""Clients for every kind of address against real servers, and what they do when a server goes or turns."""

import asyncio
import random
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from procman.layers.redis.address import Host, parse_hosts
from procman.layers.redis.connect import (
    FIRST_PAUSE,
    LONGEST_PAUSE,
    close_async_client,
    close_client,
    is_lost,
    make_async_client,
    make_client,
    pause,
)
from tests.support.redis import RedisServer, Sentinels, TLSServer, running_redis, running_sentinels, running_tls
from tests.support.waiting import wait_until


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with running_redis(requirepass="p/w") as server:
        yield server


def host_of(address: str) -> Host:
    (host,) = parse_hosts(address)
    return host


def ask_both(host: Host) -> list[str]:
    """The name of the connection as the server knows it, by either client."""

    async def ask() -> str:
        client = make_async_client(host, name="procman:async")
        try:
            return str(await client.client_getname())
        finally:
            await close_async_client(client)

    client = make_client(host, name="procman:sync")
    try:
        return [str(client.client_getname()), asyncio.run(ask())]
    finally:
        close_client(client)


def test_clients_reach_a_server_over_tcp_and_its_socket(server: RedisServer) -> None:
    for address in (f"redis://:p%2Fw@127.0.0.1:{server.port}/1", f"unix://:p%2Fw@{server.path}?db=1"):
        assert ask_both(host_of(address)) == ["procman:sync", "procman:async"]


def test_the_name_of_the_connection_may_be_chosen_in_the_address(server: RedisServer) -> None:
    host = host_of(f"redis://:p%2Fw@127.0.0.1:{server.port}?client_name=mine")
    assert ask_both(host) == ["mine", "mine"]


def test_characters_that_redis_refuses_in_names_are_replaced(server: RedisServer) -> None:
    client = make_client(host_of(f"redis://:p%2Fw@127.0.0.1:{server.port}"), name="procman worker.1\n\u00fc")
    assert client.client_getname() == "procman-worker.1-"
    close_client(client)


def test_any_number_of_reconnects_may_be_made() -> None:
    for address in ("redis://h", "unix:///s", "redis+sentinel://h/service"):
        for client in (make_client(host_of(address)), make_async_client(host_of(address))):
            for _ in range(200):
                client.connection_pool.make_connection()


def test_connections_are_kept_alive_and_their_answers_bounded(server: RedisServer) -> None:
    client = make_client(host_of(f"redis://:p%2Fw@127.0.0.1:{server.port}"), answer_timeout=0.2)
    client.ping()
    (connection,) = client.connection_pool._available_connections
    assert connection._sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 30
    server.client.client_pause(700, all=True)
    with pytest.raises(redis.TimeoutError):
        client.ping()
    close_client(client)


def test_a_command_is_sent_once_even_when_the_connection_ends(server: RedisServer) -> None:
    client = make_client(host_of(f"redis://:p%2Fw@127.0.0.1:{server.port}"))
    server.client.set("count", 0)
    pipeline = client.pipeline(transaction=False)
    pipeline.incr("count")
    pipeline.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "no")
    pipeline.ping()
    with pytest.raises(redis.ConnectionError):
        pipeline.execute()
    assert server.client.get("count") == "1"
    close_client(client)


@pytest.mark.parametrize("mode", ["authority", "none"])
def test_clients_reach_a_server_over_tls(tls: TLSServer, mode: str) -> None:
    address = tls.url if mode == "authority" else f"rediss://127.0.0.1:{tls.port}?ssl_cert_reqs=none"
    assert ask_both(host_of(address)) == ["procman:sync", "procman:async"]


def test_a_certificate_that_nobody_vouches_for_is_refused(tls: TLSServer) -> None:
    with pytest.raises(redis.ConnectionError, match="CERTIFICATE_VERIFY_FAILED"):
        ask_both(host_of(f"rediss://localhost:{tls.port}"))


def test_a_certificate_for_another_name_is_refused(tls: TLSServer) -> None:
    tls.config(bind="127.0.0.1 127.0.0.2")
    with pytest.raises(redis.ConnectionError, match="mismatch"):
        ask_both(host_of(tls.url.replace("localhost", "127.0.0.2")))


@pytest.fixture(scope="module")
def tls() -> Iterator[TLSServer]:
    with running_tls() as server:
        yield server


@pytest.fixture(scope="module")
def sentinels() -> Iterator[Sentinels]:
    with running_sentinels() as sentinels:
        yield sentinels


@pytest.mark.slow
def test_the_master_is_looked_up_again_after_a_failover(sentinels: Sentinels) -> None:
    host = host_of(sentinels.url)
    client = make_client(host)

    def is_written(write: Callable[[], object]) -> bool:
        try:
            return bool(write())
        except redis.RedisError as error:
            assert is_lost(error), error
            return False

    loop = asyncio.new_event_loop()
    loop_client = make_async_client(host)

    client.set("sync", 1)
    loop.run_until_complete(loop_client.set("async", 1))
    wait_until(lambda: sentinels.replica.client.mget("sync", "async") == ["1", "1"])
    assert sentinels.failover() is sentinels.replica
    wait_until(lambda: is_written(lambda: client.set("sync", 2)))
    wait_until(lambda: is_written(lambda: loop.run_until_complete(loop_client.set("async", 2))))
    assert sentinels.replica.client.mget("sync", "async") == ["2", "2"]
    close_client(client)
    loop.run_until_complete(close_async_client(loop_client))
    loop.close()


def test_a_master_that_became_a_replica_counts_as_lost(tmp_path: Path) -> None:
    with running_redis() as other, running_redis() as turned:
        client = make_client(host_of(turned.url))
        client.set("a", 1)
        turned.client.replicaof("127.0.0.1", other.port)
        for command in (("SET", "a", "2"), ("EVAL", "return redis.call('set', KEYS[1], 1)", "1", "a")):
            with pytest.raises(redis.ResponseError) as refused:
                client.execute_command(*command)
            assert is_lost(refused.value), refused.value
        close_client(client)


def test_answers_to_a_command_are_no_lost_connection(server: RedisServer) -> None:
    client = make_client(host_of(f"redis://:p%2Fw@127.0.0.1:{server.port}"))
    for command in (("EVALSHA", "0" * 40, "0"), ("LPUSH",), ("EVAL", "return redis.error_reply('OOM no')", "0")):
        with pytest.raises(redis.ResponseError) as refused:
            client.execute_command(*command)
        assert not is_lost(refused.value)
    close_client(client)


def test_pauses_grow_to_a_bound_and_differ_between_processes() -> None:
    chances = [random.Random(seed).random() for seed in range(20)]
    assert pause(1, 0.0) == FIRST_PAUSE / 2 and pause(1, 1.0) == FIRST_PAUSE
    assert pause(10_000, 1.0) == LONGEST_PAUSE
    for attempt in range(1, 8):
        assert pause(attempt, 0.5) <= pause(attempt + 1, 0.5)
        assert len({pause(attempt, chance) for chance in chances}) == 20
