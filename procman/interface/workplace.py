"""HTTP while the code of the site is being written: a page that says so while it does not run.

``manage.py runserver`` keeps the interface through a reload. A request meanwhile waits for the next process with the
project's code; where that one does not come up, a browser that asks for a page is shown why (status 503), and the page
asks again by itself until the site is back. Everything else goes on waiting. Only with ``DEBUG``, as Django's own.
"""

from __future__ import annotations

from html import escape
from typing import Any

from procman.interface.errors import Refusal
from procman.interface.http import Application, Exchange, Receive, Scope, Send

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta http-equiv="refresh" content="2">
<title>{title}</title>
<style>body{{font:16px/1.5 sans-serif;margin:3em auto;max-width:60em;padding:0 1em;color:#222;background:#fff}}
pre{{background:#f4f4f4;padding:1em;overflow:auto;font-size:14px}}</style></head>
<body><h1>{title}</h1><p>Open WebSockets are kept. This page loads again by itself as soon as the code runs.</p>
<pre>{text}</pre></body></html>
"""


def build_page(title: str, text: str) -> str:
    """The page; *text* is shown as it is, such as a traceback."""
    return _PAGE.format(title=escape(title), text=escape(text))


def is_for_page(scope: Scope) -> bool:
    """Whether a person waits for the answer: a GET that prefers HTML."""
    accepts = [value for name, value in scope["headers"] if name == b"accept"]
    return scope["method"] == "GET" and any(value.lstrip().startswith(b"text/html") for value in accepts)


class _Standstill(Refusal):
    """The answer to a person while the code does not run."""


class Workplace(Application):
    """The ASGI application with a page for the time in which nothing takes requests."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._page = ""
        self._waiting: set[Exchange] = set()

    def show(self, page: str) -> None:
        """Answer with *page* from now on, also those who wait; "" lets requests through again."""
        self._page = page if self.project.debug else ""
        if self._page:
            for exchange in self._waiting:
                if not exchange.has_started and not exchange.parts:
                    exchange.fail(_Standstill(503, self._page))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request; the page leaves no line in the log, as it is asked for every two seconds."""
        if self._page and is_for_page(scope):
            await self._send_page(self._page, send)
        else:
            await super().__call__(scope, receive, send)

    async def _run(self, exchange: Exchange, scope: Scope, receive: Receive, send: Send) -> None:
        if is_for_page(scope):
            self._waiting.add(exchange)
        try:
            await super()._run(exchange, scope, receive, send)
        finally:
            self._waiting.discard(exchange)

    async def _refuse(self, exchange: Exchange, method: str, refusal: Refusal, send: Send) -> None:
        if isinstance(refusal, _Standstill):
            exchange.status, exchange.has_started = refusal.status, True
            exchange.size = await self._send_page(refusal.text, send)
        else:
            await super()._refuse(exchange, method, refusal, send)

    async def _send_page(self, page: str, send: Send) -> int:
        content = page.encode()
        headers = [
            (b"content-type", b"text/html; charset=utf-8"),
            (b"content-length", b"%d" % len(content)),
            (b"cache-control", b"no-store"),
            (b"retry-after", b"2"),
        ]
        await send({"type": "http.response.start", "status": 503, "headers": headers})
        await send({"type": "http.response.body", "body": content})
        return len(content)
