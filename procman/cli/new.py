"""``channels-run new``: a project to start from."""

from __future__ import annotations

import keyword
import shlex
from pathlib import Path

import click

from procman.errors import ConfigurationError

_TEMPLATE = Path(__file__).parents[1] / "app_template"


@click.command("new")
@click.argument("name")
@click.argument("directory", required=False)
def command(name: str, directory: str | None) -> None:
    """Make a Django project NAME with a chat and a liveblog, in DIRECTORY (default: NAME here)."""
    target = Path(directory or name)
    create_project(name, target)
    click.echo(f"Made {target.resolve() if target == Path() else target}. Next:\n")
    there = [] if target == Path() else [f"cd {shlex.quote(str(target))}"]
    for line in (*there, "python manage.py setup_demo", "channels-run"):
        click.echo(f"    {line}")


def create_project(name: str, target: Path) -> None:
    """Write the project *name* from the template into *target*.

    Raises:
        ConfigurationError: the name is no Python identifier or is taken, or *target* holds files already.
    """
    from django.core.management import call_command
    from django.core.management.base import CommandError

    if not name.isidentifier() or keyword.iskeyword(name):
        raise ConfigurationError(
            f"{name!r} cannot be a project's name: use letters, digits and underscores, a letter first"
        )
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ConfigurationError(f"{target} exists already and is not empty: choose another name or directory")
    if not _TEMPLATE.is_dir():
        raise ConfigurationError("the project template is missing from this installation: install procman again")
    made = not target.exists()
    # Django refuses names that can be imported, as an empty directory of that name here can: it makes that one itself.
    places = [] if made and target == Path(name) else [str(target)]
    try:
        if places:
            target.mkdir(parents=True, exist_ok=True)
        call_command("startproject", name, *places, template=str(_TEMPLATE), extensions=["py"], verbosity=0)
    except CommandError as error:
        if made and target.exists() and not any(target.iterdir()):
            target.rmdir()
        raise ConfigurationError(str(error)) from None
