"""``message.user`` for consumers, from the channel session or from the HTTP session.

The user is looked up in the database when ``message.user`` is first used, not before.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from django.contrib import auth
from django.http import HttpRequest
from django.utils.functional import SimpleLazyObject

from procman.channels.message import Message, message_of
from procman.channels.sessions import channel_and_http_session, channel_session, http_session

P = ParamSpec("P")
R = TypeVar("R")


def transfer_user(from_session: Any, to_session: Any) -> None:
    """Copy who is logged in from one session to another, if anybody is."""
    keys = (auth.BACKEND_SESSION_KEY, auth.SESSION_KEY, auth.HASH_SESSION_KEY)
    if all(key in from_session for key in keys):
        for key in keys:
            to_session[key] = from_session[key]


def user_of_session(session: Any) -> Any:
    """The user that *session* says is logged in, verified as Django does; AnonymousUser without one."""
    if session is None:
        from django.contrib.auth.models import AnonymousUser

        return AnonymousUser()
    request = HttpRequest()
    request.session = session
    return auth.get_user(request)


def _set_user(message: Message, session: Any) -> None:
    message.user = user_of_session(None) if session is None else SimpleLazyObject(lambda: user_of_session(session))


def channel_session_user(func: Callable[P, R]) -> Callable[P, R]:
    """Give the consumer ``message.user``, the one logged in according to the channel session."""

    @channel_session
    @functools.wraps(func)
    def inner(*args: P.args, **kwargs: P.kwargs) -> R:
        message = message_of(args, "channel_session_user")
        _set_user(message, message.channel_session)
        return func(*args, **kwargs)

    return inner


def http_session_user(func: Callable[P, R]) -> Callable[P, R]:
    """Give the consumer ``message.user``, the one logged in according to the HTTP session."""

    @http_session
    @functools.wraps(func)
    def inner(*args: P.args, **kwargs: P.kwargs) -> R:
        message = message_of(args, "http_session_user")
        _set_user(message, message.http_session)
        return func(*args, **kwargs)

    return inner


def _with_transfer(func: Callable[P, R], decorator: str) -> Callable[P, R]:
    @functools.wraps(func)
    def inner(*args: P.args, **kwargs: P.kwargs) -> R:
        message = message_of(args, decorator)
        if message.http_session is not None:
            transfer_user(message.http_session, message.channel_session)
        return func(*args, **kwargs)

    return inner


def channel_session_user_from_http(func: Callable[P, R]) -> Callable[P, R]:
    """``message.user`` from the HTTP session, kept in the channel session for ``channel_session_user`` later on."""
    return http_session_user(channel_session(_with_transfer(func, "channel_session_user_from_http")))


def channel_and_http_session_user_from_http(func: Callable[P, R]) -> Callable[P, R]:
    """As ``channel_session_user_from_http``, with the HTTP session itself on every message of the socket."""
    return channel_and_http_session(http_session_user(_with_transfer(func, "channel_and_http_session_user_from_http")))
