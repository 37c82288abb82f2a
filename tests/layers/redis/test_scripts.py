import hashlib

import pytest

from procman.layers.redis.scripts import load
from tests.support.redis import RedisServer


@pytest.mark.parametrize("version", [(5, 0), (7, 2, 4)])
def test_a_script_is_known_by_the_digest_of_its_text(version: tuple[int, ...]) -> None:
    for script in load(version).values():
        assert script.digest == hashlib.sha1(script.text.encode()).hexdigest()


def test_the_server_takes_every_script(shared_redis: RedisServer) -> None:
    version = tuple(int(part) for part in str(shared_redis.client.info("server")["redis_version"]).split("."))
    for script in load(version).values():
        assert shared_redis.client.script_load(script.text) == script.digest


def test_only_a_server_that_knows_flags_is_given_them() -> None:
    assert not load((6, 2))["send"].text.startswith("#!")
    assert load((7,))["send"].text.startswith("#!lua\n")
    assert load((7,))["finish"].text.startswith("#!lua flags=allow-oom\n")
