"""A chat that counts its people in the database."""

from typing import Any

from django.conf import settings
from django.contrib.auth.models import Group as People

from procman.channels import Group, route
from procman.channels.auth import channel_session_user, channel_session_user_from_http

disconnected: list[str] = []


@channel_session_user_from_http
def connect(message: Any) -> None:
    message.reply_channel.send({"accept": True})
    Group("chat").add(message.reply_channel)
    People.objects.create(name=message.reply_channel.name)


@channel_session_user
def receive(message: Any) -> None:
    Group("chat").send({"text": f"{message.user or 'nobody'}: {message['text']} ({settings.WORD})"})


@channel_session_user
def disconnect(message: Any) -> None:
    disconnected.append(str(message.user))
    People.objects.filter(name=message.reply_channel.name).delete()


routing = [
    route("websocket.connect", connect),
    route("websocket.receive", receive),
    route("websocket.disconnect", disconnect),
]
