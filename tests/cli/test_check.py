"""What ``channels-run check`` finds, and what it leaves in peace."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from procman.cli.check import directory_findings, layer_findings, project_findings, socket_findings
from procman.settings import ProjectConfiguration
from tests.support.processes import copy_project
from tests.support.redis import running_redis


def project(**values: object) -> ProjectConfiguration:
    fields = {"settings_module": "m", "layer": "ipc:///x.sock", "allowed_hosts": ["example.com"], **values}
    return ProjectConfiguration(**fields)  # type: ignore[arg-type]


def test_sound_settings_have_no_findings() -> None:
    assert list(project_findings(project(layer_config={"capacity": 100, "expiry": 60}), {"PORT": "80"})) == []
    assert list(project_findings(project(debug=True, allowed_hosts=[]), {})) == []


@pytest.mark.parametrize(
    ("values", "environ", "level", "word"),
    [
        ({"allowed_hosts": []}, {}, "error", "ALLOWED_HOSTS"),
        ({"debug": True}, {"PORT": "80"}, "warning", "DEBUG"),
        ({"layer_config": {"capacity": 3}}, {}, "warning", "capacity is 3"),
        (
            {"layer_config": {"channel_capacity": {"websocket.send*": 2, "a": 50}}},
            {},
            "warning",
            "'websocket.send*' is 2",
        ),
        ({"layer_config": {"expiry": 0.5}}, {}, "warning", "expiry is 0.5 s"),
    ],
)
def test_each_mistake_in_the_settings_is_found(
    values: dict[str, object], environ: dict[str, str], level: str, word: str
) -> None:
    (finding,) = project_findings(project(**values), environ)
    assert finding.level == level
    assert word in finding.text


@pytest.mark.parametrize(("mode", "level"), [(0o700, None), (0o755, "warning"), (0o777, "error"), (0o1777, "warning")])
def test_a_directory_that_others_can_write_to_is_found(tmp_path: Path, mode: int, level: str | None) -> None:
    tmp_path.chmod(mode)
    assert [finding.level for finding in directory_findings(tmp_path)] == ([level] if level else [])
    tmp_path.chmod(0o700)


def test_a_directory_that_is_missing_is_found(tmp_path: Path) -> None:
    (finding,) = directory_findings(tmp_path / "none")
    assert finding.level == "error" and "No such file" in finding.text


def test_what_stands_in_the_place_of_the_socket_is_found(tmp_path: Path) -> None:
    path = tmp_path / "x.sock"
    assert list(socket_findings(path)) == []
    path.write_text("")
    (finding,) = socket_findings(path)
    assert finding.level == "error" and "remove it" in finding.text
    path.unlink()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        path.chmod(0o600)
        assert list(socket_findings(path)) == []
        path.chmod(0o666)
        (finding,) = socket_findings(path)
        assert finding.level == "warning" and "chmod 600" in finding.text


def test_a_redis_that_is_fit_has_no_findings_and_a_wrong_password_is_one() -> None:
    with running_redis(requirepass="s3cr3t") as server:
        address = f"redis://:s3cr3t@127.0.0.1:{server.port}/0"
        assert list(layer_findings(address, {})) == []
        (finding,) = layer_findings(address.replace("s3cr3t", "wr0ng"), {})
        assert finding.level == "error" and "correct the address" in finding.text and "wr0ng" not in finding.text


def test_each_redis_server_of_the_layer_is_examined() -> None:
    with running_redis() as first, running_redis(maxmemory="100mb", maxmemory_policy="allkeys-lru") as second:
        found = list(layer_findings("redis://", {"hosts": [first.url, ["127.0.0.1", second.port]]}))
        assert [finding.level for finding in found] == ["warning"]
        assert f":{second.port}/0: maxmemory-policy is allkeys-lru" in found[0].text


def test_addresses_of_redis_that_do_not_parse_are_findings() -> None:
    (finding,) = layer_findings("redis://:s3cr3t@host:port", {})
    assert finding.level == "error" and "s3cr3t" not in finding.text


def run(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if name not in ("PORT", "DJANGO_SETTINGS_MODULE")}
    command = [sys.executable, "-m", "procman", "check", *arguments]
    return subprocess.run(command, cwd=directory, env=clean, capture_output=True, text=True, timeout=60, check=False)


def test_a_project_is_checked_from_its_directory(tmp_path: Path) -> None:
    site = copy_project(tmp_path / "site")
    done = run(site)
    assert (done.returncode, done.stderr) == (0, "")
    assert "mysite.settings" in done.stdout and "nothing to change" in done.stdout

    settings = site / "mysite" / "settings.py"
    settings.write_text(settings.read_text() + "\nALLOWED_HOSTS = []\n")
    done = run(site, "--json")
    assert done.returncode == 2
    assert [finding["level"] for finding in json.loads(done.stdout)["findings"]] == ["error"]

    for wrong, text in (("memory://", "lives within one process"), ("ipc:///" + "long/" * 40 + "x", "socket path has")):
        done = run(site, "--json", "--layer", wrong)
        assert done.returncode == 2
        assert [text in finding["text"] for finding in json.loads(done.stdout)["findings"]][-1:] == [True]

    settings.write_text("import no_such_module\n")
    done = run(site)
    assert done.returncode == 2
    assert "no_such_module" in done.stderr and len(done.stderr.splitlines()) == 1
