"""What a project's type checker makes of the programming model: checked by mypy (``scripts/lint``), never run.

``assert_type`` fails where a signature is lost, and strict mode refuses an ignore for an error that is none.
"""

from collections.abc import Callable
from typing import assert_type

from procman.channels import Channel, Group, include, route
from procman.channels.auth import (
    channel_and_http_session_user_from_http,
    channel_session_user,
    channel_session_user_from_http,
    http_session_user,
)
from procman.channels.message import Message
from procman.channels.sessions import channel_and_http_session, channel_session, enforce_ordering, http_session


@channel_session_user_from_http
def ws_connect(message: Message, room: str) -> None:
    """Consumers of sockets use the reply channel without a look."""
    message.reply_channel.send({"accept": True})
    message.channel_session["room"] = room
    Group(f"chat-{room}").add(message.reply_channel)
    Channel("log").send({"user": str(message.user)}, on_commit=True, using="default")
    if message.http_session is not None:
        message.http_session.save()


@enforce_ordering
@channel_session_user
def ws_receive(message: Message) -> int:
    """A consumer may return something, for tests."""
    text: str = message.content.get("text", "")
    return len(text)


@enforce_ordering(slight=False)
@channel_and_http_session
def ws_disconnect(message: Message) -> None:
    """With arguments, the decorator is made first."""
    Group("chat").discard(message.reply_channel.name)


class Methods:
    """Decorators keep methods methods."""

    @http_session
    @channel_session
    def receive(self, message: Message, *, times: int = 1) -> str:
        """The second argument is the message."""
        return "x" * times


undecorated: Callable[[Message], int] = http_session_user(channel_and_http_session_user_from_http(ws_receive))
routing = [route("websocket.receive", ws_receive), include("mysite.routing", path=r"^/chat/")]


def check(message: Message) -> None:
    """The types that come out, and the mistakes that are found."""
    assert_type(ws_receive(message), int)
    assert_type(Methods().receive(message, times=2), str)
    assert_type(message.redelivered, bool)
    assert_type(message.id, str | None)
    ws_connect(message)  # type: ignore[call-arg]
    ws_connect(message, room=5)  # type: ignore[arg-type]
    Methods().receive(message, count=2)  # type: ignore[call-arg]
    Channel("a").send("text")  # type: ignore[arg-type]
