"""Sessions for consumers.

The *channel session* lives beside the socket (``socketsession.py``): it comes with each of the socket's messages, and
goes back with the finish if the consumer changed it. A message that was forwarded to another channel with the socket's
reply channel has the same session. It is gone when the socket is.

Where ``CHANNEL_SESSION_ENGINE`` is set, and for messages that no socket stands behind (built by hand, requests), it is
a Django session in that engine, or in ``SESSION_ENGINE``, under a key made from the reply channel. The worker deletes
it after the socket's disconnect consumer.

The *HTTP session* is the one that the browser's cookie names.
"""

from __future__ import annotations

import functools
import hashlib
import logging
from collections.abc import Callable
from importlib import import_module
from typing import Any, ParamSpec, TypeVar, overload

from django.conf import settings
from django.contrib.sessions.backends.base import CreateError, SessionBase, UpdateError

from procman.channels.exceptions import ConsumeLater
from procman.channels.handler import AsgiRequest
from procman.channels.message import Message, message_of
from procman.channels.socketsession import FetchedSession, SocketSession
from procman.log import escape

logger = logging.getLogger("django.channels")

P = ParamSpec("P")
R = TypeVar("R")

# The key of a channel session under which enforce_ordering keeps whose turn it is.
NEXT_ORDER = "__channels_next_order"


def session_key_for_reply_channel(reply_channel: str) -> str:
    """The key of the session that belongs to *reply_channel*: 32 characters, as Django's own keys have."""
    return "chn" + hashlib.sha1(reply_channel.encode(), usedforsecurity=False).hexdigest()[:29]


def session_for_reply_channel(reply_channel: str) -> SessionBase:
    """The Django session of *reply_channel*, in ``CHANNEL_SESSION_ENGINE`` or ``SESSION_ENGINE``.

    Without ``CHANNEL_SESSION_ENGINE`` the session of a socket is beside the socket and not here: ``channel_session`` on
    a consumer gives that one, also of a message that was forwarded with the socket's reply channel.

    Raises:
        ValueError: the engine keeps sessions in cookies, and sockets have none.
    """
    engine = getattr(settings, "CHANNEL_SESSION_ENGINE", None) or settings.SESSION_ENGINE
    if engine == "django.contrib.sessions.backends.signed_cookies":
        raise ValueError(
            "channel sessions cannot be kept in cookies (signed_cookies): set CHANNEL_SESSION_ENGINE to another engine"
        )
    key = session_key_for_reply_channel(reply_channel)
    session: SessionBase = import_module(engine).SessionStore(session_key=key)
    # Loading drops a key that is not stored yet, and a save would then choose another one.
    _ = session._session  # type: ignore[attr-defined]
    session._session_key = key
    return session


def _keeps_in_engine() -> bool:
    return bool(getattr(settings, "CHANNEL_SESSION_ENGINE", None))


def delete_engine_session(message: Message) -> None:
    """Delete the session that ``channel_session`` has made for *message*'s reply channel, if an engine keeps it."""
    if message.reply_channel is None:
        return
    used = getattr(message, "channel_session", None)
    is_in_engine = used is not None and not isinstance(used, SocketSession)
    if is_in_engine or _keeps_in_engine():
        session_for_reply_channel(message.reply_channel.name).delete()


def channel_session(func: Callable[P, R]) -> Callable[P, R]:
    """Give the consumer ``message.channel_session``, saved afterwards if it was changed.

    Raises:
        ValueError: no message among the first two arguments, or one without a reply channel.
        ConsumeLater: another worker is creating the same session.
    """

    @functools.wraps(func)
    def inner(*args: P.args, **kwargs: P.kwargs) -> R:
        message = message_of(args, "channel_session")
        if hasattr(message, "channel_session"):  # decorated twice
            return func(*args, **kwargs)
        if message.reply_channel is None:
            raise ValueError("No reply_channel sent to consumer; @channel_session is only for messages with one")
        slot = message.session_slot
        if slot is not None and not _keeps_in_engine():
            if slot.session is None:
                key = session_key_for_reply_channel(message.reply_channel.name)
                slot.session = (
                    FetchedSession(key, message.reply_channel) if slot.data is None else SocketSession(key, slot.data)
                )
            message.channel_session = slot.session
            return func(*args, **kwargs)
        session = message.channel_session = _open_engine_session(message.reply_channel.name)
        try:
            return func(*args, **kwargs)
        finally:
            _save_engine_session(session, message.reply_channel.name)

    return inner


def _open_engine_session(reply_channel: str) -> SessionBase:
    session = session_for_reply_channel(reply_channel)
    if not session.exists(session.session_key or ""):
        try:
            session.save(must_create=True)
        except CreateError as error:
            raise ConsumeLater() from error
    return session


def _save_engine_session(session: SessionBase, reply_channel: str) -> None:
    # An emptied session was deleted on purpose (logout): saving would bring it back.
    if not session.modified or session.is_empty():
        return
    was_flushed = session.session_key is None
    if was_flushed:  # and written to afterwards: a save would choose another key, which nobody finds
        session._session_key = session_key_for_reply_channel(reply_channel)
    try:
        session.save(must_create=was_flushed)
    except UpdateError:
        # It was deleted meanwhile, as the socket has closed: there is nobody to keep it for.
        logger.debug("the channel session of %s has gone and is not stored", escape(reply_channel))


