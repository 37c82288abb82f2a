"""Room 3, the Django app ``procman_channels``: message -> routing -> consumer -> ``Channel`` and ``Group``.

Module names and public names are those of Django Channels 1.x. Synchronous; never imports the interface, the
supervision or the command line. Importing this package needs neither Django nor settings: the names below load with
their first use.
"""

from typing import TYPE_CHECKING, Any

from procman import __version__

if TYPE_CHECKING:
    from procman.channels.asgi import channel_layers
    from procman.channels.channel import Channel, Group
    from procman.channels.routing import include, route, route_class

DEFAULT_CHANNEL_LAYER = "default"

_PLACES = {
    "channel_layers": "asgi",
    "Channel": "channel",
    "Group": "channel",
    "include": "routing",
    "route": "routing",
    "route_class": "routing",
}

__all__ = [
    "DEFAULT_CHANNEL_LAYER",
    "Channel",
    "Group",
    "__version__",
    "channel_layers",
    "include",
    "route",
    "route_class",
]


def __getattr__(name: str) -> Any:
    place = _PLACES.get(name)
    if place is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    found = getattr(importlib.import_module(f"{__name__}.{place}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_PLACES})
