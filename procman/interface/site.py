"""What the connections of one interface server share: settings, the project, the switchboard, counts.

Answers what needs no worker (``local_response``), and writes the access log. Does no I/O.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from procman.clock import Clock, SystemClock
from procman.interface import access, connection, forwarded, health
from procman.interface.backlog import Policies
from procman.interface.counters import Counters
from procman.interface.errors import Refusal
from procman.interface.forwarded import Client, Trusted
from procman.interface.frames import Deflater
from procman.interface.messages import ResponseStart, decode_path, full_path
from procman.interface.occupancy import Occupancy
from procman.interface.replies import Replies
from procman.interface.request import Request
from procman.interface.response import text_response
from procman.interface.static import StaticFiles, StaticResponse
from procman.interface.survey import MAX_AGE, Survey
from procman.settings import InterfaceSettings, ProjectConfiguration

if TYPE_CHECKING:
    from procman.interface.exchange import Exchange

logger = logging.getLogger("procman.interface")
access_logger = logging.getLogger("procman.interface.access")


class Connection(Protocol):
    """An open connection, HTTP or WebSocket, as the server sees it."""

    def shutdown(self) -> None:
        """The server stops."""

    def tick(self, now: float) -> None:
        """Look at the deadlines."""

    def abort(self) -> None:
        """Drop it."""


class Site:
    """One interface server's common knowledge."""

    def __init__(
        self,
        settings: InterfaceSettings,
        project: ProjectConfiguration,
        replies: Replies,
        clock: Clock | None = None,
    ) -> None:
        self.settings = settings
        self.use(project)
        self.replies: Replies = replies
        self.counters: Counters = replies.counters
        self.now = (clock or SystemClock()).monotonic
        self.survey: Survey = Survey(replies.layer, self.now)
        self.health_path = health.normalize(settings.health_path)
        self.limits = connection.Limits(
            settings.max_waiting_frames,
            settings.max_message_size * 2,
            settings.handshake_timeout,
            settings.ping_interval,
            settings.ping_timeout,
            settings.max_message_rate,
        )
        self.connections: set[Connection] = set()
        self.request_count: int = 0
        self.deflater = Deflater()
        self.trusted = Trusted(settings.forwarded_allow_ips)
        self.occupancy = Occupancy(settings.max_connections, settings.max_connections_per_address)
        self.date = b""  # value of the Date header; the server's tick renews it

    def use(self, project: ProjectConfiguration) -> None:
        """Serve by *project* from now on."""
        self.project = project
        self.policies = Policies(project.slow_readers)
        self.static = StaticFiles(project, self.settings.static)

    def given_id(self, request: Request, peer: Client) -> str:
        """The request id that *peer*, if it is a trusted proxy, gave; "" stands for one made here."""
        return forwarded.request_id(request.headers, peer.host, self.trusted)

    def full_path(self, target: bytes) -> str:
        """The path of a request as applications see it."""
        return full_path(decode_path(target), self.settings.root_path)

    def local_response(self, request: Request) -> ResponseStart | None:
        """The response to a request that no worker is needed for."""
        if not self.health_path:
            return None
        path = decode_path(request.path)
        state = self.health_state()
        found = health.answer(self.health_path, path.removeprefix(self.settings.root_path), state)
        if found is None:
            return None
        if request.method not in ("GET", "HEAD"):
            return text_response(405, "Ask with GET or HEAD.", (b"Allow", b"GET, HEAD"))
        return text_response(*found, (b"Cache-Control", b"no-store"))

    def health_state(self) -> health.State:
        """What is known of this interface, its layer and the workers there."""
        replies, survey = self.replies, self.survey
        return health.State(replies.is_stopping, replies.is_layer_lost, survey.workers, survey.age, MAX_AGE)

    def static_file(self, request: Request) -> StaticResponse | None:
        """The response to a request for a static file; None: it is for something else."""
        return self.static.find(request.method, self.full_path(request.path), request.headers)

    def client_address(self, peer: Client, client: Client) -> str:
        """Whose connection counts: that of *client*, for whom *peer* asks; "" for a proxy's own."""
        return "" if peer is client and self.trusted.includes(peer.host) else client.host

    def check_connection(self, address: str) -> None:
        """Count a connection of *address*, which was just opened. Raises Refusal: there are too many."""
        limit = ""
        if not self.occupancy.enter(address):
            limit, status, text = "max_connections_per_address", 429, "Too many connections from your address."
        elif self.occupancy.is_full():
            limit, status, text = "max_connections", 503, "Too many connections; try again in a moment."
        if limit:
            if self.occupancy.should_warn(limit, self.now()):
                flag = "--" + limit.replace("_", "-")
                logger.warning("connections are refused, from %s and maybe others: over %s", address or "-", flag)
            raise Refusal(status, text, retry_after=1, limit=limit)

    def too_large(self) -> Refusal:
        """What a client is told whose body is over the limit."""
        text = f"The request's body is over the limit of {self.settings.max_body_size} bytes."
        return Refusal(413, text, limit="max_body_size")

    def log_request(self, exchange: Exchange) -> None:
        """Count a request that is over, and write its line."""
        duration = self.now() - exchange.started
        self.counters.request_over(exchange.status, duration)
        if self.settings.access_log:
            self._log(
                exchange.request.method, exchange.path, exchange.status, exchange.writer.size,
                duration, exchange.client.host, exchange.request_id,
            )  # fmt: skip

    def log_refusal(self, refusal: Refusal, client: Client) -> None:
        """Count what was no request, and write its line."""
        self.counters.request_over(refusal.status, 0.0)
        self.count_refusal(refusal)
        if self.settings.access_log:
            self._log("-", "-", refusal.status, len(refusal.text) + 1, 0.0, client.host)

    def count_refusal(self, refusal: Refusal) -> None:
        """Count *refusal* under the limit that it enforces, if it does."""
        if refusal.limit:
            self.counters.refused(refusal.limit)

    def log_socket(self, step: str, path: str, client: str, detail: str, request_id: str) -> None:
        """Write the line of a *step* in a WebSocket's life; *detail* is its status or close code."""
        details: dict[str, Any] = {"path": path, "client": client, "request_id": request_id}
        if detail:
            details["code" if step == access.DISCONNECT else "status"] = int(detail)
        self._write(step, access.socket_line(step, path, client, detail, request_id), details)

    def _log(
        self, method: str, path: str, status: int, size: int, duration: float, client: str, request_id: str = ""
    ) -> None:
        line = access.request_line(method, path, status, size, duration, client, request_id)
        details = {
            "method": method,
            "path": path,
            "status": status,
            "size": size,
            "time_taken": round(duration, 6),
            "client": client,
            "request_id": request_id,
        }
        self._write(access.REQUEST, line, details)

    def _write(self, action: str, line: str, details: Mapping[str, Any]) -> None:
        if self.settings.access_log_format == access.JSON:
            line = access.json_line(action, details, time.time())
        access_logger.info("%s", line, extra={"action": action, "details": details})
