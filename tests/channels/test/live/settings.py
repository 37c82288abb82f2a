"""Settings of the live server's tests: a database that threads share."""

import os
from pathlib import Path

from tests.settings import *  # noqa: F403 - all of them, but for what follows

_DIRECTORY = Path(os.environ["LIVE_DIRECTORY"])
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": _DIRECTORY / "site.sqlite3",
        "TEST": {"NAME": _DIRECTORY / "test.sqlite3"},
    }
}
ALLOWED_HOSTS = ["site.example"]
WORD = "as set"
CHANNEL_LAYERS = {
    "default": {
        "BACKEND": "procman.layers.ipc.IPCChannelLayer",
        "CONFIG": {"address": f"ipc://{_DIRECTORY}/nobody-listens-here"},
        "TEST_CONFIG": {"capacity": 7, "address": "ipc:///elsewhere"},
        "ROUTING": "tests.channels.test.live.routing.routing",
    }
}
