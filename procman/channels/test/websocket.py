"""``WSClient``: a client with what a browser brings along: path, headers, cookies, a session, a login."""

from __future__ import annotations

import copy
import json as json_module
from collections.abc import Mapping
from http.cookies import SimpleCookie
from typing import Any

from django.apps import apps
from django.conf import settings
from django.contrib.sessions.backends.base import SessionBase
from django.http import HttpRequest

from procman.channels import DEFAULT_CHANNEL_LAYER
from procman.channels.sessions import http_session_store, session_for_reply_channel
from procman.channels.test.client import Client, ClientSession


class _BrowserSession(ClientSession):
    """The channel session of a client, whose ``save`` also makes it the HTTP session that the client's cookie names."""

    _client: WSClient

    def __init__(self, client: WSClient) -> None:
        super().__init__(client)
        self._loaded_from: bytes | None = None

    def _get_session(self, no_load: bool = False) -> dict[str, Any]:
        # A consumer may have changed what is stored since this was read.
        if self._loaded_from != self._client.session_data:
            self.__dict__.pop("_session_cache", None)
            self._loaded_from = self._client.session_data
        session: dict[str, Any] = super()._get_session(no_load)  # type: ignore[misc]
        return session

    _session = property(_get_session)

    def clear(self) -> None:
        """Empty the session."""
        super().clear()
        self._loaded_from = self._client.session_data

    def save(self, must_create: bool = False) -> None:
        """Store what the session holds."""
        content = dict(self._get_session())
        super().save(must_create)
        self._loaded_from = self._client.session_data
        self._client._save_http_session(content)

    def delete(self, session_key: str | None = None) -> None:
        """Empty what is stored."""
        super().delete(session_key)
        self._client._save_http_session(None)


