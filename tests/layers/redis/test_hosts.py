import pytest

from procman.layers.redis.hosts import choose_hosts, hidden, is_redis


def chosen(address: str | None = None, hosts: object = None, **environ: str) -> str:
    return hidden(choose_hosts(address, hosts, None, environ))  # type: ignore[arg-type]


def test_the_command_line_goes_before_the_settings_and_these_before_the_platform() -> None:
    platform = {"REDIS_URL": "redis://platform/0"}
    assert chosen("redis://a/0", PROCMAN_LAYER="redis://flag/1", **platform) == "redis://flag:6379/1"
    assert chosen("redis://a/0", **platform) == "redis://a:6379/0"
    assert chosen(hosts=[("b", 1)], **platform) == "redis://b:1/0"
    assert chosen(**platform) == "redis://platform:6379/0"
    assert chosen() == "redis://localhost:6379/0"


def test_another_kind_of_layer_in_the_environment_changes_nothing() -> None:
    assert chosen("redis://a/0", PROCMAN_LAYER="ipc:///x.sock") == "redis://a:6379/0"


def test_asking_for_redis_alone_takes_the_one_of_the_platform() -> None:
    assert chosen(PROCMAN_LAYER="redis", REDIS_URL="redis://:secret@platform/0") == "redis://***@platform:6379/0"


@pytest.mark.parametrize("address", ["redis", "redis://", "rediss://x", "unix:///x", "redis+sentinel://x/s"])
def test_addresses_of_redis_are_known(address: str) -> None:
    assert is_redis(address)


def test_other_addresses_are_not() -> None:
    assert not is_redis("ipc:///redis.sock") and not is_redis("")
