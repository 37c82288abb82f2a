"""manage.py rundelay: what it refuses, and two of them as real processes on one SQLite file."""

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.test import override_settings

from procman.channels.asgi import ChannelLayerWrapper
from procman.channels.delay import worker
from procman.layers.ipc import IPCChannelLayer
from tests.support.layers import HubProcess

ROOT = Path(__file__).parents[3]
TIMEOUT = 30
TABLE = "procman_channels_delay_delayedmessage"


class FakeWorker:
    made: list[dict[str, Any]] = []

    def __init__(self, **keywords: Any) -> None:
        self.made.append(keywords)

    def run(self) -> None:
        self.made.append({"ran": True})


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    monkeypatch.setattr(worker, "Worker", FakeWorker)
    FakeWorker.made.clear()
    return FakeWorker.made


def test_the_server_gets_the_layer_and_how_long_to_sleep(
    made: list[dict[str, Any]], wrapper: ChannelLayerWrapper
) -> None:
    call_command("rundelay")
    call_command("rundelay", "--layer=default", "--sleep=0.5")
    ran = {"ran": True}
    first = {"channel_layer": wrapper, "database_sleep_duration": 1}
    assert made == [first, ran, first | {"database_sleep_duration": 0.5}, ran]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [(["--layer=nowhere"], "'nowhere'"), (["--sleep=0"], "above 0"), (["--sleep=-1"], "above 0"), ([], "in memory")],
)
def test_what_cannot_work_is_refused_in_words(made: list[dict[str, Any]], arguments: list[str], reason: str) -> None:
    with pytest.raises(CommandError, match=reason):
        call_command("rundelay", *arguments)
    assert made == []


def test_the_app_must_be_installed(made: list[dict[str, Any]], wrapper: ChannelLayerWrapper) -> None:
    from procman.channels.delay.management.commands.rundelay import Command

    with override_settings(INSTALLED_APPS=["procman.channels"]):
        with pytest.raises(CommandError, match=r"'procman\.channels\.delay' to INSTALLED_APPS"):
            call_command(Command())
    assert made == []


class DelaySite:
    """A hub, a database with the table in it, and delay servers."""

    def __init__(self, directory: Path, hub: HubProcess) -> None:
        self.database = directory / "db.sqlite3"
        self.layer = IPCChannelLayer(address=hub.address, capacity=1000)
        self.environ = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "DJANGO_SETTINGS_MODULE": "tests.channels.delay.site",
            "DELAY_DATABASE": str(self.database),
            "DELAY_LAYER": hub.address,
        }
        self.servers: list[subprocess.Popen[str]] = []
        self.django("migrate", "-v0", "procman_channels_delay")

    def django(self, *arguments: str) -> None:
        subprocess.run([sys.executable, "-m", "django", *arguments], env=self.environ, check=True, timeout=TIMEOUT)

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        """One more server, once it listens."""
        command = [sys.executable, "-W", "error", "-m", "django", "rundelay", *arguments]
        server = subprocess.Popen(command, env=self.environ, stderr=subprocess.PIPE, text=True)
        self.servers.append(server)
        assert server.stderr is not None
        for line in server.stderr:
            if "Listening on asgi.delay" in line:
                return server
        raise AssertionError("rundelay ended before it listened")

    def store_due(self, count: int) -> None:
        with contextlib.closing(sqlite3.connect(self.database)) as connection, connection:
            connection.executemany(
                f"INSERT INTO {TABLE} (due_date, channel_name, content) VALUES ('2020-01-01 00:00:00', 'out', ?)",
                [(f'{{"n": {number}}}',) for number in range(count)],
            )

    def rows(self) -> int:
        with contextlib.closing(sqlite3.connect(self.database)) as connection:
            return int(connection.execute(f"SELECT COUNT(*) FROM {TABLE}").fetchone()[0])

    def receive(self) -> Any:
        """The next message on ``out``."""
        _, content = self.layer.receive_many(["out"], block=True, timeout=TIMEOUT)
        assert content is not None
        return content


@pytest.fixture
def site(tmp_path: Path) -> Iterator[DelaySite]:
    with tempfile.TemporaryDirectory(prefix="procman-delay-") as directory:
        hub = HubProcess(directory).start()
        site = DelaySite(tmp_path, hub)
        try:
            yield site
        finally:
            for server in site.servers:
                if server.poll() is None:
                    server.kill()
                server.communicate()
            hub.close()


@pytest.mark.slow
def test_two_servers_on_one_sqlite_file_send_every_message_once_and_stop_gracefully(site: DelaySite) -> None:
    servers = [site.start("--sleep=0.05") for _ in range(2)]
    count = 150
    site.store_due(count)
    assert sorted(site.receive()["n"] for _ in range(count)) == list(range(count))
    # Sent by one of the two on the dot, although neither would look at the database by itself for long.
    site.layer.send("asgi.delay", {"channel": "out", "delay": 100, "content": {"n": "later"}})
    assert site.receive() == {"n": "later"}
    for server, signo in zip(servers, (signal.SIGTERM, signal.SIGINT), strict=True):
        server.send_signal(signo)
    for server in servers:
        _, rest = server.communicate(timeout=TIMEOUT)
        assert (server.returncode, rest) == (0, "")
    assert site.rows() == 0
    assert site.layer.receive_many(["out"]) == (None, None)


@pytest.mark.slow
def test_message_is_sent_when_it_is_due_however_long_the_server_may_sleep(site: DelaySite) -> None:
    site.start("--sleep=3600")
    site.layer.send("asgi.delay", {"channel": "out", "delay": 300, "content": {"n": 1}})
    assert site.receive() == {"n": 1}


@pytest.mark.slow
def test_messages_of_a_server_that_was_killed_are_stored_by_the_next_one(site: DelaySite) -> None:
    first = site.start()
    first.send_signal(signal.SIGSTOP)
    site.layer.send("asgi.delay", {"channel": "out", "delay": 0, "content": {"n": 1}})
    site.start()
    first.kill()
    assert site.receive() == {"n": 1}
    assert site.layer.receive_many(["out"]) == (None, None)
