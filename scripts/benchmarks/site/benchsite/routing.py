"""The echo in the 1.x model."""

from procman.channels import Group, route


def connect(message):
    """Accept."""
    message.reply_channel.send({"accept": True})


def join(message):
    """Accept into the group of all."""
    message.reply_channel.send({"accept": True})
    Group("all").add(message.reply_channel)


def send(message):
    """One message to all."""
    Group("all").send({"text": "x" * 200})


def receive(message):
    """Send back what came."""
    message.reply_channel.send({"text": message["text"]})


def disconnect(message):
    """Nothing to clean up."""


channel_routing = [
    route("websocket.connect", join, path="^/group/"),
    route("websocket.receive", send, path="^/group/"),
    route("websocket.connect", connect),
    route("websocket.receive", receive),
    route("websocket.disconnect", disconnect),
]
