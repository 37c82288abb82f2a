"""The parts of streamed responses that an interface was given: each is written once, however often it is sent.

Pure. A sender that waits for a part does not know whether a hub that dies has passed it on, and sends it to the next
hub again, under the same key. Bounds: parts whose clients have not taken them yet, and the last 1,024 others; a sender
repeats only its latest part.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

_REMEMBERED = 1024


@dataclass(slots=True, eq=False)
class _Part:
    key: str
    token: int | None  # the hub's name for it; None: that hub has gone


class Parts:
    """Keys of parts, and the numbers under which the interface knows those that are being written."""

    def __init__(self) -> None:
        self._count = 0
        self._unwritten: dict[int, _Part] = {}
        self._by_key: dict[str, _Part] = {}
        self._answers: OrderedDict[str, bool] = OrderedDict()

    def arrived(self, key: str, token: int) -> int | None:
        """A part has come from the hub; its number, None if it has come before."""
        part = self._by_key.get(key)
        if part is not None:
            part.token = token
            return None
        if key in self._answers:
            return None
        self._count += 1
        self._unwritten[self._count] = self._by_key[key] = _Part(key, token)
        return self._count

    def answer(self, key: str) -> bool | None:
        """Whether the part *key* was delivered, None while that is open."""
        return self._answers.get(key)

    def written(self, number: int, is_delivered: bool) -> int | None:
        """Part *number* was delivered, or its client is gone; the token by which to tell the hub, if there is one.

        Numbers are this process's own: a token of a dead hub may be that of somebody else's part at the next one.
        """
        part = self._unwritten.pop(number, None)
        if part is None:
            return None
        del self._by_key[part.key]
        self._answers[part.key] = is_delivered
        if len(self._answers) > _REMEMBERED:
            self._answers.popitem(last=False)
        return part.token

    def hub_lost(self) -> None:
        """The hub has gone, and its tokens with it."""
        for part in self._unwritten.values():
            part.token = None
