"""The process that keeps the sockets, with children that are small programs, and what they tell it."""

import json
import os
import socket
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from procman.channels.keeper import Keeper, Kept, watched_files
from procman.layers.ipc.embedded import HubThread
from procman.settings import ENV_KEEPER_FD, ProjectConfiguration
from tests.support.waiting import wait_until

# A child: tells its keeper what FILE holds, and ends with the status that its name says; the file is for one life.
CHILD = """
import os, pathlib, signal, socket, sys
lives = sorted(pathlib.Path(sys.argv[1]).iterdir())
life = lives[0]
said = life.read_bytes()
life.unlink()
link = socket.socket(fileno=int(os.environ["PROCMAN_KEEPER_FD"]))
link.sendall(said)
status = int(life.name.partition("_")[2])
if status < 0:
    os.kill(os.getpid(), -status)
sys.exit(status)
"""
READY = '{{"project": {{"settings_module": "m", "layer": {layer!r}, "debug": {debug}}}, "root_path": {root!r}}}\n'


def ready(layer: str, debug: bool = False, root: str = "") -> str:
    return READY.format(layer=layer, debug=str(debug).lower(), root=root).replace("'", '"')


class RecordingServer:
    """What the keeper asks of its server, in *calls*."""

    def __init__(self, calls: list[Any], root_path: str) -> None:
        self.calls, self.root_path, self.runs = calls, root_path, False

    def start(self, project: ProjectConfiguration, sockets: Sequence[socket.socket]) -> None:
        self.runs = True
        self.calls.append(("start", project.layer.rpartition("/")[2], self.root_path))

    def update(self, project: ProjectConfiguration) -> None:
        self.calls.append(("update", project.debug))

    def show(self, title: str, text: str) -> None:
        self.calls.append(("show", text))

    def is_running(self) -> bool:
        return self.runs

    def stop(self) -> None:
        self.runs = False
        self.calls.append(("stop",))


