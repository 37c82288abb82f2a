"""What goes out on one WebSocket: at once as long as its client reads, by its backlog's rules while that is behind.

The part of ``websocket.WebSocketProtocol`` that knows the transport's buffer; ``backlog.py`` has the rules. A base
class and no object of its own, which would cost every idle socket memory.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from procman.interface.backlog import Backlog, Policy
from procman.log import escape

if TYPE_CHECKING:
    from procman.interface.site import Site

logger = logging.getLogger("procman.interface")


class WritingProtocol(asyncio.Protocol):
    """Writes to one client. Whoever extends it ends the socket in ``too_slow``."""

    __slots__ = ("backlog", "path", "site", "tokens", "transport", "window_bits")

    def __init__(self, site: Site) -> None:
        self.site = site
        self.transport: asyncio.Transport
        self.path = ""
        self.window_bits = 0  # of compressed messages; 0: none were agreed to
        self.backlog: Backlog | None = None  # only while the client reads slower than it is written to
        self.tokens: list[int] | None = None  # of senders that wait until what they sent is with the client

    # -- asyncio.Protocol --------------------------------------------------------------------------------------------

    def pause_writing(self) -> None:
        """The client reads slower than it is written to."""
        if self.backlog is None:
            self.backlog = Backlog(self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        """The client has caught up with what the transport held: what waits may follow."""
        backlog, self.backlog = self.backlog, None
        while backlog is not None and (waiting := backlog.take()) is not None:
            self.write(waiting.frame, waiting.policy is Policy.DISCONNECT)
            if self.backlog is not None:  # it is behind again: the rest waits on
                self.backlog.take_over(backlog)
                return
        if backlog is not None and backlog.dropped:
            self._report_dropped(backlog.dropped)
        self.answer_tokens(True)

    # -- for the socket ----------------------------------------------------------------------------------------------

    def write(self, data: bytes, is_required: bool = True) -> None:
        """Write *data*, which must arrive if it *is_required*."""
        transport = self.transport
        if transport.is_closing():
            return
        if self.backlog is None:
            transport.write(data)
            if self.backlog is not None and is_required:
                self.backlog.required(self.site.now())
        elif self.backlog.is_empty:
            transport.write(data)
            self.backlog.written(len(data), is_required, self.site.now())
            self.check_backlog()
        else:
            self._wait(data, "", Policy.DISCONNECT)

    def count_sent(self, frame: bytes) -> None:
        """*frame* is a message that leaves, or would if its client read."""
        counters = self.site.counters
        counters.messages_sent += 1
        counters.bytes_sent += len(frame)

    def write_to_group(self, data: bytes, group: str) -> None:
        """Write a message of *group*; what its policy is matters only for a client that is behind."""
        if self.backlog is None:
            if not self.transport.is_closing():
                self.transport.write(data)
            if self.backlog is not None and self.site.policies.of(group) is Policy.DISCONNECT:
                self.backlog.required(self.site.now())
            return
        policy = self.site.policies.of(group)
        if policy is Policy.DISCONNECT:
            self.write(data)
        else:
            self._wait(data, group, policy)

    def _wait(self, data: bytes, group: str, policy: Policy) -> None:
        assert self.backlog is not None
        self.backlog.add(data, group, policy, self.site.settings.write_limit, self.site.now())
        self.check_backlog()

    def check_backlog(self) -> None:
        """End a socket whose client is too far behind with what must arrive."""
        backlog, settings = self.backlog, self.site.settings
        assert backlog is not None
        buffered = self.transport.get_write_buffer_size()
        unsent, age = backlog.unsent(buffered), backlog.age(buffered, self.site.now())
        if age is not None and (age > settings.write_timeout or unsent > settings.write_limit):
            self.too_slow(unsent, age)

    def compressed(self, frame: bytes) -> bytes:
        """*frame* as this client gets it."""
        return self.site.deflater.compress(frame, self.window_bits) if self.window_bits else frame

    def too_slow(self, unsent: int, age: float) -> None:
        """*unsent* bytes wait, the oldest of what must arrive for *age* seconds: end the socket."""
        raise NotImplementedError

    def drop_backlog(self) -> None:
        """The connection has gone."""
        self.answer_tokens(False)
        if self.backlog is not None and self.backlog.dropped:
            self._report_dropped(self.backlog.dropped)
        self.backlog = None

    def _report_dropped(self, number: int) -> None:
        self.site.counters.slow_readers_dropped += number
        text = "WebSocket %s: %d group messages were dropped, as its client was behind"
        logger.warning(text, escape(self.path), number)

    def answer_tokens(self, delivered: bool) -> None:
        """Tell the senders that wait what became of their messages."""
        tokens, self.tokens = self.tokens, None
        for token in tokens or ():
            self.site.replies.layer.written(token, delivered)

    def wait_written(self, token: int) -> None:
        """Tell the sender of *token* once what was written before is with the client."""
        if self.backlog is not None and not self.transport.is_closing():
            self.tokens = [*(self.tokens or ()), token]
        else:
            self.site.replies.layer.written(token, not self.transport.is_closing())
