"""The project template: what Django's startproject makes of it passes its own checks and tests."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import procman.channels

ROOT = Path(__file__).parents[2]
# By the way a wheel takes: the package's directory, which is a link in a checkout.
TEMPLATE = ROOT / "procman" / "app_template"
NAME = "corner_shop2"


def manage(project: Path, *arguments: str, **environ: str) -> str:
    """What ``manage.py`` prints; it must succeed, with every warning an error where *arguments* run tests."""
    kept = ("PORT", "DJANGO_SETTINGS_MODULE", "PROCMAN_LAYER", "DEBUG", "SECRET_KEY", "ALLOWED_HOSTS")
    environment = {name: value for name, value in os.environ.items() if name not in kept}
    done = subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=project,
        env=environment | {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"} | environ,
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert done.returncode == 0, f"manage.py {' '.join(arguments)}:\n{done.stdout}{done.stderr}"
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project made from the template."""
    directory = tmp_path_factory.mktemp("template") / NAME
    directory.mkdir()
    command = [sys.executable, "-m", "django", "startproject", "--template", str(TEMPLATE), NAME, str(directory)]
    subprocess.run(command, check=True, timeout=60)
    return directory


def files(directory: Path, *suffixes: str) -> list[Path]:
    """The files below *directory* whose names end in one of *suffixes*; there is at least one."""
    found = sorted(path for path in directory.rglob("*") if path.name.endswith(suffixes) and path.is_file())
    assert found, f"no {suffixes} below {directory}"
    return found


def test_every_file_of_the_template_is_in_the_project_under_its_final_name(project: Path) -> None:
    def final(path: Path) -> str:
        return str(path.relative_to(TEMPLATE)).replace("project_name", NAME).replace(".py-tpl", ".py")

    templates = [path for path in TEMPLATE.rglob("*") if path.is_file() and path.suffix != ".pyc"]
    assert {final(path) for path in templates} == {str(path.relative_to(project)) for path in files(project, "")}


def test_python_files_hold_no_template_tags_and_are_python(project: Path) -> None:
    for path in files(project, ".py"):
        text = path.read_text()
        assert not re.search(r"{{|{%|{#|project_name", text), path
        compile(text, path, "exec")


def test_pages_are_copied_untouched(project: Path) -> None:
    for path in files(project, ".html", ".js", ".css", ".json", ".svg"):
        source = str(path.relative_to(project)).replace(NAME, "project_name")
        assert path.read_bytes() == (TEMPLATE / source).read_bytes()


def test_manage_py_can_be_executed(project: Path) -> None:
    assert os.access(project / "manage.py", os.X_OK)


def test_each_project_gets_a_secret_key_of_its_own(project: Path) -> None:
    key = re.search(r'SECRET_KEY", "([^"]{50,})"', (project / NAME / "settings.py").read_text())
    assert key, "no key of 50 characters or more in the settings"


def test_pages_load_nothing_from_elsewhere(project: Path) -> None:
    for path in files(project, ".html", ".js", ".css"):
        assert not re.search(r"""(?:https?:)?//[\w-]+\.[\w.-]+/|@import|url\(""", path.read_text()), path


def test_static_files_that_pages_and_scripts_name_are_there(project: Path) -> None:
    roots = [project / app / "static" for app in (NAME, "chat", "liveblog")]
    roots.append(Path(procman.channels.__file__).parent / "static")
    for path in files(project, ".html"):
        for name in re.findall(r"{% static '([^']+)' %}", path.read_text()):
            assert any((root / name).is_file() for root in roots), f"{path} names {name}"
    for path in files(project, ".js"):
        root = next(root for root in roots if path.is_relative_to(root))
        for name in re.findall(r'from "([^"]+)"', path.read_text()):
            # The browser sees all static directories as one.
            below = os.path.normpath(path.parent.relative_to(root) / name)
            assert any((root / below).is_file() for root in roots), f"{path} imports {name}"


@pytest.mark.slow
def test_system_checks_find_nothing(project: Path) -> None:
    assert "no issues" in manage(project, "check", "--fail-level", "INFO")


@pytest.mark.slow
def test_migrations_match_the_models(project: Path) -> None:
    assert "No changes detected" in manage(project, "makemigrations", "--check")


@pytest.mark.slow
def test_environment_decides_what_differs_between_machines(project: Path) -> None:
    code = "from django.conf import settings as s; print(s.DEBUG, s.ALLOWED_HOSTS, s.SECRET_KEY)"
    printed = manage(project, "shell", "-c", code, DEBUG="0", ALLOWED_HOSTS="a.example, b.example", SECRET_KEY="given")
    assert "False ['a.example', 'b.example'] given" in printed


@pytest.mark.slow
def test_the_projects_own_tests_pass(project: Path) -> None:
    printed = manage(project, "test", PYTHONWARNINGS="error::ResourceWarning,error::DeprecationWarning")
    ran = re.search(r"Ran (\d+) tests", printed)
    assert ran and int(ran[1]) >= 25, printed
    assert printed.rstrip().endswith("OK") or "\nOK\n" in printed, printed