class WSClient(Client):
    """One browser's end of a WebSocket. With *ordered* its messages are numbered from 0.

    ``session`` is its channel session, and what ``http_session`` finds by the cookie that goes with the first message.
    """

    def __init__(
        self, alias: str = DEFAULT_CHANNEL_LAYER, reply_channel: str | None = None, ordered: bool = False
    ) -> None:
        super().__init__(alias, reply_channel)
        self.order = 0
        self._is_numbering = ordered
        self._headers: dict[bytes, bytes] = {}
        self._cookies: dict[str, str] = {}
        self._sends_session_cookie = True
        self._session: SessionBase | None = None
        self._http_key: str | None = None

    # -- what goes with each message -----------------------------------------------------------------------------------

    def set_cookie(self, key: str, value: str) -> None:
        """Have a cookie sent; the last value for *key* wins."""
        self._cookies[key] = value

    def get_cookies(self) -> dict[str, str]:
        """The cookies of the next message; until the first one was sent, that of the session is among them.

        A session cookie that was set goes before this client's own: it names the session of somebody else, such as
        Django's test client.
        """
        cookies = dict(self._cookies)
        if settings.SESSION_COOKIE_NAME in cookies:
            return cookies
        if self._sends_session_cookie and apps.is_installed("django.contrib.sessions"):
            cookies[settings.SESSION_COOKIE_NAME] = self._http_key or self.session.session_key or ""
        return cookies

    def set_header(self, key: str | bytes, value: str | bytes) -> None:
        """Have a header sent; the last value for *key* wins.

        Raises:
            ValueError: *key* is ``cookie``: use ``set_cookie``.
        """
        name = (key if isinstance(key, bytes) else key.encode("ascii")).lower()
        if name == b"cookie":
            raise ValueError("Use set_cookie method for cookie header")
        self._headers[name] = value if isinstance(value, bytes) else value.encode("latin-1")

    @property
    def headers(self) -> list[list[bytes]]:
        """The headers of the next message, as pairs of name (lower case) and value."""
        cookies = self.get_cookies()
        pairs = [[name, value] for name, value in self._headers.items()]
        return [*pairs, [b"cookie", _encode_cookies(cookies)]] if cookies else pairs

    # -- sending, consuming, receiving ---------------------------------------------------------------------------------

    def send(
        self, to: str, content: Mapping[str, Any] | None = None, text: Any = None, path: str = "/"
    ) -> None:  # fmt: skip
        """Send *content* to the channel *to*, completed by what an interface would put in.

        *text* that is no str is sent as JSON. A ``path`` in *content* goes before the argument, of which a query string
        is passed on with ``websocket.connect`` only.

        Raises:
            ValueError: the client numbers its messages, and *content* has an ``order``.
        """
        message = copy.deepcopy(dict(content or {}))
        path, _, query_string = path.partition("?")
        if query_string and to == "websocket.connect":
            message.setdefault("query_string", query_string)
        message.setdefault("path", path)
        message.setdefault("reply_channel", self.reply_channel)
        message.setdefault("headers", self.headers)
        text = message.get("text") if text is None else text
        if text is not None:
            message["text"] = text if isinstance(text, str) else json_module.dumps(text)
        if self._is_numbering:
            if "order" in message:
                raise ValueError('Do not use "order" manually with "ordered=True"')
            message["order"] = self.order
            self.order += 1
        self._send(to, message)
        self._sends_session_cookie = False

    def send_and_consume(  # type: ignore[override]
        self,
        channel: str,
        content: Mapping[str, Any] | None = None,
        text: Any = None,
        path: str = "/",
        fail_on_none: bool = True,
        check_accept: bool = True,
    ) -> Any:
        """``send``, then ``consume``."""
        self.send(channel, content, text, path)
        return self.consume(channel, fail_on_none=fail_on_none, check_accept=check_accept)

    def consume(  # type: ignore[override]
        self, channel: str, fail_on_none: bool = True, check_accept: bool = True, redelivered: bool = False
    ) -> Any:
        """As ``Client.consume``.

        Raises:
            AssertionError: as there; with *check_accept* also if the first answer to ``websocket.connect`` is not
                exactly ``{"accept": True}``.
        """
        result = super().consume(channel, fail_on_none=fail_on_none, redelivered=redelivered)
        if channel == "websocket.connect" and check_accept:
            received = self.receive(json=False)
            if received != {"accept": True}:
                raise AssertionError(f"Connection rejected: {received} != {{'accept': True}}")
        return result

    def receive(self, json: bool = True) -> Any:
        """The text of the next message to this client, decoded if *json*; without text its content; None without one.

        Raises:
            ValueError: *json*, and the text is none.
        """
        content = super().receive()
        if not content or not isinstance(content.get("text"), str):
            return content or None
        return json_module.loads(content["text"]) if json else content["text"]

    # -- session and login ---------------------------------------------------------------------------------------------

    @property
    def session(self) -> SessionBase:
        """The channel session, as the last consumer left it; ``save`` it after a change.

        Raises:
            OSError: ``django.contrib.sessions`` is not installed.
        """
        if not apps.is_installed("django.contrib.sessions"):
            raise OSError("Add django.contrib.sessions to the INSTALLED_APPS to use session")
        if self._session is None:
            has_engine = getattr(settings, "CHANNEL_SESSION_ENGINE", None)
            self._session = session_for_reply_channel(self.reply_channel) if has_engine else _BrowserSession(self)
        return self._session

    def _save_http_session(self, content: dict[str, Any] | None) -> None:
        """Make *content* (None: nothing) the HTTP session of this client."""
        key = self._http_key or self.session.session_key or ""
        store = http_session_store(key)
        if content is None:
            store.delete()
            self._http_key = None
            return
        # Loading would drop a key that is not stored yet, and a save would then choose another one.
        store._session_cache = content  # type: ignore[attr-defined]
        store.save(must_create=not store.exists(key))
        # Where cookies hold the session, its key is its content.
        self._http_key = store.session_key

    def login(self, **credentials: Any) -> bool:
        """Log the user with these credentials in; False if there is none, it is inactive, or there are no sessions."""
        from django.contrib.auth import authenticate

        user = authenticate(**credentials)
        if user is None or not user.is_active or not apps.is_installed("django.contrib.sessions"):
            return False
        self._login(user, None)
        return True

    def force_login(self, user: Any, backend: str | None = None) -> None:
        """Log *user* in without credentials, by the first authentication backend or by *backend*."""
        self._login(user, backend or settings.AUTHENTICATION_BACKENDS[0])

    def _login(self, user: Any, backend: str | None) -> None:
        from django.contrib.auth import login

        request = HttpRequest()
        request.session = self.session
        login(request, user, backend)
        self.session.save()
        if not isinstance(self.session, _BrowserSession):
            self._save_http_session(dict(self.session.items()))


def _encode_cookies(cookies: Mapping[str, str]) -> bytes:
    encoder: SimpleCookie = SimpleCookie()
    for name, value in cookies.items():
        encoder[name] = value
    return encoder.output(header="", sep=";").strip().encode("ascii")
