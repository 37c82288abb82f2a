"""What a user sees who makes a mistake, and what the formation looks like from outside."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import procman
from tests.support.processes import Site, copy_project, descendants, is_alive, running_site
from tests.support.waiting import wait_until


def channels_run(directory: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run to its end."""
    clean = {k: v for k, v in os.environ.items() if k not in ("PORT", "WEB_CONCURRENCY", "DJANGO_SETTINGS_MODULE")}
    return subprocess.run(
        [sys.executable, "-m", "procman", *arguments],
        cwd=directory, env=clean | environ, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def assert_one_line_error(done: subprocess.CompletedProcess[str], *parts: str) -> None:
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert "Traceback" not in done.stderr
    for part in parts:
        assert part in done.stderr, done.stderr


def test_no_manage_py(tmp_path: Path) -> None:
    assert_one_line_error(channels_run(tmp_path), "manage.py", "--settings")


def test_settings_that_do_not_exist(tmp_path: Path) -> None:
    assert_one_line_error(channels_run(tmp_path, "--port", "0", "--settings", "no.such"), "no")


def test_settings_that_do_not_import(tmp_path: Path) -> None:
    project = copy_project(tmp_path / "project")
    (project / "mysite" / "settings.py").write_text("import no_such_library\n")
    assert_one_line_error(channels_run(project, "--port", "0"), "mysite.settings", "no_such_library")


def test_settings_with_a_syntax_error(tmp_path: Path) -> None:
    project = copy_project(tmp_path / "project")
    (project / "mysite" / "settings.py").write_text("x = = 1\n")
    assert_one_line_error(channels_run(project, "--port", "0"), "settings.py")


def test_routing_that_does_not_import(tmp_path: Path) -> None:
    project = copy_project(tmp_path / "project")
    (project / "mysite" / "routing.py").write_text("from mysite import no_such_module\n")
    assert_one_line_error(channels_run(project, "--port", "0"), "mysite.routing", "no_such_module")


def test_a_port_in_use(tmp_path: Path) -> None:
    project = copy_project(tmp_path / "project")
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        assert_one_line_error(channels_run(project, "--port", port), port, "--port")


def test_a_number_out_of_range(tmp_path: Path) -> None:
    done = channels_run(copy_project(tmp_path / "project"), "--workers", "0")
    assert done.returncode == 2
    assert "--workers" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_second_one_for_the_same_project(site: Site) -> None:
    assert_one_line_error(channels_run(site.directory, "--port", "0"), "already running")


def test_version(tmp_path: Path) -> None:
    assert procman.__version__ in channels_run(tmp_path, "--version").stdout


def test_status_names_every_process(site: Site) -> None:
    for name in ("layer", "interface.1", "worker.1", "worker.2"):
        site.pid_of(name)
    status = json.loads(channels_run(site.directory, "status", "--json").stdout)
    assert Path(status["control"]).is_socket()
    assert {p["name"]: p["type"] for p in status["processes"]} == {
        "layer": "layer", "interface.1": "interface", "preloader": "preloader", "worker.1": "worker",
        "worker.2": "worker",
    }  # fmt: skip
    assert all(p["state"] == "RUNNING" and is_alive(p["pid"]) and p["uptime"] >= 0 for p in status["processes"])
    table = channels_run(site.directory, "status").stdout
    assert "worker.2" in table and "RUNNING" in table


def test_status_of_nothing_says_so(tmp_path: Path) -> None:
    done = channels_run(copy_project(tmp_path / "project"), "status")
    assert done.returncode != 0
    assert "not running" in done.stderr


def test_the_address_can_be_printed_without_running_anything(site: Site) -> None:
    address = channels_run(site.directory, "layer", "--print-address").stdout.strip()
    path = Path(address.removeprefix("ipc://"))
    assert path.is_socket()
    assert path.stat().st_mode & 0o077 == 0
    assert path.parent.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_is_graceful_quick_and_leaves_nothing(project: Path, tmp_path: Path, how: signal.Signals) -> None:
    with running_site(project, "--workers", "2", "--layer", f"ipc://{tmp_path}/l.sock") as site:
        below = descendants(site.pid)
        assert site.process is not None
        site.process.send_signal(how)
        assert site.process.wait(10) == 0
        wait_until(lambda: not any(is_alive(pid) for pid in below), 2)
        assert "Traceback" not in site.log


def test_port_and_concurrency_come_from_the_environment(project: Path, tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    site = Site(project, (), {"PORT": str(port), "WEB_CONCURRENCY": "1", "PROCMAN_LAYER": f"ipc://{tmp_path}/l.sock"})
    try:
        site.start()
        assert site.port == port
        assert "http://0.0.0.0" in site.log
        assert {name for name in site.status() if name.startswith("worker")} == {"worker.1"}
    finally:
        assert site.stop() == 0
