import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MANAGE = 'import os\nos.environ.setdefault("DJANGO_SETTINGS_MODULE", "mysite.settings")\n'


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A directory that looks like a Django project."""
    (tmp_path / "mysite").mkdir()
    (tmp_path / "mysite" / "__init__.py").touch()
    (tmp_path / "mysite" / "settings.py").write_text(
        "SECRET_KEY = 'x'\nROOT_URLCONF = 'mysite.urls'\nINSTALLED_APPS = ['procman.channels']\n"
    )
    (tmp_path / "mysite" / "urls.py").write_text("urlpatterns = []\n")
    (tmp_path / "manage.py").write_text(MANAGE)
    return tmp_path


def channels_run(directory: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    drop = ("PORT", "WEB_CONCURRENCY", "DJANGO_SETTINGS_MODULE", "PROCMAN_LAYER")
    clean = {name: value for name, value in os.environ.items() if name not in drop}
    return subprocess.run(
        [sys.executable, "-m", "procman", *arguments],
        cwd=directory, env=clean | {"PYTHONPATH": str(ROOT)} | environ, capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip


def error_of(done: subprocess.CompletedProcess[str], status: int = 2) -> str:
    """The one line that it says, without its beginning."""
    assert done.returncode == status, done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == 1 and lines[0].startswith("channels-run: error: "), done.stderr
    return lines[0].removeprefix("channels-run: error: ")


pytestmark = pytest.mark.slow


def test_a_directory_without_a_project(tmp_path: Path) -> None:
    text = error_of(channels_run(tmp_path))
    assert text.startswith("no manage.py here and DJANGO_SETTINGS_MODULE is not set: run channels-run in the directory")
    assert text.endswith("or give --settings mysite.settings")


def test_settings_that_do_not_exist(tmp_path: Path) -> None:
    assert "there is no settings module 'no.such'" in error_of(channels_run(tmp_path, "--settings", "no.such"))


def test_a_port_in_use(project: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert error_of(channels_run(project, "--port", str(port))) == (
            f"port {port} on 127.0.0.1 is in use: stop the other program or choose another with --port"
        )


def test_a_memory_layer(project: Path) -> None:
    assert "within one process" in error_of(channels_run(project, "--layer", "memory://"))
    assert "within one process" in error_of(channels_run(project, PROCMAN_LAYER="memory://"))


def test_a_redis_layer_has_no_process_of_its_own(project: Path) -> None:
    text = error_of(channels_run(project, "layer", "--layer", "redis://localhost:6379/0"))
    assert text == "the Redis layer has no process of its own: start a Redis or Valkey server"


def test_a_redis_address_that_is_wrong_is_refused_without_its_password(project: Path) -> None:
    text = error_of(channels_run(project, "--layer", "redis://:geheim@host:99999/0"))
    assert "port between 1 and 65535" in text and "geheim" not in text


def test_a_layer_address_that_is_not_understood(project: Path) -> None:
    assert "is not understood" in error_of(channels_run(project, "--layer", "http://x"))
    assert "absolute path" in error_of(channels_run(project, "--layer", "ipc://x.sock"))


def test_a_layer_in_a_directory_that_does_not_exist(project: Path) -> None:
    text = error_of(channels_run(project, "--port", "0", "--layer", "ipc:///tmp/no-such-directory/x.sock"))
    assert "/tmp/no-such-directory" in text and "No such file or directory" in text


def test_a_layer_of_its_own_is_not_robbed_of_its_socket(project: Path, tmp_path: Path) -> None:
    path = tmp_path / "layer.sock"
    with socket.socket(socket.AF_UNIX) as hub:
        hub.bind(str(path))
        hub.listen()
        text = error_of(channels_run(project, "--port", "0", "--layer", f"ipc://{path}"))
        assert f"another process listens at {path}" in text
        assert path.is_socket() and not path.with_suffix(".lock").exists()


def test_an_address_of_another_machine(project: Path) -> None:
    assert "--bind" in error_of(channels_run(project, "--bind", "192.0.2.1", "--port", "0"))


def test_a_layer_address_in_the_environment_that_is_none(project: Path) -> None:
    assert "PROCMAN_LAYER: layer address 'garbage'" in error_of(channels_run(project, PROCMAN_LAYER="garbage"))


def test_a_number_in_the_environment_that_is_none(project: Path) -> None:
    assert "PORT is 'many'" in error_of(channels_run(project, PORT="many"))
    assert "WEB_CONCURRENCY is 'many'" in error_of(channels_run(project, WEB_CONCURRENCY="many"))
    assert "WEB_CONCURRENCY is 0" in error_of(channels_run(project, WEB_CONCURRENCY="0"))


def test_the_reason_of_settings_that_do_not_import_is_said_in_one_line(project: Path) -> None:
    (project / "mysite" / "settings.py").write_text("import no_such_library\n")
    text = error_of(channels_run(project, "--port", "0"))
    assert "mysite.settings" in text and "no_such_library" in text


def test_closed_standard_streams_are_no_trap(project: Path) -> None:
    code = "import os, sys; os.closerange(0, 3); os.execv(sys.executable, [sys.executable, '-m', 'procman', 'status'])"
    environ = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], cwd=project, env=environ, timeout=30, check=False)
    assert done.returncode == 3


def test_flags_out_of_range_are_usage_errors(project: Path) -> None:
    for flags in (["--workers", "0"], ["--port", "70000"], ["--write-limit", "1"], ["--threads", "x"]):
        done = channels_run(project, *flags)
        assert done.returncode == 2 and flags[0] in done.stderr and "Traceback" not in done.stderr


def test_a_site_starts_says_where_it_is_and_stops(project: Path, tmp_path: Path) -> None:
    environ = os.environ | {"PYTHONPATH": str(ROOT), "PROCMAN_LAYER": f"ipc://{tmp_path}/layer.sock"}
    command = [sys.executable, "-m", "procman", "--port", "0", "--workers", "1", "--no-access-log"]
    process = subprocess.Popen(command, cwd=project, env=environ, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        seen = ""
        for line in process.stdout:
            seen += line
            if "ready: http" in line:
                break
        assert "(1 worker, ipc layer)" in seen, seen
        port = int(seen.rpartition("127.0.0.1:")[2].split("/")[0])
        with socket.create_connection(("127.0.0.1", port), 5):
            pass
        found = channels_run(project, "status", "--json", PROCMAN_LAYER=environ["PROCMAN_LAYER"])
        status = json.loads(found.stdout)
        assert status["control"] == f"{tmp_path}/layer.control"
        assert [p["name"] for p in status["processes"]] == ["layer", "interface.1", "preloader", "worker.1"]
        table = channels_run(project, "status", PROCMAN_LAYER=environ["PROCMAN_LAYER"]).stdout
        assert table.split()[:4] == ["name", "pid", "state", "uptime"] and "interface.1" in table
        second = channels_run(project, "--port", "0", PROCMAN_LAYER=environ["PROCMAN_LAYER"])
        assert f"already running (pid {process.pid})" in error_of(second)
        third = channels_run(project, "--port", str(port), PROCMAN_LAYER=environ["PROCMAN_LAYER"])
        assert f"already running (pid {process.pid})" in error_of(third)
        # Whoever was refused has not taken the socket away.
        assert Path(f"{tmp_path}/layer.sock").is_socket()
    finally:
        process.send_signal(signal.SIGTERM)
        rest = process.stdout.read()
        process.stdout.close()
        assert process.wait(20) == 0, rest
    assert not list(tmp_path.glob("layer.*"))
