"""What an interface hears from the supervisor while code is being written: a changed project, or why it does not run.

One JSON object per line on a pipe whose descriptor is in ``PROCMAN_NEWS_FD``: ``{"changed": [file, ...]}``, and then
``{"project": {...}}`` or ``{"broken": "traceback"}``. Without that variable nothing is heard.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
import threading
from collections.abc import Callable
from typing import Any

from procman.interface.workplace import Workplace, build_page
from procman.lifetime import inherited_fd
from procman.settings import ENV_NEWS_FD, ProjectConfiguration

logger = logging.getLogger("procman.interface")

TITLE = "The code does not run"
# Settings whose change needs nothing but to be known.
_FOLLOWED = ("allowed_hosts", "debug", "ws_protocols", "slow_readers", "static_url", "static_roots")


def is_wanted() -> bool:
    """Whether somebody tells news to this process."""
    return ENV_NEWS_FD in os.environ


def watch_news(on_news: Callable[[dict[str, Any]], None]) -> None:
    """Call *on_news* with each object, in a thread of its own, until the pipe ends."""
    fd = inherited_fd(ENV_NEWS_FD)
    if fd is None:
        return

    def read() -> None:
        with contextlib.suppress(OSError), os.fdopen(fd, encoding="utf-8") as lines:
            for line in lines:
                with contextlib.suppress(ValueError):
                    on_news(json.loads(line))

    threading.Thread(target=read, name="news", daemon=True).start()


class Follower:
    """Has *site* be what it hears; call it on the site's event loop."""

    def __init__(self, site: Workplace) -> None:
        self._site = site
        self._layer: tuple[str, dict[str, Any]] | None = None  # as it was described first

    def __call__(self, news: dict[str, Any]) -> None:
        """Follow *news*."""
        if "broken" in news:
            self._site.show(build_page(TITLE, str(news["broken"])))
            return
        self._site.show("")
        if "project" in news:
            self._follow(ProjectConfiguration(**news["project"]))

    def _follow(self, project: ProjectConfiguration) -> None:
        layer = project.layer, project.layer_config
        if self._layer is None:
            self._layer = layer
        if layer != self._layer:
            self._layer = layer
            logger.warning("CHANNEL_LAYERS has changed: start channels-run again for that")
        before = self._site.project
        fields = {name: getattr(project, name) for name in _FOLLOWED}
        if fields != {name: getattr(before, name) for name in _FOLLOWED}:
            self._site.use(dataclasses.replace(before, **fields))
