"""The echo in the 1.x model."""

from procman.channels import route


def connect(message):
    """Accept."""
    message.reply_channel.send({"accept": True})


def receive(message):
    """Send back what came."""
    message.reply_channel.send({"text": message["text"]})


def disconnect(message):
    """Nothing to clean up."""


channel_routing = [
    route("websocket.connect", connect),
    route("websocket.receive", receive),
    route("websocket.disconnect", disconnect),
]
