"""What the consumers of chat messages share."""

import functools
import json

from multichat.exceptions import ClientError
from multichat.models import Room


def catch_client_error(func):
    """Send a ``ClientError`` to the client."""

    @functools.wraps(func)
    def inner(message, *args, **kwargs):
        try:
            return func(message, *args, **kwargs)
        except ClientError as error:
            message.reply_channel.send({"text": json.dumps({"error": error.code})})
            return None

    return inner


def get_room_or_error(room_id, user):
    """The room, if the user may be in it. Raises ClientError."""
    if not user.is_authenticated:
        raise ClientError("USER_HAS_TO_LOGIN")
    try:
        room = Room.objects.get(pk=room_id)
    except (Room.DoesNotExist, ValueError, TypeError):
        raise ClientError("ROOM_INVALID") from None
    if room.staff_only and not user.is_staff:
        raise ClientError("ROOM_ACCESS_DENIED")
    return room
