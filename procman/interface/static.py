"""Static files, served by the interface itself: they never cross the channel layer.

With ``DEBUG`` what Django's own finders would find, without it, where ``--static`` asks for it, what ``collectstatic``
has put into ``STATIC_ROOT``. ``whitenoise`` decides about names, types, caching, conditions, ranges and compressed
variants; here stands only what is asked of it. Opens files, and leaves reading to the exchange.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any, BinaryIO, NamedTuple

from whitenoise import WhiteNoise

from procman.interface.errors import Refusal
from procman.interface.messages import Header, ResponseStart
from procman.interface.response import refusal_start
from procman.log import escape
from procman.settings import ProjectConfiguration

logger = logging.getLogger("procman.interface")

# What ManifestStaticFilesStorage puts into a name: such a file never changes.
_HASHED = r"^.+\.[0-9a-f]{12}\..+$"
_MAX_AGE = 60  # seconds that browsers keep other files without asking; with DEBUG they always ask
# The headers that matter for a static file, as the library wants them named.
_NAMES = {
    b"accept-encoding": "HTTP_ACCEPT_ENCODING",
    b"if-modified-since": "HTTP_IF_MODIFIED_SINCE",
    b"if-none-match": "HTTP_IF_NONE_MATCH",
    b"range": "HTTP_RANGE",
}


class StaticResponse(NamedTuple):
    """A response whose content is *file*, None if it has none or if *start* has it."""

    start: ResponseStart
    file: BinaryIO | None = None


class StaticFiles:
    """The static files of *project*; none unless it has ``DEBUG`` on or *is_asked_for*.

    Symbolic links are followed, as Django does: who can write below the directories decides what is served.
    """

    def __init__(self, project: ProjectConfiguration, is_asked_for: bool) -> None:
        self._url = project.static_url
        self._debug = project.debug
        self._files: WhiteNoise | None = None
        if self._url and project.static_roots and (project.debug or is_asked_for):
            # Looked for at each request: a deploy brings files while the interface goes on.
            self._files = WhiteNoise(
                None, autorefresh=True, max_age=0 if project.debug else _MAX_AGE, immutable_file_test=_HASHED
            )
            for prefix, directory in reversed(project.static_roots):  # the library takes the last first
                self._files.add_files(directory, self._url + (f"{prefix}/" if prefix else ""))

    def find(self, method: str, path: str, headers: Iterable[Header]) -> StaticResponse | None:
        """The response to a request for *path* (without escapes); None: it is no static file, ask the workers.

        With ``DEBUG`` that is also a file that is not there: Django's page tells more.
        """
        if self._files is None or not path.startswith(self._url):
            return None
        missing = None if self._debug else StaticResponse(refusal_start(Refusal(404, "There is no such file.")))
        try:
            found = self._files.find_file(path)
            if found is None:
                return missing
            environ = {_NAMES[name]: value.decode("latin-1") for name, value in headers if name in _NAMES}
            return _build(found.get_response(method, environ))
        except (OSError, ValueError) as error:
            logger.warning("static file %s cannot be read: %s", escape(path), escape(str(error)))
            return missing


def _build(response: Any) -> StaticResponse:
    headers = [(name.encode("latin-1"), str(value).encode("latin-1")) for name, value in response.headers]
    if response.status >= 400 and not any(name == b"Content-Length" for name, _ in headers):
        headers.append((b"Content-Length", b"0"))
    has_content = response.file is not None
    return StaticResponse(ResponseStart(int(response.status), headers, b"", has_content), response.file)
