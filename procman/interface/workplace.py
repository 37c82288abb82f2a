"""HTTP while the code of the site is being written: a page that says so while it does not run.

``manage.py runserver`` and ``channels-run --reload`` keep the interface through a reload. A request meanwhile waits for
the next process with the project's code; where that one does not come up, a browser that asks for a page is shown why
(status 503), and the page asks again by itself until the site is back. Everything else goes on waiting. Only with
``DEBUG``, as Django's own.
"""

from __future__ import annotations

from html import escape
from typing import Any

from procman.interface.exchange import Exchange
from procman.interface.messages import ResponseStart
from procman.interface.request import Request
from procman.interface.site import Site

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


def is_for_page(request: Request) -> bool:
    """Whether a person waits for the answer: a GET that prefers HTML."""
    accepts = [value for name, value in request.headers if name == b"accept"]
    return request.method == "GET" and any(value.lstrip().startswith(b"text/html") for value in accepts)


class Workplace(Site):
    """A site with a page for the time in which nothing takes requests."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._page = ""

    def show(self, page: str) -> None:
        """Answer with *page* from now on, also those who wait; "" lets requests through again."""
        self._page = page if self.project.debug else ""
        if self._page:
            for client in list(self.replies.clients.values()):
                if isinstance(client, Exchange) and not client.writer.has_started and is_for_page(client.request):
                    client.answer(_build_response(self._page))

    def local_response(self, request: Request) -> ResponseStart | None:
        """The page, for a person."""
        return _build_response(self._page) if self._page and is_for_page(request) else super().local_response(request)


def _build_response(page: str) -> ResponseStart:
    content = page.encode()
    headers = [
        (b"Content-Type", b"text/html; charset=utf-8"),
        (b"Content-Length", b"%d" % len(content)),
        (b"Cache-Control", b"no-store"),
        (b"Retry-After", b"2"),
    ]
    return ResponseStart(503, headers, content, False)
