"""Sockets below one path; chat messages by their command, whatever socket they came over."""

from multichat import consumers
from procman.channels import include, route

websocket_routing = [
    route("websocket.connect", consumers.ws_connect),
    route("websocket.receive", consumers.ws_receive),
    route("websocket.disconnect", consumers.ws_disconnect),
]

chat_routing = [
    route("chat.receive", consumers.chat_join, command="^join$", room="^[0-9]+$"),
    route("chat.receive", consumers.chat_leave, command="^leave$", room="^[0-9]+$"),
    route("chat.receive", consumers.chat_send, command="^send$", room="^[0-9]+$"),
    route("chat.receive", consumers.chat_unknown),
]

channel_routing = [include(websocket_routing, path=r"^/chat/stream/$"), include(chat_routing)]
