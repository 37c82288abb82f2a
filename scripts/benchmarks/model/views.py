"""Drivers of one request through the default middleware to a trivial view: ``ours`` (AsgiHandler), ``wsgi`` (Django's).

Both begin with what their server gives them, a decoded message or an environ, and end with the closed response.
"""

import argparse
import io
from collections.abc import Callable
from typing import Any

from benchmarks.layers.common import run_driver
from benchmarks.model import common

HEADERS = {
    "host": "example.com",
    "user-agent": "Mozilla/5.0 (X11; Linux x86_64; rv:130.0) Gecko/20100101 Firefox/130.0",
    "accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
    "accept-language": "en-US,en;q=0.5",
    "accept-encoding": "gzip, deflate, br",
    "cookie": "csrftoken=abcdefghijklmnopqrstuvwxyz012345; theme=dark",
    "upgrade-insecure-requests": "1",
}


def configure() -> None:
    """A project as ``startproject`` makes it, with one view."""
    import django
    from django.conf import settings
    from django.http import HttpResponse
    from django.urls import path

    settings.configure(
        SECRET_KEY="bench",
        ALLOWED_HOSTS=["example.com"],
        ROOT_URLCONF=type("urls", (), {"urlpatterns": [path("hello/", lambda request: HttpResponse("hello"))]}),
        INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", "django.contrib.sessions"],
        MIDDLEWARE=[
            "django.middleware.security.SecurityMiddleware",
            "django.contrib.sessions.middleware.SessionMiddleware",
            "django.middleware.common.CommonMiddleware",
            "django.middleware.csrf.CsrfViewMiddleware",
            "django.contrib.auth.middleware.AuthenticationMiddleware",
            "django.contrib.messages.middleware.MessageMiddleware",
            "django.middleware.clickjacking.XFrameOptionsMiddleware",
        ],
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    )
    django.setup()


def ours() -> Callable[[], Any]:
    """One message through AsgiHandler."""
    from procman.channels.handler import AsgiHandler
    from procman.channels.message import Message

    handler = AsgiHandler()
    content = {
        "reply_channel": "interface.0123abcd!1", "http_version": "1.1", "method": "GET", "scheme": "http",
        "path": "/hello/", "query_string": b"a=1", "root_path": "", "body": b"", "client": ["127.0.0.1", 5000],
        "server": ["127.0.0.1", 8000], "headers": [[k.encode(), v.encode()] for k, v in HEADERS.items()],
    }  # fmt: skip

    def call() -> Any:
        (answer,) = handler(Message(dict(content), "http.request", None))
        return answer["status"], answer["content"]

    return call


def wsgi() -> Callable[[], Any]:
    """One environ through WSGIHandler."""
    from django.core.handlers.wsgi import WSGIHandler

    handler = WSGIHandler()
    environ = {
        "REQUEST_METHOD": "GET", "SCRIPT_NAME": "", "PATH_INFO": "/hello/", "QUERY_STRING": "a=1",
        "SERVER_PROTOCOL": "HTTP/1.1", "SERVER_NAME": "127.0.0.1", "SERVER_PORT": "8000", "REMOTE_ADDR": "127.0.0.1",
        "REMOTE_PORT": "5000", "wsgi.version": (1, 0), "wsgi.url_scheme": "http", "wsgi.multithread": False,
        "wsgi.multiprocess": True, "wsgi.run_once": False, "wsgi.errors": io.StringIO(),
        **{"HTTP_" + name.upper().replace("-", "_"): value for name, value in HEADERS.items()},
    }  # fmt: skip
    started: list[str] = []

    def call() -> Any:
        response = handler({**environ, "wsgi.input": io.BytesIO()}, lambda status, headers: started.append(status))
        try:
            return int(started.pop()[:3]), b"".join(response)
        finally:
            response.close()

    return call


def measure(asked: argparse.Namespace) -> dict[str, float]:
    """A sample by *asked.contestant*."""
    configure()
    call = {"ours": ours, "wsgi": wsgi}[asked.contestant]()
    assert call() == (200, b"hello")
    return common.cpu_per_call(call, asked.seconds)


if __name__ == "__main__":
    run_driver(measure)
