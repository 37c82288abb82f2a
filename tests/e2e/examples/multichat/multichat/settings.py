"""Settings: those of all examples, with this one's app, URLs and routing."""

from shared.settings import *  # noqa: F403
from shared.settings import INSTALLED_APPS as COMMON_APPS

INSTALLED_APPS = [*COMMON_APPS, "multichat"]
ROOT_URLCONF = "multichat.urls"
CHANNEL_LAYERS = {
    "default": {
        "BACKEND": "procman.layers.ipc.IPCChannelLayer",
        "ROUTING": "multichat.routing.channel_routing",
    }
}
