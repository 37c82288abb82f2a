"""One site on four hosts: Redis, an interface, two with workers. A host that is cut off, and comes back."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from websockets.sync.client import connect

from tests.support.clients import Browser, talking
from tests.support.hosts import Host, network
from tests.support.processes import copy_project
from tests.support.redis import server_program
from tests.support.waiting import wait_until

pytestmark = pytest.mark.slow
PORT, REDIS_PORT, CLAIM_AFTER = 8000, 6379, 3.0
LAYER = """
CHANNEL_LAYERS["default"] |= {{
    "BACKEND": "procman.layers.redis.RedisChannelLayer",
    "CONFIG": {{"hosts": ["redis://{address}:{port}/0"], "claim_after": {claim_after}}},
}}
ALLOWED_HOSTS = ["*"]
"""


@dataclass
class Hosts:
    """The hosts of a site that runs."""

    interface: Host
    workers: tuple[Host, Host]

    @property
    def url(self) -> str:
        return f"http://{self.interface.address}:{PORT}"

    @property
    def ws_url(self) -> str:
        return f"ws://{self.interface.address}:{PORT}"

    def both_take_work(self) -> bool:
        """Whether two workers have answered of twenty requests."""
        return len({Browser(self.url).get("/pid/", timeout=20).text for _ in range(20)}) == 2


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[Hosts]:
    directory = copy_project(tmp_path / "project")
    subprocess.run([sys.executable, "manage.py", "migrate", "-v0"], cwd=directory, check=True)
    program = server_program()
    us = (sys.executable, "-m", "procman")
    with network() as net:
        redis, interface, first, second = (net.add(number) for number in (2, 3, 4, 5))
        settings = directory / "mysite" / "settings.py"
        settings.write_text(
            settings.read_text() + LAYER.format(address=redis.address, port=REDIS_PORT, claim_after=CLAIM_AFTER)
        )
        redis.run(program, "--bind", redis.address, "--port", str(REDIS_PORT), "--protected-mode", "no", "--save", "",
                  directory=directory)  # fmt: skip
        wait_until(lambda: "Ready to accept connections" in redis.log, 20)
        interface.run(*us, "interface", "--bind", "0.0.0.0", "--port", str(PORT), directory=directory)
        for host in (first, second):
            host.run(*us, "worker", directory=directory)
        for host, line in ((interface, "interface ready"), (first, "worker ready"), (second, "worker ready")):
            wait_until(lambda host=host, line=line: line in host.log, 30, what=line)  # type: ignore[misc]
        yield Hosts(interface, (first, second))


def test_the_hosts_are_one_site(hosts: Hosts) -> None:
    assert Browser(hosts.url).get("/").text == "hello"
    with connect(f"{hosts.ws_url}/a/") as socket, connect(f"{hosts.ws_url}/b/") as other:
        socket.send("one")
        assert json.loads(socket.recv(10)) == {"echo": "one", "count": 1}
        assert Browser(hosts.url).get("/say/?text=hello").text == "said"
        assert socket.recv(10) == other.recv(10) == "hello"
    wait_until(hosts.both_take_work, 30)


def test_a_host_with_workers_that_is_cut_off_loses_nothing_and_works_again_when_it_is_back(hosts: Hosts) -> None:
    wait_until(hosts.both_take_work, 30)
    lost = hosts.workers[0]
    with talking(hosts.ws_url, 20) as talkers:
        for _ in range(10):
            talkers.talk_on(100)
            lost.cut_off()
            began = time.monotonic()
            # What it had taken goes to the other one when its lease has ended; the rest does not wait for that.
            talkers.talk_on(100, timeout=60)
            taken = time.monotonic() - began
            assert Browser(hosts.url).get("/", timeout=60).text == "hello"
            lost.bring_back()
            talkers.talk_on(100, timeout=60)
            wait_until(hosts.both_take_work, 60)
            if taken > CLAIM_AFTER / 2:  # it had taken something in that moment
                break
        else:
            raise AssertionError("the host was never cut off while it worked")
        talkers.finish(60)
        talkers.assert_answered()


def test_the_host_of_the_interface_is_cut_off_for_a_moment_and_its_sockets_stay(hosts: Hosts) -> None:
    with talking(hosts.ws_url, 10) as talkers:
        talkers.talk_on(100)
        hosts.interface.cut_off()
        with pytest.raises(OSError):
            Browser(hosts.url).get("/", timeout=2)
        hosts.interface.bring_back()
        talkers.talk_on(100, timeout=60)
        talkers.finish(60)
        talkers.assert_answered()
    assert Browser(hosts.url).get("/").text == "hello"
