"""The development server's command: what it builds its server from, and what it refuses."""

import contextlib
import io
import logging
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.core.management.commands import runserver as django_runserver
from django.core.servers.basehttp import WSGIServer
from django.test import override_settings
from django.utils import autoreload

from procman.channels import development
from procman.channels.asgi import channel_layers
from procman.channels.handler import ViewConsumer
from procman.channels.management.commands._server import Server
from procman.channels.management.commands.runserver import Command
from procman.channels.staticfiles import StaticFilesConsumer
from tests.support.processes import free_port

IPC = {"default": {"BACKEND": "procman.layers.ipc.IPCChannelLayer", "ROUTING": []}}


class RecordingServer:
    """What the command makes its server with."""

    made: list[dict[str, Any]] = []

    def __init__(self, **keywords: Any) -> None:
        self.made.append(keywords)

    def run(self, on_ready: Callable[[], None]) -> None:
        """End at once."""
        on_ready()

    def stop(self) -> None:
        """Nothing runs."""


class RecordingWorkers:
    """How many worker threads the command asked for."""

    asked: list[int] = []

    def __init__(self, channel_layer: Any, count: int) -> None:
        self.asked.append(count)

    def start(self) -> None:
        """None is started."""

    def stop(self, timeout: float) -> None:
        """None was started."""


@pytest.fixture(autouse=True)
def recorded(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No server and no threads; no look at migrations, which would need a database."""
    monkeypatch.setattr(Command, "server_cls", RecordingServer)
    monkeypatch.setattr(Command, "check_migrations", lambda self: None)
    monkeypatch.setattr(development, "WorkerThreads", RecordingWorkers)
    RecordingServer.made, RecordingWorkers.asked = [], []
    yield
    logging.getLogger("django.channels").handlers.clear()


def runserver(*arguments: str) -> str:
    out = io.StringIO()
    call_command("runserver", "--noreload", "--skip-checks", *arguments, stdout=out)
    return out.getvalue()


def test_the_server_is_made_with_the_keywords_of_1x():
    out = runserver()
    (made,) = RecordingServer.made
    assert made.pop("channel_layer").alias == "default"
    assert callable(made.pop("action_logger"))
    assert made == {
        "endpoints": ["tcp:port=8000:interface=127.0.0.1"],
        "signal_handlers": True,
        "http_timeout": 60,
        "ws_protocols": None,
        "root_path": "",
        "websocket_handshake_timeout": 5,
    }
    assert "Starting Channels development server at http://127.0.0.1:8000/" in out
    assert RecordingWorkers.asked == [4]


@override_settings(FORCE_SCRIPT_NAME="/site", CHANNELS_WS_PROTOCOLS=["a"])
def test_options_and_settings_reach_the_server():
    runserver("localhost:8001", "--http_timeout", "7", "--websocket_handshake_timeout", "3", "--nothreading")
    (made,) = RecordingServer.made
    assert made["endpoints"] == ["tcp:port=8001:interface=localhost"]
    assert (made["http_timeout"], made["websocket_handshake_timeout"], made["root_path"]) == (7, 3, "/site")
    assert made["ws_protocols"] == ["a"]
    assert RecordingWorkers.asked == [1]


def test_without_workers_a_layer_of_this_process_is_refused():
    with pytest.raises(CommandError, match="--noworker"):
        runserver("--noworker")
    assert RecordingWorkers.asked == RecordingServer.made == []


@pytest.mark.parametrize(
    "action", [("http", "complete"), ("websocket", "connected"), ("websocket", "disconnected"), ("x", "unknown")]
)
def test_actions_are_logged_to_stderr(action: tuple[str, str], capsys: pytest.CaptureFixture[str]):
    details = {"method": "GET", "path": "/a-path/", "status": 200, "time_taken": 0.12, "client": "a-client"}
    Command().log_action(*action, details)
    assert capsys.readouterr().err.rstrip().endswith(development.action_line(*action, details))


@pytest.mark.parametrize(
    ("debug", "options", "kind"),
    [
        (True, {}, StaticFilesConsumer),
        (True, {"use_static_handler": False}, ViewConsumer),
        (False, {}, ViewConsumer),
        (False, {"insecure_serving": True}, StaticFilesConsumer),
    ],
)
def test_static_files_are_served_where_django_serves_them(debug: bool, options: dict[str, bool], kind: type):
    with override_settings(DEBUG=debug, STATIC_URL="/static/"):
        assert type(Command().get_consumer(**options)) is kind


def test_an_endpoint_that_is_taken_is_named_in_the_error(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "tests.settings")
    port = free_port()
    with socket.create_server(("127.0.0.1", port)):
        monkeypatch.setattr(Command, "server_cls", Server)
        with pytest.raises(CommandError, match=f"127.0.0.1:{port} cannot be listened on"):
            runserver(f"{port}")


def test_below_the_reloader_the_server_of_a_subclass_has_no_signal_handlers(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(autoreload, "run_with_reloader", lambda main, **options: main(**options))
    call_command("runserver", "--skip-checks", stdout=io.StringIO())
    (made,) = RecordingServer.made
    assert made["signal_handlers"] is False


@pytest.mark.parametrize(
    ("layers", "arguments"), [({}, []), ({"other": {"BACKEND": "x", "ROUTING": []}}, []), (None, ["--noasgi"])]
)
def test_without_a_default_layer_and_with_noasgi_djangos_own_server_runs(
    layers: Any, arguments: list[str], monkeypatch: pytest.MonkeyPatch
):
    ran: list[Any] = []
    monkeypatch.setattr(django_runserver, "run", lambda *facts, **options: ran.append(options["server_cls"]))
    changed = override_settings(CHANNEL_LAYERS=layers) if layers is not None else contextlib.nullcontext()
    with changed:
        runserver(*arguments)
    assert ran == [WSGIServer] and RecordingServer.made == RecordingWorkers.asked == []


@pytest.mark.parametrize(
    ("given", "endpoint", "shown"),
    [
        ("0:8002", "tcp:port=8002:interface=0", "http://0.0.0.0:8002/"),
        ("[::1]:8002", "tcp:port=8002:interface=::1", "http://[::1]:8002/"),
    ],
)
def test_addresses_are_shown_as_a_browser_takes_them(given: str, endpoint: str, shown: str):
    out = runserver(given)
    assert RecordingServer.made[0]["endpoints"] == [endpoint] and f"at {shown}" in out


@pytest.mark.parametrize(
    ("endpoint", "family"), [("tcp:port=0:interface=0", socket.AF_INET), ("tcp:port=0:interface=::1", socket.AF_INET6)]
)
def test_endpoints_are_listened_on(endpoint: str, family: int):
    wrapper = channel_layers["default"]
    (listening,) = Server(channel_layer=wrapper, endpoints=[endpoint]).listen()
    with listening:
        assert listening.family == family
    with pytest.raises(ValueError, match="is not understood"):
        Server(channel_layer=wrapper, endpoints=["unix:/x"]).listen()


def test_the_warning_about_production_can_be_hidden_as_djangos(monkeypatch: pytest.MonkeyPatch):
    assert "WARNING: This is a development server" in runserver()
    monkeypatch.setenv("DJANGO_RUNSERVER_HIDE_WARNING", "true")
    assert "WARNING" not in runserver()
