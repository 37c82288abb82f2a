"""The inbox of an interface: notices of a Redis stream, in order, turned into calls of its handler.

Reading removes nothing: after a broken connection it goes on where it was. Knows which groups the clients of this
process are in, so that a socket's end can name them, and which parts of responses were written, each once.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from procman.layers import codec
from procman.layers.base import InterfaceHandler, Offer
from procman.layers.errors import LayerUnavailable
from procman.layers.parts import Parts
from procman.layers.redis.aiolink import AsyncLink
from procman.layers.redis.crypto import UnreadableMessage
from procman.layers.redis.entries import split_tail
from procman.layers.redis.link import pack
from procman.layers.redis.seal import Seal

logger = logging.getLogger("procman.layers")
_BLOCK_MS = 5000
_COUNT = 256


class Inbox:
    """Reads the stream of the interface *name*.

    *disconnects* are offers that the handler does not know of; *tell* takes operations for ``lua/batch.lua``.
    """

    def __init__(
        self,
        name: str,
        prefix: str,
        handler: InterfaceHandler,
        disconnects: dict[int, Offer],
        tell: Callable[[tuple[Any, ...]], None],
        seal: Seal,
    ) -> None:
        self._seal = seal
        self.cursor = b"0-1"  # the first id that a stream may have
        self._key = f"{prefix}i:{name}"
        self._handler, self._disconnects, self._tell = handler, disconnects, tell
        self._parts = Parts()
        self._part_keys: dict[int, str] = {}
        self._members: dict[str, set[str]] = {}  # of each group
        self._groups: dict[str, set[str]] = {}  # of each channel
        self._numbers: list[int] = []  # of offers that have ended

    async def run(self, link: AsyncLink, on_read: Callable[[bytes, Sequence[int]], None]) -> None:
        """Read for ever; *on_read* hears how far, and which offers have ended. Raises LinkBroken."""
        while True:
            link.write(pack("XREAD", "COUNT", _COUNT, "BLOCK", _BLOCK_MS, "STREAMS", self._key, self.cursor))
            answer = await link.read()
            if isinstance(answer, Exception):
                raise LayerUnavailable(str(answer))
            if answer is None:
                continue
            for id_, fields in answer[0][1]:
                try:
                    self._handle(fields)
                except (UnreadableMessage, ValueError) as error:
                    logger.error("a message for a client is dropped: %s", error)
                self.cursor = id_
            numbers, self._numbers = self._numbers, []
            on_read(self.cursor, numbers)

    # -- notices ------------------------------------------------------------------------------------------------------

    def _handle(self, fields: Sequence[bytes]) -> None:
        kind, first, *rest = fields
        handler = self._handler
        if kind == b"F":
            self._finished(*codec.unpack(first))
        elif kind == b"R":
            handler.on_reply(first.decode(), self._open(split_tail(rest[1])[1]), None)
        elif kind == b"G":
            if first.decode() in self._members:
                handler.on_group_send(first.decode(), self._open(split_tail(rest[1])[1]))
        elif kind == b"P":
            self._part_arrived(first.decode(), rest[0].decode(), rest[1])
        elif kind == b"X":
            number = int(first)
            self._numbers.append(number)
            self._disconnects.pop(number, None)
            handler.on_failed(number, rest[1].decode())
        elif kind == b"Q":
            self._finished(int(first), None, ())
        elif kind == b"U":
            handler.on_begun(int(first))
        elif kind == b"A":
            group, channel = first.decode(), rest[1].decode()
            self._add(group, channel)
            handler.on_group_add(group, channel)
        elif kind == b"D":
            group, channel = first.decode(), rest[1].decode()
            self.discard(group, channel)
            handler.on_group_discard(group, channel)
        elif kind == b"Z":
            self.set_memberships(())
            handler.on_flush()

    def _finished(self, number: int, session: bytes | None, sends: Iterable[Any]) -> None:
        handler = self._handler
        self._numbers.append(number)
        self._disconnects.pop(number, None)
        if not handler.is_unfinished(number):
            return
        for name, body, is_group in sends:
            if is_group and name not in self._members:
                continue
            try:
                message = self._open(body)
            except (UnreadableMessage, ValueError) as error:
                logger.error("a message for a client is dropped: %s", error)
                continue
            if is_group:
                handler.on_group_send(name, message)
            else:
                handler.on_reply(name, message, None)
        try:
            known = self._seal.open_session(session)
        except UnreadableMessage as error:
            logger.error("the session of a socket is dropped: %s", error)
            known = None
        handler.on_finished(number, known)

    def _open(self, body: bytes) -> dict[str, Any]:
        return codec.decode(self._seal.open(body))

    # -- parts --------------------------------------------------------------------------------------------------------

    def _part_arrived(self, channel: str, key: str, tail: bytes) -> None:
        number = self._parts.arrived(key, 0)
        if number is not None:
            self._part_keys[number] = key
            self._handler.on_reply(channel, self._open(split_tail(tail)[1]), number)
            return
        is_delivered = self._parts.answer(key)
        if is_delivered is not None:  # Redis has lost the answer
            self._tell((b"A", key, b"1" if is_delivered else b"0"))

    def written(self, number: int, is_delivered: bool) -> None:
        """Part *number* was delivered, or its client is gone."""
        key = self._part_keys.pop(number, None)
        if key is not None:
            self._parts.written(number, is_delivered)
            self._tell((b"A", key, b"1" if is_delivered else b"0"))

    # -- groups -------------------------------------------------------------------------------------------------------

    def set_memberships(self, memberships: Iterable[tuple[str, str]]) -> None:
        """These are all memberships."""
        self._members.clear()
        self._groups.clear()
        for group, channel in memberships:
            self._add(group, channel)

    def discard(self, group: str, channel: str) -> None:
        """*channel* is no member of *group* any more."""
        for table, name, item in ((self._members, group, channel), (self._groups, channel, group)):
            items = table.get(name)
            if items is not None:
                items.discard(item)
                if not items:
                    del table[name]

    def forget(self, channel: str) -> list[str]:
        """*channel* is gone; the groups that it was in."""
        groups = list(self._groups.get(channel, ()))
        for group in groups:
            self.discard(group, channel)
        return groups

    def groups(self) -> list[str]:
        """The groups with members here."""
        return list(self._members)

    def _add(self, group: str, channel: str) -> None:
        self._members.setdefault(group, set()).add(channel)
        self._groups.setdefault(channel, set()).add(group)
