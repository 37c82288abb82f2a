"""The least that Django needs, the same for every server. The parts of ours exist only where ours is installed."""

import importlib.util

SECRET_KEY = "bench"
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "benchsite.urls"
INSTALLED_APPS: list[str] = []
MIDDLEWARE: list[str] = []
DATABASES: dict[str, dict[str, str]] = {}
if importlib.util.find_spec("procman"):
    CHANNEL_LAYERS = {
        "default": {"BACKEND": "procman.layers.ipc.IPCChannelLayer", "ROUTING": "benchsite.routing.channel_routing"}
    }
else:
    CHANNEL_LAYERS = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}
