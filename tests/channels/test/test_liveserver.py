"""The live server, in projects with a database in a file (run by Django's runner) and with one in memory."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from django.test import override_settings

from procman.channels.test import ChannelLiveServerTestCase
from tests.channels.test.test_base import run_test

ROOT = Path(__file__).parents[3]


@pytest.mark.slow
def test_cases_of_a_project_pass_in_djangos_runner(tmp_path: Path) -> None:
    environ = {**os.environ, "DJANGO_SETTINGS_MODULE": "tests.channels.test.live.settings", "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-m", "django", "test", "tests.channels.test.live.cases"],
        env={**environ, "LIVE_DIRECTORY": str(tmp_path)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert int(re.findall(r"Ran (\d+) tests", ended.stderr)[0]) >= 12
    assert not (tmp_path / "test.sqlite3").exists()


@pytest.mark.usefixtures("_migrated")
def test_database_in_memory_is_refused_with_what_to_do() -> None:
    class InMemory(ChannelLiveServerTestCase):
        def test(self) -> None: ...

    ((_, text),) = run_test(InMemory).errors
    assert "ImproperlyConfigured: InMemory cannot use the database 'default', which is in memory" in text
    assert "DATABASES['default']['TEST']" in text


def test_several_layers_are_refused_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    class Two(ChannelLiveServerTestCase):
        def test(self) -> None: ...

    monkeypatch.setattr("procman.channels.test.liveserver.connections.all", list)
    with override_settings(CHANNEL_LAYERS={"default": {}, "second": {}}):
        ((_, text),) = run_test(Two).errors
    assert "Two serves one channel layer, and CHANNEL_LAYERS has 2" in text
