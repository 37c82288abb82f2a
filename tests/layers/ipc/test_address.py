"""Where the processes of a project meet."""

import os
import stat
from pathlib import Path

import pytest

from procman.errors import ConfigurationError
from procman.layers.ipc import address


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for /tmp, with no /run/user."""
    monkeypatch.setattr(address, "_TEMPORARY", str(tmp_path))
    monkeypatch.setattr(address, "_is_own_directory", lambda path, uid: False)
    return tmp_path


def test_the_directory_is_private_and_named_by_the_user(temporary: Path) -> None:
    found = address.private_directory()
    assert found == temporary / f"procman-{os.getuid()}"
    assert stat.S_IMODE(found.stat().st_mode) == 0o700
    assert address.private_directory() == found


def test_a_directory_that_others_may_enter_is_closed_to_them(temporary: Path) -> None:
    (temporary / f"procman-{os.getuid()}").mkdir(mode=0o755)
    assert stat.S_IMODE(address.private_directory().stat().st_mode) == 0o700


def test_a_symlink_in_the_place_of_the_directory_is_refused(temporary: Path) -> None:
    (temporary / "elsewhere").mkdir()
    (temporary / f"procman-{os.getuid()}").symlink_to(temporary / "elsewhere")
    with pytest.raises(ConfigurationError, match="PROCMAN_LAYER"):
        address.private_directory()


def test_a_file_in_the_place_of_the_directory_is_refused(temporary: Path) -> None:
    (temporary / f"procman-{os.getuid()}").touch()
    with pytest.raises(ConfigurationError):
        address.private_directory()


def test_only_a_directory_of_the_user_counts_as_the_runtime_directory(tmp_path: Path) -> None:
    uid = os.getuid()
    (tmp_path / "link").symlink_to(tmp_path)
    assert address._is_own_directory(tmp_path, uid)
    assert not address._is_own_directory(tmp_path, uid + 1)
    assert not address._is_own_directory(tmp_path / "link", uid)
    assert not address._is_own_directory(tmp_path / "missing", uid)


def test_the_environment_does_not_move_the_address(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = address.project_address("/srv/site/settings.py")
    for variable in ("TMPDIR", "XDG_RUNTIME_DIR", "HOME"):
        monkeypatch.setenv(variable, "/nowhere")
    assert address.project_address("/srv/site/settings.py") == before


def test_projects_differ_and_links_to_one_settings_file_agree(temporary: Path) -> None:
    settings = temporary / "settings.py"
    settings.touch()
    (temporary / "link.py").symlink_to(settings)
    found = address.project_address(settings)
    assert found == address.project_address(temporary / "link.py")
    assert found != address.project_address(temporary / "other.py")
    assert found.startswith(f"ipc://{temporary}/procman-{os.getuid()}/")
    assert len(Path(found).stem) == 16


def test_the_control_socket_stands_beside_the_layers() -> None:
    assert address.control_path("ipc:///run/x/abc.sock") == "/run/x/abc.control"


def test_addresses_parse_into_scheme_and_path() -> None:
    assert address.parse("ipc:///a/b.sock") == ("ipc", "/a/b.sock")
    assert address.parse("/a/b.sock") == ("ipc", "/a/b.sock")
    assert address.parse("memory://") == ("memory", "")
    assert address.parse("redis://localhost:6379/1") == ("redis", "localhost:6379/1")


@pytest.mark.parametrize("url", ["", "nonsense", "http://x", "ipc://relative.sock", "ipc:///" + "x" * 100])
def test_other_addresses_are_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"ipc://|PROCMAN_LAYER"):
        address.parse(url)


def test_the_default_address_follows_the_settings_module_unless_it_is_overridden(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (temporary / "some_site_settings.py").touch()
    monkeypatch.syspath_prepend(str(temporary))
    monkeypatch.delenv("PROCMAN_LAYER", raising=False)
    monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "some_site_settings")
    assert address.default_address() == address.project_address(temporary / "some_site_settings.py")
    monkeypatch.setenv("PROCMAN_LAYER", "ipc:///elsewhere.sock")
    assert address.default_address() == "ipc:///elsewhere.sock"


@pytest.mark.parametrize("module", ["no_such_module_anywhere", "no_such_package.settings"])
def test_a_settings_module_that_cannot_be_found_is_named(monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    monkeypatch.delenv("PROCMAN_LAYER", raising=False)
    monkeypatch.setenv("DJANGO_SETTINGS_MODULE", module)
    with pytest.raises(ConfigurationError, match=module):
        address.default_address()
