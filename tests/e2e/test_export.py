"""What is exported is read by those it is for, and run by them where they are at hand."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO
from pathlib import Path

import pytest
from supervisor.options import ServerOptions
from websockets.sync.client import connect

from tests.support.clients import Browser
from tests.support.processes import free_port
from tests.support.waiting import wait_until

BASE = """
[unix_http_server]
file={directory}/s.sock
[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface
[supervisord]
nodaemon=true
user=root
logfile={directory}/supervisord.log
pidfile={directory}/supervisord.pid
childlogdir={directory}
"""


def export(project: Path, tmp_path: Path, *words: str) -> str:
    environ = os.environ | {"PROCMAN_LAYER": f"ipc://{tmp_path}/l.sock"}
    environ.pop("PORT", None)
    done = subprocess.run(
        [sys.executable, "-m", "procman", "export", *words], cwd=project, env=environ, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_supervisord_reads_what_is_exported(project: Path, tmp_path: Path) -> None:
    text = export(project, tmp_path, "supervisord", "--workers", "3", "--interfaces", "2", "--name", "site",
                  "--bind", "0.0.0.0", "--port", "9000", "--max-body-size", "1000")  # fmt: skip
    options = ServerOptions()
    options.configfile = StringIO(BASE.format(directory=tmp_path) + text)
    options.realize(args=[])
    groups = {group.name: group for group in options.process_group_configs}
    assert {name: len(group.process_configs) for name, group in groups.items()} == {
        "site-layer": 1, "site-interface": 2, "site-worker": 3
    }  # fmt: skip
    assert type(groups["site-interface"]).__name__ == "FastCGIGroupConfig"
    assert groups["site-interface"].socket_config.url == "tcp://0.0.0.0:9000"
    config = groups["site-interface"].process_configs[0]
    assert config.command.endswith("channels-run interface --fd 0 --max-body-size 1000")
    assert config.environment["PROCMAN_LAYER"] == f"ipc://{tmp_path}/l.sock"
    assert (config.stopasgroup, config.killasgroup, config.stopwaitsecs) == (True, True, 11)


def test_lines_of_a_procfile_become_programs_with_their_ports(project: Path, tmp_path: Path) -> None:
    procfile = tmp_path / "Procfile.dev"
    procfile.write_text(
        "web: channels-run\n# procman: once\nbuild: echo 50%\n# procman: stop-signal=INT\n"
        "css: echo $PORT; exec sleep 1\n"
    )
    text = export(project, tmp_path, "supervisord", "--name", "site", "--port", "9000", "--procfile", str(procfile),
                  "--count", "css=2")  # fmt: skip
    options = ServerOptions()
    options.configfile = StringIO(BASE.format(directory=tmp_path) + text)
    options.realize(args=[])
    programs = {p.name: p for group in options.process_group_configs for p in group.process_configs}
    assert {"site-build-9100", "site-css-9200", "site-css-9201"} < set(programs)
    css, build = programs["site-css-9201"], programs["site-build-9100"]
    assert css.environment["PORT"] == "9201" and css.environment["PROCMAN_PORT_BUILD"] == "9100"
    assert css.stopsignal == signal.SIGINT and "exec sleep 1" in css.command
    assert build.command.endswith("'exec echo 50%'") and not build.autorestart


@contextmanager
def supervisord(directory: Path, text: str) -> Iterator[subprocess.Popen[bytes]]:
    (directory / "s.conf").write_text(BASE.format(directory=directory) + text)
    program = str(Path(sys.executable).with_name("supervisord"))
    with subprocess.Popen([program, "-c", str(directory / "s.conf")], stdout=subprocess.DEVNULL) as process:
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)


@pytest.mark.slow
def test_supervisord_runs_the_site_and_restarts_its_workers(project: Path, tmp_path: Path) -> None:
    port = free_port()
    text = export(project, tmp_path, "supervisord", "--name", "site", "--workers", "2", "--port", str(port))
    text = text.replace(str(Path(sys.executable).with_name("channels-run")), f"{sys.executable} -m procman")

    def ask(*words: str) -> str:
        program = str(Path(sys.executable).with_name("supervisorctl"))
        done = subprocess.run(
            [program, "-s", f"unix://{tmp_path}/s.sock", *words], capture_output=True, text=True, timeout=60
        )
        return done.stdout

    with supervisord(tmp_path, text):
        wait_until(lambda: ask("status").count("RUNNING") == 4, 30, what="all programs run")
        browser = Browser(f"http://127.0.0.1:{port}")
        assert browser.get("/").text == "hello"
        with connect(f"ws://127.0.0.1:{port}/one/", compression=None) as client:
            for number in (1, 2):
                pid = int(ask("pid", f"site-worker:site-worker-{number}"))
                os.kill(pid, signal.SIGKILL)
            client.send("still here")
            assert json.loads(client.recv(30))["echo"] == "still here"
        ask("restart", "site-interface")  # the socket is supervisord's: who comes now waits
        assert browser.get("/", timeout=20).text == "hello"


def test_systemd_verifies_what_is_exported(project: Path, tmp_path: Path) -> None:
    program = shutil.which("systemd-analyze")
    if program is None:
        assert not os.environ.get("PROCMAN_TEST_ALL"), "systemd-analyze is missing: see scripts/programs"
        pytest.skip("systemd-analyze is not installed")
    text = export(project, tmp_path, "systemd", "--name", "site", "--workers", "3", "--port", "9000")
    assert "ListenStream=127.0.0.1:9000" in text
    assert re.search(r"ExecStart=.*channels-run start --workers 3\n", text)
    _, socket_unit, service = re.split(r"# /etc/systemd/system/.*\n", text)
    service = re.sub(r"ExecStart=\S+", "ExecStart=/bin/true", service)  # the tests need no installed command
    for name, unit in (("site.socket", socket_unit), ("site.service", service)):
        (tmp_path / name).write_text(unit)
    done = subprocess.run(
        [program, "verify", "--man=no", str(tmp_path / "site.socket"), str(tmp_path / "site.service")],
        capture_output=True, text=True,
    )  # fmt: skip
    assert "site." not in done.stderr, done.stderr
    assert done.returncode == 0, done.stderr


def test_a_procfile_leaves_the_port_to_the_platform(project: Path, tmp_path: Path) -> None:
    line = export(project, tmp_path, "procfile", "--port", "9000", "--bind", "0.0.0.0", "--max-rss", "400")
    assert line == "web: channels-run --max-rss 400\n"


def test_a_name_that_no_unit_can_have_is_refused(project: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "procman", "export", "systemd", "--name", "a b"], cwd=project, capture_output=True,
        text=True,
    )  # fmt: skip
    assert done.returncode == 2 and "cannot be the name of a unit" in done.stderr
