"""Settings: those of all examples, with this one's app, URLs and routing."""

from shared.settings import *  # noqa: F403
from shared.settings import INSTALLED_APPS as COMMON_APPS

INSTALLED_APPS = [*COMMON_APPS, "liveblog"]
ROOT_URLCONF = "liveblog.urls"
CHANNEL_LAYERS = {
    "default": {
        "BACKEND": "procman.layers.ipc.IPCChannelLayer",
        "ROUTING": "liveblog.routing.channel_routing",
    }
}