def http_session(func: Callable[P, R]) -> Callable[P, R]:
    """Give the consumer ``message.http_session``, the one of the browser's cookie, or None; saved if changed.

    The message needs the path and headers of a request, as ``http.request`` and ``websocket.connect`` have. With the
    setting ``CHANNEL_SESSION_KEY_IN_URL`` a ``session_key`` in the query string counts before the cookie; URLs end up
    in logs and referrers, so it is off by default.

    Raises:
        ValueError: no message among the first two arguments, or it cannot be read as a request.
    """

    @functools.wraps(func)
    def inner(*args: P.args, **kwargs: P.kwargs) -> R:
        message = message_of(args, "http_session")
        if hasattr(message, "http_session"):
            return func(*args, **kwargs)
        message.http_session = _session_of_cookie(message)
        result = func(*args, **kwargs)
        # Not on an error: half of a change is worse than none. Read again: it may have been found only within.
        session = message.http_session
        if session is not None and session.modified:
            session.save()
        return result

    return inner


def _session_of_cookie(message: Message) -> SessionBase | None:
    try:
        if "method" not in message.content:
            message.content["method"] = "FAKE"  # AsgiRequest needs one
        request = AsgiRequest(message)
        key = request.GET.get("session_key") if getattr(settings, "CHANNEL_SESSION_KEY_IN_URL", False) else None
        key = key or request.COOKIES.get(settings.SESSION_COOKIE_NAME)
    except Exception as error:
        raise ValueError(
            f"Cannot parse HTTP message - are you sure this is a HTTP consumer? {type(error).__name__}: {error}"
        ) from error
    return http_session_store(key) if key else None


def http_session_store(session_key: str) -> SessionBase:
    """The session with *session_key* in ``SESSION_ENGINE``."""
    session: SessionBase = import_module(settings.SESSION_ENGINE).SessionStore(session_key=session_key)
    return session


def channel_and_http_session(func: Callable[P, R]) -> Callable[P, R]:
    """Both sessions: the HTTP session's key is kept in the channel session, for messages that carry no cookie."""

    @http_session
    @channel_session
    @functools.wraps(func)
    def inner(*args: P.args, **kwargs: P.kwargs) -> R:
        message = message_of(args, "channel_and_http_session")
        name = settings.SESSION_COOKIE_NAME
        if message.http_session is not None:
            if name not in message.channel_session:
                message.channel_session[name] = message.http_session.session_key
        elif message.channel_session.get(name):
            message.http_session = http_session_store(message.channel_session[name])
        return func(*args, **kwargs)

    return inner


def wait_channel_name(reply_channel: str) -> str:
    """Where messages of *reply_channel* wait for their turn."""
    return f"__wait__.{reply_channel.replace('!', '?')}"


def requeue_messages(message: Message) -> None:
    """Send everything that waits for *message*'s reply channel back to where it came from.

    Raises:
        ChannelFull: one of these channels is full; the message is lost.
    """
    wait_channel = wait_channel_name(message.reply_channel.name)
    layer = message.channel_layer
    while True:
        channel, content = layer.receive_many([wait_channel], block=False)
        if not channel:
            return
        original_channel = content.pop("original_channel")
        try:
            layer.send(original_channel, content)
        except layer.ChannelFull as error:
            raise _explained(error, original_channel, "giving a waiting message back to it") from error


def _explained(error: Exception, channel: str, what: str) -> Exception:
    explained = type(error)(channel)
    explained.args = (f"channel {channel!r} is full while {what} (enforce_ordering): {error}",)
    return explained


@overload
def enforce_ordering(func: Callable[P, R], slight: bool = False) -> Callable[P, R]: ...
@overload
def enforce_ordering(func: None = None, slight: bool = False) -> Callable[[Callable[P, R]], Callable[P, R]]: ...
def enforce_ordering(func: Callable[P, R] | None = None, slight: bool = False) -> Any:
    """Run the consumer only when every earlier message of the socket has been consumed; early ones wait.

    The interface server hands out one message of a socket at a time, in order, so for its messages there is nothing
    to do. Messages from elsewhere are put in order by their ``order``, with the next one kept in the channel session;
    ``websocket.connect`` must be decorated too then, as it has order 0. What their consumer returns is dropped.

    Raises:
        ValueError: *slight* (gone since 1.0), no message, or one without ``order``.
        ChannelFull: there is no room for an early message, or for one that goes back.
    """
    if slight:
        raise ValueError("slight ordering is gone: use enforce_ordering without it")
    return enforce_ordering if func is None else _enforce_ordering(func)


def _enforce_ordering(func: Callable[P, R]) -> Callable[P, R | None]:
    beside_socket = channel_session(func)
    ordered = channel_session(functools.partial(_in_order, func))

    @functools.wraps(func)
    def inner(*args: P.args, **kwargs: P.kwargs) -> R | None:
        message = message_of(args, "enforce_ordering")
        if message.content.get("order") is None:
            raise ValueError("No `order` value in message; @enforce_ordering can only be used on messages with one")
        if message.session_slot is not None and message.session_slot.is_ordered:
            return beside_socket(*args, **kwargs)
        return ordered(*args, **kwargs)

    return inner


def _in_order(func: Callable[..., object], *args: Any, **kwargs: Any) -> None:
    message = message_of(args, "enforce_ordering")
    order = int(message.content["order"])
    session = message.channel_session
    next_order = session.get(NEXT_ORDER, 0)
    if order == next_order:
        func(*args, **kwargs)
        session[NEXT_ORDER] = order + 1
        session.save()
        session.modified = False
        requeue_messages(message)
        return
    wait_channel = wait_channel_name(message.reply_channel.name)
    message.content["original_channel"] = message.channel.name
    try:
        message.channel_layer.send(wait_channel, message.content)
    except message.channel_layer.ChannelFull as error:
        raise _explained(error, wait_channel, "an early message waits") from error
    # The order may have moved on while the message was being parked, and nobody would fetch it then.
    if session.load().get(NEXT_ORDER, 0) != next_order:
        requeue_messages(message)
