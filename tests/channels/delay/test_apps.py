"""The delay app."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from django.apps import apps
from django.core.management import call_command
from django.test import override_settings


def test_the_label_is_an_identifier_of_our_own() -> None:
    config = apps.get_app_config("procman_channels_delay")
    assert (config.name, config.default_auto_field) == ("procman.channels.delay", "django.db.models.BigAutoField")


@pytest.mark.usefixtures("_migrated")
@pytest.mark.parametrize("field", ["AutoField", "BigAutoField"])
def test_no_migration_is_pending_whatever_the_projects_keys_are(field: str) -> None:
    with override_settings(DEFAULT_AUTO_FIELD=f"django.db.models.{field}"):
        call_command("makemigrations", "procman_channels_delay", check=True, dry_run=True, verbosity=0)


def test_the_app_is_not_needed_by_the_others() -> None:
    code = (
        "import django; from django.conf import settings; settings.configure(INSTALLED_APPS=['procman.channels']);"
        "django.setup(); import procman.channels.test; from django.core.management import get_commands;"
        "raise SystemExit('rundelay' in get_commands())"
    )
    root = Path(__file__).parents[3]
    environ = {**os.environ, "PYTHONPATH": str(root)}
    environ.pop("DJANGO_SETTINGS_MODULE", None)
    assert subprocess.run([sys.executable, "-c", code], env=environ, check=False).returncode == 0
