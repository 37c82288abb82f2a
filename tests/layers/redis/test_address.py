"""What users write about Redis servers, what is refused, and that no text shows a password."""

from typing import Any

import pytest

from procman.errors import ConfigurationError
from procman.layers.redis.address import Host, hide, parse_hosts, platform_address

SECRET = "s3cr3t"


def one(address: Any, **options: Any) -> Host:
    (host,) = parse_hosts(address, options)
    return host


@pytest.mark.parametrize(
    ("address", "hidden"),
    [
        ("redis://", "redis://localhost:6379/0"),
        ("redis://cache", "redis://cache:6379/0"),
        ("redis://cache:7000/3", "redis://cache:7000/3"),
        ("redis://cache?db=2", "redis://cache:6379/2"),
        ("redis://[fd00::1]:7000", "redis://[fd00::1]:7000/0"),
        ("redis://:s3cr3t@cache", "redis://***@cache:6379/0"),
        ("rediss://user:s3cr3t@cache:6380", "rediss://***@cache:6380/0"),
        ("unix:///run/redis.sock", "unix:///run/redis.sock?db=0"),
        ("unix://:s3cr3t@/run/my%20redis.sock?db=4", "unix://***@/run/my redis.sock?db=4"),
        ("redis+sentinel://a,b:7000/main", "redis+sentinel://a:26379,b:7000/main/0"),
        ("rediss+sentinel://:s3cr3t@a/main/5", "rediss+sentinel://***@a:26379/main/5"),
        (("cache", 7000), "redis://cache:7000/0"),
        ([("cache", 7000, 2)], "redis://cache:7000/2"),
        ([{"host": "cache", "password": "s3cr3t", "db": 1}], "redis://***@cache:6379/1"),
        ([{"host": "cache", "ssl": True}], "rediss://cache:6379/0"),
        ([{"unix_socket_path": "/run/redis.sock"}], "unix:///run/redis.sock?db=0"),
        ([{"address": "redis://cache/1", "socket_timeout": 20}], "redis://cache:6379/1"),
        ([{"sentinels": [("a", 26379)], "master_name": "main"}], "redis+sentinel://a:26379/main/0"),
    ],
)
def test_every_way_to_name_a_server_is_understood(address: Any, hidden: str) -> None:
    host = one(address)
    assert host.hidden == hidden
    assert SECRET not in repr(host) and host.password in ("", SECRET)


def test_credentials_are_decoded() -> None:
    host = one("redis://us%3Aer:p%2F%23%3F%40ss@cache")
    assert (host.username, host.password) == ("us:er", "p/#?@ss")


def test_sentinels_may_have_a_password_of_their_own() -> None:
    in_url = one("redis+sentinel://:s3cr3t@a/main?sentinel_password=other")
    assert (in_url.password, in_url.sentinel_password) == (SECRET, "other")
    given = {"sentinels": [("a", 1)], "master_name": "main", "password": SECRET, "sentinel_kwargs": {"password": "x"}}
    assert (one([given]).password, one([given]).sentinel_password) == (SECRET, "x")


@pytest.mark.parametrize("separator", [" ", ",", ", ", "\n"])
def test_several_servers_may_stand_in_one_text(separator: str) -> None:
    hosts = parse_hosts(separator.join(["redis://a", "redis+sentinel://b,c/main", "redis://d"]))
    assert [len(host.nodes) for host in hosts] == [1, 2, 1]


def test_options_of_all_servers_yield_to_those_of_one() -> None:
    hosts = parse_hosts(["rediss://a", "rediss://b?ssl_cert_reqs=required", "redis://c"], {"ssl_cert_reqs": None})
    assert [dict(host.options).get("ssl_cert_reqs") for host in hosts] == ["none", "required", None]


@pytest.mark.parametrize(
    ("address", "word"),
    [
        ("localhost:6379", "write redis://"),
        ("http://user:s3cr3t@cache", "write redis://"),
        ("user:s3cr3t@cache", "write redis://"),
        ("redis://user:s3cr3t/x@cache", "%2F"),
        ("redis://user:s3cr3t#x@cache", "%23"),
        ("redis://user:s3cr3t?x@cache", "%3F"),
        ("redis://user:s3cr3t x/y@cache", "%2F"),
        ("redis://cache:99999", "between 1 and 65535"),
        ("redis://cache:port", "no usable host"),
        ("redis://a:1,b:2", "no usable host"),
        ("redis://cache/name", "database number"),
        ("redis://cache/1/2", "more than a database"),
        ("redis://cache?passwort=s3cr3t", "no option 'passwort'"),
        ("redis://cache?socket_timeout=s3cr3t", "number of seconds"),
        ("unix://run/redis.sock", "absolute path"),
        ("unix://", "write redis://"),
        ("redis+sentinel://a,b", "mymaster"),
        ("", "names no Redis server"),
        ([], "names no Redis server"),
        ([42], "type int"),
        ([("cache", "s3cr3t")], "between 1 and 65535"),
        ([{"sentinels": [("a", 1)]}], "master_name"),
        (["redis://:s3cr3t@a/1", "redis://:s3cr3t@a:6379/1"], "twice"),
    ],
)
def test_a_wrong_address_is_one_line_that_names_the_fix_and_no_password(address: Any, word: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        parse_hosts(address)
    text = str(refused.value)
    assert word in text
    assert SECRET not in text.replace("socket_timeout=s3cr3t", "").replace("passwort=s3cr3t", "") and "\n" not in text


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("redis://u:s3cr3t@h/0", "redis://***@h/0"),
        ("redis://:s3c r3t@h, redis://:x@g", "redis://***@h redis://***@g"),
        ("redis://h/0?password=s3cr3t&db=1", "redis://h/0?password=***&db=1"),
        ("redis+sentinel://h/m?sentinel_password=s3cr3t", "redis+sentinel://h/m?sentinel_password=***"),
        ("u:s3cr3t@h", "***@h"),
    ],
)
def test_credentials_are_hidden_even_in_what_does_not_parse(address: str, shown: str) -> None:
    assert hide(address) == shown


def test_the_address_of_a_platform_is_found_in_the_environment() -> None:
    assert platform_address({}) is None
    assert platform_address({"REDIS_URL": " "}) is None
    assert platform_address({"REDIS_URL": "redis://a", "REDIS_TLS_URL": "rediss://b"}) == "redis://a"
    assert platform_address({"REDIS_TLS_URL": "rediss://b", "REDISCLOUD_URL": "redis://c"}) == "rediss://b"


def test_self_signed_certificates_of_a_platform_are_accepted_on_request_only() -> None:
    heroku = {"REDIS_URL": "rediss://:p@ec2-1.compute.amazonaws.com:9999"}
    assert dict(one(platform_address(heroku)).options) == {}
    accepted = platform_address({**heroku, "REDIS_SSL_CERT_REQS": "none"})
    assert dict(one(accepted).options) == {"ssl_cert_reqs": "none"}
    own = {"REDIS_URL": "rediss://h?ssl_cert_reqs=required", "REDIS_SSL_CERT_REQS": "none"}
    assert dict(one(platform_address(own)).options) == {"ssl_cert_reqs": "required"}
    assert platform_address({"REDIS_URL": "redis://h", "REDIS_SSL_CERT_REQS": "none"}) == "redis://h"
