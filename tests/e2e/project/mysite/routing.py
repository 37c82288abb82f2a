"""Channel names and paths to consumers."""

from mysite import consumers, hardships
from procman.channels import route

channel_routing = [
    route("websocket.connect", consumers.bare_connect, path=r"^/hard/$"),
    route("websocket.receive", hardships.ws_receive, path=r"^/hard/$"),
    route("websocket.disconnect", lambda message: None, path=r"^/hard/$"),
    route("websocket.connect", consumers.bare_connect, path=r"^/bare/$"),
    route("websocket.receive", consumers.bare_receive, path=r"^/bare/$"),
    route("websocket.disconnect", lambda message: None, path=r"^/bare/$"),
    route("websocket.connect", consumers.ws_connect),
    route("websocket.receive", consumers.ws_receive),
    route("websocket.disconnect", consumers.ws_disconnect),
    route("background", consumers.background),
    route("answers", consumers.answers),
    route("forgotten", consumers.forgotten),
    route("memories", consumers.memories),
]
