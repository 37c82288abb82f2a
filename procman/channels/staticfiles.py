"""Static files in development: the ``http.request`` consumer that serves them before the project's views."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlparse
from urllib.request import url2pathname

from django.conf import settings
from django.contrib.staticfiles import utils
from django.contrib.staticfiles.views import serve
from django.core.exceptions import SuspiciousOperation
from django.core.handlers.exception import response_for_exception
from django.http import Http404

from procman.channels.handler import AsgiHandler, ViewConsumer


class StaticFilesHandler(AsgiHandler):
    """Serves what is below ``STATIC_URL`` through the staticfiles finders, and the project's views for the rest."""

    def __init__(self) -> None:
        super().__init__()
        self.base_url = urlparse(self.get_base_url())

    def get_base_url(self) -> str:
        """``STATIC_URL``, checked."""
        utils.check_settings()
        return str(settings.STATIC_URL)

    def _should_handle(self, path: str) -> bool:
        return path.startswith(self.base_url[2]) and not self.base_url[1]

    def file_path(self, url: str) -> str:
        """The path below the static root that *url* names."""
        return url2pathname(url[len(self.base_url[2]) :])

    def serve(self, request: Any) -> Any:
        """The static file that *request* asks for. Raises Http404."""
        return serve(request, self.file_path(request.path), insecure=True)

    def get_response(self, request: Any) -> Any:
        """The static file, or the view's response."""
        if not self._should_handle(request.path):
            return super().get_response(request)
        try:
            return self.serve(request)
        except Http404 as error:
            if settings.DEBUG:
                from django.views import debug

                return debug.technical_404_response(request, error)
            return super().get_response(request)
        except SuspiciousOperation as error:  # a path that leads out of the directories
            return response_for_exception(request, error)


class StaticFilesConsumer(ViewConsumer):
    """The default ``http.request`` consumer where ``DEBUG`` is on and staticfiles is installed."""

    handler_class = StaticFilesHandler


def consumer_for_project() -> ViewConsumer:
    """The ``http.request`` consumer that fits the project's settings."""
    from django.apps import apps

    if settings.DEBUG and apps.is_installed("django.contrib.staticfiles"):
        return StaticFilesConsumer()
    return ViewConsumer()
