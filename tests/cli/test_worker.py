import sys
import types
from typing import Any

import pytest
from click.testing import CliRunner

from procman.cli import cli, worker
from procman.settings import ENV_LAYER, WorkerSettings


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What the worker's entry point is called with."""
    calls: list[tuple[Any, ...]] = []
    module = types.ModuleType("procman.channels.worker")
    module.run_worker = lambda *arguments: calls.append(arguments) or 7  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "procman.channels.worker", module)
    monkeypatch.setattr("procman.cli.project.enter_project", lambda settings: "mysite.settings")
    monkeypatch.setattr("procman.log.setup_logging", lambda: None)
    monkeypatch.setenv(ENV_LAYER, "ipc:///before.sock")
    return calls


def test_flags_reach_the_worker_and_its_status_is_the_commands(started: list[tuple[Any, ...]]) -> None:
    words = ["worker", "--threads", "3", "--only-channels", "http.*", "--only-channels", "a", "--exclude-channels", "b"]
    assert CliRunner().invoke(cli, words).exit_code == 7
    assert started == [(WorkerSettings(threads=3), ("http.*", "a"), ("b",))]


def test_a_layer_that_is_given_replaces_that_of_the_environment(
    started: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert CliRunner().invoke(cli, ["worker", "--layer", "/given.sock"]).exit_code == 7
    assert worker.os.environ[ENV_LAYER] == "ipc:///given.sock"
    assert started == [(WorkerSettings(), (), ())]
