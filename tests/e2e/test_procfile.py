"""Other programs beside the site: the lines of a Procfile, their ports, conditions, environment and end."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.processes import Site, copy_project, descendants, free_port, is_alive, running_site
from tests.support.waiting import wait_until

pytestmark = pytest.mark.slow

PROCFILE = """\
# What else the site needs while it is being written.
release: echo must not run
web: channels-run
# procman: once before=worker
migrate: python manage.py migrate -v0 && echo migrated $FROM_FILE $FROM_SHELL
# procman: depends=migrate ready-log="compiled"
css: echo building at $PORT; sleep 0.2; echo compiled; exec sleep 1000
# procman: depends=css ready-port=PORT
app: python -m http.server $PORT --bind 127.0.0.1
# procman: depends=app,worker
last: echo last sees $PROCMAN_PORT_APP; sleep 1000 & wait
"""


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    found = copy_project(tmp_path / "project")
    (found / "Procfile.dev").write_text(PROCFILE)
    (found / ".env").write_text("FROM_FILE=file\nFROM_SHELL=file\nDJANGO_SETTINGS_MODULE=mysite.settings\n")
    return found


def states(site: Site) -> dict[str, str]:
    return {name: process["state"] for name, process in site.status().items()}


def test_programs_run_beside_the_site_in_their_order_and_end_with_it(directory: Path) -> None:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    with running_site(
        directory,
        "--port",
        str(free_port(300)),
        "--procfile",
        "Procfile.dev",
        "-c",
        "last=2,worker=1",
        environ={"FROM_SHELL": "shell", "PATH": path},
    ) as site:
        site.wait_for_line(rf"last\.2 +\| last sees {site.port + 300}")
        assert f"css.1       | building at {site.port + 200}" in site.log
        assert "migrate.1   | migrated file shell" in site.log
        assert "variables from .env" in site.log
        assert "Procfile.dev: runs migrate, css, app, last; leaves out release (platforms run it" in site.log
        order = [site.log.index(text) for text in ("| migrated", "worker.1    | worker ready", "last.1      |")]
        assert order == sorted(order) and "must not run" not in site.log
        assert states(site) | {"migrate.1": "EXITED", "css.1": "RUNNING"} == states(site)
        assert "worker.2" not in states(site)
        site.run("scale", "css=2")
        assert list(states(site)).index("css.2") == list(states(site)).index("css.1") + 1
        assert site.run("restart", "migrate.1").stdout == "migrate.1: exited\n"
        # A death of one of them is its own matter.
        pid = site.pid_of("css.1")
        os.kill(pid, signal.SIGKILL)
        site.wait_for_line(r"css\.1 \(pid \d+\) was killed by SIGKILL after .*restarting now")
        wait_until(lambda: states(site)["css.1"] == "RUNNING" and site.pid_of("css.1") != pid)
        below = descendants(site.pid)
    assert site.process is not None and site.process.returncode == 0
    assert not [pid for pid in below if is_alive(pid)]
    assert "did not stop in time" not in site.log


def test_a_one_shot_program_that_fails_ends_the_start_of_what_waits_for_it(directory: Path) -> None:
    (directory / "Procfile").write_text("# procman: once before=worker\nmigrate: echo no database; exit 3\n")
    done = subprocess.run(
        [sys.executable, "-m", "procman", "--port", "0", "--procfile", "Procfile", "--no-env"],
        cwd=directory, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 4, done.stdout
    assert "migrate.1 (pid " in done.stdout and "exited with status 3" in done.stdout
    assert "preloader cannot start without it; giving up" in done.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--procfile", "none"], "cannot read the Procfile none: No such file or directory"),
        (["--procfile", "bad"], "bad line 2: 'nonsense' is no `name: command`"),
        (["--count", "x=1"], "--count 'x=1': there is no process type 'x'; there are worker, interface"),
        (["--env", "none"], "cannot read none: No such file or directory"),
        (["--env", "bad.env"], "bad.env line 2: write NAME=value"),
        (["--platform", "aws"], "there is no platform 'aws'"),
        (["--reload", "--reload-dir", "none"], "--reload-dir none is no directory"),
        (["--log-dir", "bad/x"], "--log-dir bad/x cannot be made"),
        (["run", "--procfile", "Procfile.dev", "nope"], "Procfile.dev has no line 'nope'; it has migrate, css"),
    ],
)
def test_mistakes_are_told_in_one_line(directory: Path, words: list[str], said: str) -> None:
    (directory / "bad").write_text("a: x\nnonsense\n")
    (directory / "bad.env").write_text("A=1\n=2\n")
    done = subprocess.run(
        [sys.executable, "-m", "procman", *words], cwd=directory, capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stderr.startswith(f"channels-run: error: {said}") and done.stderr.count("\n") == 1


def test_a_port_of_an_env_file_opens_nothing_to_the_outside(directory: Path) -> None:
    port = free_port()
    (directory / "my.env").write_text(f"PORT={port}\n")
    site = Site(directory, ("--env", "my.env"))
    try:
        site.start()
        assert f"ready: http://127.0.0.1:{port}/" in site.log
    finally:
        assert site.stop() == 0
    # As a variable of the shell it is a platform's.
    site = Site(directory, ("--no-env",), environ={"PORT": str(port)})
    try:
        site.start()
        assert f"ready: http://0.0.0.0:{port}/" in site.log
    finally:
        assert site.stop() == 0


def test_run_gives_a_command_the_environment_of_the_site(directory: Path) -> None:
    def run(*words: str, **environ: str) -> subprocess.CompletedProcess[str]:
        clean = {name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"}
        return subprocess.run(
            [sys.executable, "-m", "procman", "run", *words], cwd=directory, env=clean | environ,
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    code = "import json, os; print(json.dumps(dict(os.environ)))"
    seen = json.loads(run(sys.executable, "-c", code, FROM_SHELL="shell").stdout)
    assert (seen["FROM_FILE"], seen["FROM_SHELL"]) == ("file", "shell")
    assert seen["DJANGO_SETTINGS_MODULE"] == "mysite.settings"
    assert run("sh", "-c", "exit 7").returncode == 7
    assert run("sh", "-c", "echo $1", "-", "--help").stdout == "--help\n"
    missing = run("nosuchprogram")
    assert missing.returncode == 127 and missing.stderr == "channels-run: error: there is no program 'nosuchprogram'\n"
    assert run("/").returncode == 126
    # On a platform its own variables are the environment.
    platform = run(sys.executable, "-c", code, DYNO="web.1", PROCMAN_PLATFORM="auto")
    assert "FROM_FILE" not in json.loads(platform.stdout)
    refused = run("--env", ".env", "true", DYNO="web.1", PROCMAN_PLATFORM="auto")
    assert ".env: not read, heroku sets the variables (DYNO is set)" in refused.stderr and refused.returncode == 0
