"""Who is logged in, from either session."""

import pytest
from django.conf import settings
from django.contrib import auth
from django.contrib.auth.models import AnonymousUser, User
from django.contrib.sessions.backends.db import SessionStore
from django.test import override_settings

from procman.channels.auth import (
    channel_and_http_session_user_from_http,
    channel_session_user,
    channel_session_user_from_http,
    http_session_user,
    transfer_user,
)
from procman.channels.message import Message, SessionSlot

pytestmark = pytest.mark.usefixtures("database")


@pytest.fixture
def user():
    return User.objects.create_user("ada", password="x")


@pytest.fixture
def session(user):
    made = SessionStore()
    made[auth.SESSION_KEY] = str(user.pk)
    made[auth.BACKEND_SESSION_KEY] = settings.AUTHENTICATION_BACKENDS[0]
    made[auth.HASH_SESSION_KEY] = user.get_session_auth_hash()
    made.save()
    return made


def connect(session=None, slot=None):
    headers = [[b"cookie", f"sessionid={session.session_key}".encode()]] if session else []
    made = Message({"reply_channel": "i!1", "path": "/", "headers": headers}, "websocket.connect", None)
    made.session_slot = slot
    return made


def receive(slot):
    made = Message({"reply_channel": "i!1", "path": "/"}, "websocket.receive", None)
    made.session_slot = slot
    return made


def user_of(message):
    return message.user


@pytest.mark.parametrize("decorator", [http_session_user, channel_session_user_from_http])
def test_the_user_is_the_http_sessions(decorator, user, session):
    assert decorator(user_of)(connect(session, SessionSlot(b""))) == user


@pytest.mark.parametrize("decorator", [http_session_user, channel_session_user, channel_session_user_from_http])
def test_without_a_session_the_user_is_anonymous(decorator):
    found = decorator(user_of)(connect(slot=SessionSlot(b"")))
    assert isinstance(found, AnonymousUser)


def test_the_user_stays_known_on_the_socket(user, session):
    slot = SessionSlot(b"")
    channel_session_user_from_http(user_of)(connect(session, slot))
    later = SessionSlot(slot.session.changed_data())
    assert channel_session_user(user_of)(receive(later)) == user


def test_user_and_http_session_are_there_on_every_message(user, session):
    slot = SessionSlot(b"")
    seen = []
    consumer = channel_and_http_session_user_from_http(
        lambda m: seen.append((m.user.username, m.http_session.session_key))
    )
    consumer(connect(session, slot))
    consumer(receive(slot))
    assert seen == [("ada", session.session_key)] * 2


def test_a_changed_password_ends_the_sockets_login(user, session):
    slot = SessionSlot(b"")
    channel_session_user_from_http(user_of)(connect(session, slot))
    user.set_password("other")
    user.save()
    assert isinstance(
        channel_session_user(lambda m: m.user if m.user.pk else AnonymousUser())(receive(slot)), AnonymousUser
    )


def test_a_rotated_secret_key_keeps_the_login(user, session):
    slot = SessionSlot(b"")
    channel_session_user_from_http(user_of)(connect(session, slot))
    with override_settings(SECRET_KEY="rotated", SECRET_KEY_FALLBACKS=[settings.SECRET_KEY]):
        assert channel_session_user(lambda m: m.user.username)(receive(slot)) == "ada"


def test_the_user_is_looked_up_only_when_it_is_used(user, session, django_assert_no_user_query):
    slot = SessionSlot(b"")
    channel_session_user_from_http(lambda m: None)(connect(session, slot))
    with django_assert_no_user_query:
        channel_session_user(lambda m: None)(receive(slot))


@pytest.fixture
def django_assert_no_user_query():
    from django.db import connection
    from django.test.utils import CaptureQueriesContext

    class Context(CaptureQueriesContext):
        def __exit__(self, *args):
            super().__exit__(*args)
            assert not self.captured_queries

    return Context(connection)


def test_nobody_is_transferred_from_an_anonymous_session():
    to = {}
    transfer_user({auth.SESSION_KEY: "1"}, to)
    assert to == {}


def test_a_call_without_a_message_is_refused():
    with pytest.raises(ValueError, match="Message"):
        channel_session_user(user_of)()
