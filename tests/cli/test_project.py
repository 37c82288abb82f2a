import sys
from pathlib import Path

import pytest

from procman.cli import project
from procman.errors import ConfigurationError
from procman.settings import ProjectConfiguration


def test_a_flag_wins_over_the_environment_and_that_over_manage_py(tmp_path: Path) -> None:
    (tmp_path / "manage.py").write_text('import os\nos.environ.setdefault("DJANGO_SETTINGS_MODULE", "c")\n')
    environ = {"DJANGO_SETTINGS_MODULE": "b"}
    assert project.find_settings_module("a", tmp_path, environ) == "a"
    assert project.find_settings_module(None, tmp_path, environ) == "b"
    assert project.find_settings_module(None, tmp_path, {}) == "c"


@pytest.mark.parametrize(
    "text",
    [
        "import os\nos.environ['DJANGO_SETTINGS_MODULE'] = 'x.settings'",
        "from os import environ\ndef main():\n    environ.setdefault('DJANGO_SETTINGS_MODULE', 'x.settings')",
        "if True:\n    import os\n    os.environ.setdefault(\n        'DJANGO_SETTINGS_MODULE', 'x.settings',\n    )",
    ],
)
def test_manage_py_is_read_not_run(tmp_path: Path, text: str) -> None:
    (tmp_path / "manage.py").write_text(f"raise SystemExit\n{text}\n" if not text.startswith("from") else text)
    assert project.find_settings_module(None, tmp_path, {}) == "x.settings"


@pytest.mark.parametrize("text", ["x = (", "print('hello')"])
def test_a_manage_py_that_names_no_settings_says_what_to_give(tmp_path: Path, text: str) -> None:
    (tmp_path / "manage.py").write_text(text)
    with pytest.raises(ConfigurationError, match="--settings"):
        project.find_settings_module(None, tmp_path, {})


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A settings package that must not be imported."""
    inner = tmp_path / "forbidden" / "config"
    inner.mkdir(parents=True)
    for directory in (inner.parent, inner):
        (directory / "__init__.py").write_text("raise RuntimeError('imported')\n")
    (inner / "settings.py").write_text("raise RuntimeError('imported')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    return inner


def test_the_settings_file_is_found_without_importing_anything(package: Path) -> None:
    assert project.settings_file("forbidden.config.settings") == package / "settings.py"
    assert project.settings_file("forbidden.config") == package / "__init__.py"
    assert "forbidden" not in sys.modules


@pytest.mark.parametrize("module", ["forbidden.none.settings", "forbidden.config.none", "no_such", "forbidden.config."])
def test_a_settings_module_that_does_not_exist_is_named(package: Path, module: str) -> None:
    with pytest.raises(ConfigurationError, match="there is no settings module"):
        project.settings_file(module)


@pytest.mark.parametrize(
    ("text", "asked"),
    [
        ("DEBUG = True", False),
        ("CHANNEL_LAYERS = {'default': {'CONFIG': {'address': 'ipc:///x'}}}", True),
        ("CHANNEL_LAYERS = make(address='ipc:///x')", True),
        ("from .base import *", True),
    ],
)
def test_only_settings_that_may_name_an_address_are_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, asked: bool
) -> None:
    path = tmp_path / "askable.py"
    path.write_text(text)
    monkeypatch.setattr(project, "enter_project", lambda settings: "askable")
    monkeypatch.setattr(project, "settings_file", lambda module: path)
    monkeypatch.setattr(project, "describe_project", lambda: ProjectConfiguration("askable", "ipc:///asked.sock"))
    monkeypatch.delenv("PROCMAN_LAYER", raising=False)
    assert (project.guess_layer(None, None) == "ipc:///asked.sock") is asked


def test_the_layer_is_that_of_the_flag_then_of_the_environment_then_of_the_project(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PROCMAN_LAYER", "/b.sock")
    assert project.choose_layer("ipc:///a.sock", "ipc:///c.sock") == "ipc:///a.sock"
    assert project.choose_layer(None, "ipc:///c.sock") == "ipc:///b.sock"
    monkeypatch.delenv("PROCMAN_LAYER")
    assert project.choose_layer(None, "ipc:///c.sock") == "ipc:///c.sock"


def test_a_description_that_ends_without_an_answer_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(ConfigurationError, match="ended with status 1"):
        project.describe_project()
