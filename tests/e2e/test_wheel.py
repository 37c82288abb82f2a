"""The built wheel, installed into a clean environment, as a user installs it."""

import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.clients import Browser
from tests.support.processes import Site

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ``bin`` directory of a virtual environment that holds the wheel and what it depends on, nothing else."""
    directory = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--outdir", str(directory), str(ROOT)],
        check=True, capture_output=True, timeout=300,
    )  # fmt: skip
    wheel = next(directory.glob("procman-*.whl"))
    subprocess.run([sys.executable, "-m", "venv", str(directory / "env")], check=True)
    bin_directory = directory / "env" / "bin"
    subprocess.run(
        [str(bin_directory / "pip"), "install", "-q", str(wheel)], check=True, capture_output=True, timeout=300
    )
    return bin_directory


@contextmanager
def served(environment: Path, directory: Path) -> Iterator[Site]:
    site = Site(directory, environ={"PATH": f"{environment}:/usr/bin:/bin"})
    site.command = [str(environment / "channels-run"), "--port", "0", "--workers", "1"]
    try:
        yield site.start()
    finally:
        site.stop()


@pytest.mark.timeout(600)
def test_channels_run_serves_any_project(environment: Path, tmp_path: Path) -> None:
    subprocess.run([str(environment / "python"), "-m", "django", "startproject", "plain", str(tmp_path)], check=True)
    with served(environment, tmp_path) as site:
        assert "The install worked successfully" in Browser(site.url).get("/").text


@pytest.mark.timeout(600)
def test_a_new_project_runs_and_passes_its_own_tests(environment: Path, tmp_path: Path) -> None:
    subprocess.run([str(environment / "channels-run"), "new", "mysite"], cwd=tmp_path, check=True, capture_output=True)
    directory = tmp_path / "mysite"
    for command in (["migrate", "-v0"], ["check"], ["makemigrations", "--check"], ["test"]):
        done = subprocess.run(
            [str(environment / "python"), "manage.py", *command],
            cwd=directory,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    with served(environment, directory) as site:
        assert Browser(site.url).get("/").status == 200


def test_the_wheel_has_the_types_and_the_javascript(environment: Path) -> None:
    wheel = next(environment.parents[1].glob("procman-*.whl"))
    names = set(zipfile.ZipFile(wheel).namelist())
    scripts = {"websocketbridge.js", "websocketbridge.mjs", "websocketbridge.d.ts", "package.json"}
    assert "procman/py.typed" in names
    for place in ("procman/channels/js", "procman/channels/static/channels/js"):
        assert {f"{place}/{script}" for script in scripts} <= names
