"""What the channel layer last said of itself: asked by one question at a time, each with a deadline.

Holds one answer and when it came. Whoever asks while a question is under way shares it, so that many scrapes cost the
layer one. Decides nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from procman.layers.base import AsyncChannelLayer
from procman.layers.errors import LayerError

logger = logging.getLogger("procman.interface")

# Seconds. A layer answers within milliseconds; a scrape or a health check must not wait for one that does not.
ASK_TIMEOUT = 2.0
ASK_INTERVAL = 2.0
# While there is no worker: a site that has just started, or is back, is soon said to be ready.
SHORT_INTERVAL = 0.25
# An answer older than this says nothing of now: two questions were lost, and the third had its time.
MAX_AGE = 3 * ASK_INTERVAL + ASK_TIMEOUT


class Survey:
    """The statistics of *layer*; ``now`` is monotonic seconds."""

    def __init__(self, layer: AsyncChannelLayer, now: Callable[[], float]) -> None:
        self._layer, self._now = layer, now
        self._question: asyncio.Task[bool] | None = None
        self._came = 0.0
        self.statistics: dict[str, Any] = {}
        self.is_fresh = False  # the last question was answered

    @property
    def workers(self) -> int | None:
        """How many worker threads were with the layer; None: it never said."""
        return self.statistics.get("workers")

    @property
    def fresh(self) -> dict[str, Any]:
        """The answer to the last question, empty if it was not answered."""
        return self.statistics if self.is_fresh else {}

    @property
    def age(self) -> float:
        """Seconds since the layer last answered."""
        return self._now() - self._came

    async def ask(self) -> bool:
        """Ask the layer for its statistics; whether it answered within ``ASK_TIMEOUT``."""
        if self._question is None or self._question.done():
            self._question = asyncio.get_running_loop().create_task(self._ask())
        return await asyncio.shield(self._question)

    async def keep_asking(self) -> None:
        """Ask again and again, until cancelled."""
        while True:
            await self.ask()
            await asyncio.sleep(ASK_INTERVAL if self.workers else SHORT_INTERVAL)

    async def stop(self, tasks: list[asyncio.Task[None]]) -> None:
        """End *tasks*, which ask, and the question that is under way."""
        ending = [*tasks, *([self._question] if self._question is not None else [])]
        for task in ending:
            task.cancel()
        await asyncio.gather(*ending, return_exceptions=True)

    async def _ask(self) -> bool:
        try:
            async with asyncio.timeout(ASK_TIMEOUT):
                self.statistics = await self._layer.statistics()
        except (LayerError, NotImplementedError, TimeoutError) as error:
            logger.debug("the channel layer did not say how it is: %s", error or type(error).__name__)
            self.is_fresh = False
            return False
        self._came, self.is_fresh = self._now(), True
        return True
