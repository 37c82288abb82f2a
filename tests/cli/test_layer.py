from pathlib import Path

import pytest
from click.testing import CliRunner

from procman.cli import cli
from procman.layers.ipc.address import project_address


def test_the_address_is_printed_without_importing_the_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = tmp_path / "unimportable.py"
    settings.write_text("raise RuntimeError('imported')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [str(tmp_path)])
    monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "unimportable")
    monkeypatch.delenv("PROCMAN_LAYER", raising=False)
    done = CliRunner().invoke(cli, ["layer", "--print-address"])
    assert done.output.strip() == project_address(settings)


def test_an_address_that_was_given_is_printed_as_a_url(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROCMAN_LAYER", "ipc:///env.sock")
    assert CliRunner().invoke(cli, ["layer", "--print-address"]).output == "ipc:///env.sock\n"
    assert CliRunner().invoke(cli, ["layer", "--print-address", "--layer", "/f.sock"]).output == "ipc:///f.sock\n"
