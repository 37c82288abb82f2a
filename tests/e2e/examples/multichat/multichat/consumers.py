"""Sockets, and the commands that come over them: join, leave and send, each with a consumer of its own."""

import json

from multichat.exceptions import ClientError
from multichat.models import Room
from multichat.utils import catch_client_error, get_room_or_error
from procman.channels import Channel
from procman.channels.auth import channel_session_user, channel_session_user_from_http


@channel_session_user_from_http
def ws_connect(message):
    """Accept; the socket is in no room yet."""
    message.reply_channel.send({"accept": True})
    message.channel_session["rooms"] = []


@catch_client_error
def ws_receive(message):
    """Pass the command on, to be routed by its name."""
    try:
        payload = dict(json.loads(message["text"]))
    except (KeyError, TypeError, ValueError):
        raise ClientError("COMMAND_INVALID") from None
    payload["reply_channel"] = message.content["reply_channel"]
    Channel("chat.receive").send(payload)


@channel_session_user
def ws_disconnect(message):
    """Leave all rooms."""
    for room in Room.objects.filter(pk__in=message.channel_session.get("rooms", [])):
        room.websocket_group.discard(message.reply_channel)
        room.send_message("", message.user, kind="leave")


@channel_session_user
@catch_client_error
def chat_join(message):
    """Enter a room. The one who does sees it too: groups are joined at once, sends leave at the end."""
    room = get_room_or_error(message["room"], message.user)
    message.reply_channel.send({"text": json.dumps({"join": str(room.pk), "title": room.title})})
    room.send_message("", message.user, kind="enter")
    room.websocket_group.add(message.reply_channel)
    message.channel_session["rooms"] = sorted({*message.channel_session["rooms"], room.pk})


@channel_session_user
@catch_client_error
def chat_leave(message):
    """Leave a room."""
    room = get_room_or_error(message["room"], message.user)
    room.send_message("", message.user, kind="leave")
    room.websocket_group.discard(message.reply_channel)
    message.channel_session["rooms"] = [pk for pk in message.channel_session["rooms"] if pk != room.pk]
    message.reply_channel.send({"text": json.dumps({"leave": str(room.pk)})})


@channel_session_user
@catch_client_error
def chat_send(message):
    """Say something in a room that the socket is in."""
    room = get_room_or_error(message["room"], message.user)
    if room.pk not in message.channel_session["rooms"]:
        raise ClientError("ROOM_ACCESS_DENIED")
    room.send_message(str(message.get("message", ""))[:1000], message.user)


@catch_client_error
def chat_unknown(message):
    """Refuse any other command."""
    raise ClientError("COMMAND_INVALID")