class Kitchen:
    """A keeper whose children do what the test writes down for each life."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.lives = directory / "lives"
        self.lives.mkdir()
        self.layer = f"ipc://{directory}/a.sock"
        self.calls: list[Any] = []
        self.told: list[str] = []

    def live(self, status: int, said: str = "") -> None:
        """The next child says *said* and ends with *status*."""
        (self.lives / f"{len(list(self.lives.iterdir()))}_{status}").write_text(said)

    def run(self, layer: str | None = None) -> int:
        keeper = Keeper(
            ProjectConfiguration("m", layer or self.layer),
            "",
            lambda project, root_path: RecordingServer(self.calls, root_path),
            [],
            self.told.append,
            f"ipc://{self.directory}/private.sock",
            self.directory,
        )
        return keeper.run([sys.executable, "-c", CHILD, str(self.lives)], dict(os.environ))


@pytest.fixture
def kitchen(tmp_path: Path) -> Kitchen:
    return Kitchen(tmp_path)


def test_a_child_that_asks_for_a_reload_is_followed_by_another_and_the_server_goes_on(kitchen: Kitchen) -> None:
    kitchen.live(3, ready(kitchen.layer))
    kitchen.live(3, '{"broken": "SyntaxError"}\n')
    kitchen.live(0, ready(kitchen.layer, debug=True))
    assert kitchen.run() == 0
    assert kitchen.calls == [
        ("start", "a.sock", ""),
        ("update", False),
        ("show", ""),
        ("show", "SyntaxError"),
        ("update", True),
        ("show", ""),
        ("stop",),
    ]
    assert HubThread(kitchen.layer).is_needed() and kitchen.told == []


def test_another_layer_or_root_path_needs_another_server(kitchen: Kitchen) -> None:
    other = f"ipc://{kitchen.directory}/b.sock"
    kitchen.live(3, ready(other))
    kitchen.live(0, ready(other, root="/below"))
    assert kitchen.run() == 0
    started = [call[1:] for call in kitchen.calls if call[0] == "start"]
    assert started == [("a.sock", ""), ("b.sock", ""), ("b.sock", "/below")]
    assert len(kitchen.told) == 2


def test_a_layer_in_memory_is_served_at_the_private_address(kitchen: Kitchen) -> None:
    kitchen.live(0, ready("memory://"))
    assert kitchen.run("memory://") == 0
    assert kitchen.calls[0] == ("start", "private.sock", "") and ("update", False) in kitchen.calls


def test_a_hub_that_runs_already_is_used_and_left_alone(kitchen: Kitchen) -> None:
    hub = HubThread(kitchen.layer)
    hub.start()
    try:
        kitchen.live(0)
        assert kitchen.run() == 0
        assert not hub.is_needed()
    finally:
        hub.stop()


def test_a_child_that_ran_and_was_killed_is_started_again(kitchen: Kitchen) -> None:
    kitchen.live(-9, ready(kitchen.layer))
    kitchen.live(5, ready(kitchen.layer))
    assert kitchen.run() == 5
    assert kitchen.told == ["The process that runs the code was ended by signal 9 (SIGKILL); starting it again."]


def test_a_child_that_dies_before_it_runs_ends_everything(kitchen: Kitchen) -> None:
    kitchen.live(-9)
    assert kitchen.run() == -9


def test_settings_that_do_not_load_any_more_are_waited_for(kitchen: Kitchen) -> None:
    kitchen.live(3, ready(kitchen.layer))
    kitchen.live(1)
    status: list[int] = []
    keeping = threading.Thread(target=lambda: status.append(kitchen.run()))
    keeping.start()
    wait_until(lambda: kitchen.told)
    kitchen.live(0)
    (kitchen.directory / "settings.py").touch()
    keeping.join(20)
    assert status == [0] and [call[0] for call in kitchen.calls].count("start") == 1
    assert "open connections are kept" in kitchen.told[0]


def test_settings_that_cannot_be_served_are_told_and_the_next_child_is_waited_for(kitchen: Kitchen) -> None:
    kitchen.live(3, ready(f"ipc://{kitchen.directory}/{'x' * 200}.sock"))
    kitchen.live(0)
    assert kitchen.run() == 0
    assert len(kitchen.told) == 2 and "Start runserver again" in kitchen.told[1]


def test_a_process_without_a_keeper_has_no_link(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ENV_KEEPER_FD, raising=False)
    assert Kept.inherited() is None


def heard(error: BaseException) -> str:
    """What a keeper shows of *error*."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        sender = threading.Thread(target=Kept(theirs, "").broken, args=(error,))
        sender.start()
        with ours.makefile() as lines:
            text: str = json.loads(lines.readline())["broken"]
        sender.join(10)
    return text


def test_what_was_raised_comes_first_and_then_the_traceback(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError) as divided:
        _ = 1 // 0
    lines = heard(divided.value).splitlines()
    assert lines[0].startswith(f'  File "{__file__}"') and "ZeroDivisionError: integer" in lines[2] + lines[3]
    assert "Traceback (most recent call last):" in lines
    with pytest.raises(SyntaxError) as refused:
        compile("def x(:", str(tmp_path / "broken.py"), "exec")
    assert heard(refused.value).startswith(f'  File "{tmp_path}/broken.py", line 1')


def test_what_a_child_says_has_a_bounded_length() -> None:
    assert len(heard(ValueError("x\n" * 50_000))) < 50_000


def test_a_keeper_that_has_gone_is_no_error_for_its_child() -> None:
    ours, theirs = socket.socketpair()
    ours.close()
    with theirs:
        Kept(theirs, "").broken(ValueError("nobody hears"))


def test_the_files_of_an_error_and_of_its_causes_are_watched(tmp_path: Path) -> None:
    broken = tmp_path / "broken.py"
    broken.write_text("def x(:\n")

    def load() -> None:
        try:
            compile(broken.read_text(), str(broken), "exec")
        except SyntaxError as error:
            raise ValueError("wrapped") from error

    with pytest.raises(ValueError, match="wrapped") as caught:
        load()
    assert {broken, Path(__file__)} <= watched_files(caught.value)
