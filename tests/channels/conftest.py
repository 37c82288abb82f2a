"""Django is set up once for this directory, without leaving a trace in the environment of other suites."""

import os
from collections.abc import Iterator

import django
import pytest

_before = os.environ.get("DJANGO_SETTINGS_MODULE")
os.environ["DJANGO_SETTINGS_MODULE"] = "tests.settings"
django.setup()
if _before is None:
    del os.environ["DJANGO_SETTINGS_MODULE"]
else:
    os.environ["DJANGO_SETTINGS_MODULE"] = _before

from django.core.management import call_command  # noqa: E402 - needs the set-up above
from django.db import connection, transaction  # noqa: E402

from procman.channels.asgi import ChannelLayerWrapper, channel_layers  # noqa: E402
from tests.channels.layer import RecordingLayer  # noqa: E402


@pytest.fixture(scope="session")
def _migrated() -> Iterator[None]:
    call_command("migrate", verbosity=0)
    yield
    connection.close()


@pytest.fixture
def database(_migrated: None) -> Iterator[None]:
    """An empty database; what the test writes is rolled back."""
    with transaction.atomic():
        yield
        transaction.set_rollback(True)


@pytest.fixture
def real_transactions(_migrated: None) -> None:
    """A database on which the test's own transactions are the outermost; it is to write nothing."""


@pytest.fixture
def layer() -> Iterator[RecordingLayer]:
    """The default layer of the test: a recording one, without routing."""
    recording = RecordingLayer()
    before = channel_layers.set("default", ChannelLayerWrapper(recording, "default", []))
    yield recording
    channel_layers.set("default", before)


@pytest.fixture
def wrapper(layer: RecordingLayer) -> ChannelLayerWrapper:
    """The wrapper of ``layer``."""
    return channel_layers["default"]
