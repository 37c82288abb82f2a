"""Settings of delay servers in processes of their own: a database in a file, a layer process."""

import os

from tests.settings import *  # noqa: F403 - all of them, but for what follows

DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": os.environ["DELAY_DATABASE"]}}
CHANNEL_LAYERS = {
    "default": {
        "BACKEND": "procman.layers.ipc.IPCChannelLayer",
        "CONFIG": {"address": os.environ["DELAY_LAYER"], "capacity": 1000},
        "ROUTING": [],
    }
}
