from pathlib import Path

import pytest
from click.testing import CliRunner

from procman.cli.new import command, create_project
from procman.errors import ConfigurationError


def test_a_project_is_made_of_the_template(tmp_path: Path) -> None:
    create_project("mysite", tmp_path / "site")
    assert '"mysite.settings"' in (tmp_path / "site" / "manage.py").read_text()
    assert (tmp_path / "site" / "mysite" / "settings.py").is_file()
    assert not list((tmp_path / "site").rglob("*-tpl"))


def test_what_to_do_next_is_said_for_a_shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "cd 'my site'\n" in CliRunner().invoke(command, ["mysite", "my site"]).output
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert "cd " not in CliRunner().invoke(command, ["mysite", "."]).output


@pytest.mark.parametrize("name", ["my-site", "1site", "class", "a b", ""])
def test_names_that_python_cannot_import_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigurationError, match="cannot be a project's name"):
        create_project(name, tmp_path / "site")
    assert not (tmp_path / "site").exists()


def test_a_directory_with_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="not empty"):
        create_project("mysite", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("name", ["json", "django"])
def test_names_of_modules_that_exist_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigurationError, match=name):
        create_project(name, tmp_path / "site")
    assert not (tmp_path / "site").exists()
