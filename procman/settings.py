"""Every setting, once: name, type, default, unit, environment variable and help, as fields of frozen dataclasses.

``cli.options`` makes the command-line flags and their help from these fields, so a setting is described in one place.
Nothing here reads Django's settings: what the processes without Django must know of the project is in
``ProjectConfiguration``, which a process with Django fills in and passes on as JSON.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from typing import Any, Self

from procman.errors import ConfigurationError

MIB = 1024 * 1024
MAX_COUNT = 512  # processes of a type

# Environment variables that the supervisor sets for its children.
ENV_PROJECT = "PROCMAN_PROJECT"  # ProjectConfiguration as JSON
ENV_NAME = "PROCMAN_NAME"  # the process's name in the formation, such as worker.2
ENV_RUN = "PROCMAN_RUN"  # random text, the same for all processes of one run of a supervisor
ENV_LIFETIME_FD = "PROCMAN_LIFETIME_FD"  # read end of a pipe that reaches its end when the supervisor is gone
ENV_READY_FD = "PROCMAN_READY_FD"  # write end of a pipe: one byte says that the process is ready
ENV_NEWS_FD = "PROCMAN_NEWS_FD"  # read end of a pipe on which an interface hears of changed code
ENV_BEAT = "PROCMAN_BEAT"  # seconds between the signs of life of a worker; 0: none are wanted
ENV_LOG_FORMAT = "PROCMAN_LOG_FORMAT"  # json: log records are JSON objects; a setting of the supervisor, too
# Those that runserver sets for the process that it starts again with each change of the code.
ENV_KEEPER_FD = "PROCMAN_KEEPER_FD"  # socket to the process that keeps the browsers' sockets
ENV_KEEPER_LAYER = "PROCMAN_KEEPER_LAYER"  # address at which that one serves a project whose layer is in memory
ENV_LAYER = "PROCMAN_LAYER"  # overrides the layer's address; set by users and by the supervisor


def setting(
    default: Any,
    help: str,
    *,
    unit: str = "",
    env: str = "",
    minimum: float | None = None,
    maximum: float | None = None,
    choices: tuple[str, ...] = (),
    several: bool = False,
) -> Any:
    """A dataclass field with what the command line and the documentation need to know of it.

    *several*: its flag may be given several times; the values are joined by commas.
    """
    metadata = {"help": help, "unit": unit, "env": env, "minimum": minimum, "maximum": maximum, "choices": choices}
    metadata["several"] = several
    return dataclasses.field(default=default, metadata=metadata)


class _Settings:
    """What all settings classes share."""

    @classmethod
    def load(
        cls, environ: Mapping[str, str] | None = None, defaults: Mapping[str, Any] | None = None, **values: Any
    ) -> Self:
        """Settings from *values* (None: not given), then the environment, then *defaults*, then those of the class.

        Raises:
            ConfigurationError: a value is out of its range or an environment variable does not parse.
        """
        environ = os.environ if environ is None else environ
        chosen: dict[str, Any] = {}
        for field in dataclasses.fields(cls):  # type: ignore[arg-type]
            value = values.pop(field.name, None)
            name = field.name
            variable = field.metadata.get("env")
            if value is None and variable and environ.get(variable):
                value = _parse(environ[variable], field.default, variable)
                name = f"environment variable {variable}"
            if value is None:
                value = (defaults or {}).get(field.name)
            if value is None:
                continue
            low, high = field.metadata.get("minimum"), field.metadata.get("maximum")
            if (low is not None and value < low) or (high is not None and value > high):
                raise ConfigurationError(f"{name} is {value}; it must be {_range(low, high)}")
            choices = field.metadata.get("choices")
            if choices and value not in choices:
                raise ConfigurationError(f"{name} is {value!r}; it must be one of {', '.join(choices)}")
            chosen[field.name] = value
        if values:
            raise TypeError(f"no such settings: {', '.join(values)}")
        return cls(**chosen)


def _range(low: float | None, high: float | None) -> str:
    if high is None:
        return f"at least {low}"
    return f"at most {high}" if low is None else f"between {low} and {high}"


def _parse(text: str, default: Any, variable: str) -> Any:
    if isinstance(default, bool):
        return text.lower() not in ("0", "false", "no", "off")
    if isinstance(default, int | float):
        try:
            return type(default)(text)
        except ValueError:
            raise ConfigurationError(f"environment variable {variable} is {text!r}; it must be a number") from None
    return text


@dataclasses.dataclass(frozen=True)
class SupervisorSettings(_Settings):
    """What ``channels-run start`` decides."""

    bind: str = setting(
        "127.0.0.1",
        "Address to listen on, or unix:/path/to.sock. With PORT in the environment the default is 0.0.0.0.",
    )
    port: int = setting(8000, "TCP port to listen on; 0 lets the system choose.", env="PORT", minimum=0, maximum=65535)
    socket_mode: str = setting(
        "600", "Permissions of the Unix socket that is listened on, as for chmod: 660 lets its group in, such as nginx."
    )
    interfaces: int = setting(
        1, "Number of interface processes; each holds a share of the connections.", minimum=1, maximum=64
    )
    workers: int = setting(
        max(2, os.cpu_count() or 1), "Number of worker processes.", env="WEB_CONCURRENCY", minimum=1, maximum=MAX_COUNT
    )
    liveness_timeout: float = setting(
        60.0,
        "A worker in which no code has run for this long (stopped, or stuck in a library that holds the interpreter) "
        "is told to print what it does, and killed (0: never). A consumer that is merely busy does not count.",
        unit="seconds",
        minimum=0,
    )
    max_rss: int = setting(
        0,
        "Memory of all processes of the site together; past it, three looks in a row, the largest worker is replaced "
        "by a successor (0: no limit).",
        unit="MiB",
        minimum=0,
    )
    preload: bool = setting(
        True,
        "Import the project once, in a process from which the workers are forked: they are there at once and share its "
        "memory. On systems other than Linux each worker imports it.",
    )
    shutdown_timeout: float = setting(
        10.0,
        "Deadline of a stop, for everything together; what still runs then is killed.",
        unit="seconds",
        minimum=0.1,
    )
    startup_timeout: float = setting(
        60.0, "A process that is not ready after this long is killed and counts as failed.", unit="seconds", minimum=1
    )
    overlap: bool = setting(
        True,
        "A worker that is restarted goes when its successor is ready. Without that it goes first, for hosts that have "
        "little memory.",
    )
    reload: bool = setting(
        False,
        "For development: when a file of the project changes, the workers are started anew; sockets stay open, and "
        "messages wait for the new code.",
    )
    reload_dir: str = setting("", "Directory to watch beside that of the project.", several=True)
    reload_include: str = setting("*.py,*.html,*.mo", "Names of files that a reload follows.", several=True)
    procfile: str = setting(
        "",
        "File whose other lines (css: npm run watch) run beside the site; in it PORT goes up by 100 from the port of "
        "the site.",
    )
    count: str = setting(
        "", "Copies of process types, such as css=0,celery=2; the default is 1 of each line of the Procfile.",
        several=True,
    )  # fmt: skip
    platform: str = setting(
        "auto",
        "Whose conventions are the defaults: heroku, render, fly, railway, dokku, docker, kubernetes, systemd; none of "
        "them, or the one that is recognised.",
        env="PROCMAN_PLATFORM",
    )
    log_format: str = setting(
        "text",
        "Lines of the merged log for people, as JSON objects, or as logfmt.",
        env=ENV_LOG_FORMAT,
        choices=("text", "json", "logfmt"),
    )
    log_level: str = setting(
        "debug",
        "Lines of a lower level are not printed; a line that names none counts as info.",
        env="PROCMAN_LOG_LEVEL",
        choices=("debug", "info", "warning", "error"),
    )
    log_max_line: int = setting(
        MIB, "Longer lines of the log are cut into pieces of this size.", unit="bytes", minimum=256, maximum=16 * MIB
    )
    log_dir: str = setting("", "Directory in which each process has a file of its lines, too.")
    log_max_bytes: int = setting(
        10 * MIB, "Size at which such a file is put aside, as NAME.log.1.", unit="bytes", minimum=4096
    )
    log_backups: int = setting(3, "Files put aside that are kept of each process.", minimum=0, maximum=100)

    @classmethod
    def load(
        cls, environ: Mapping[str, str] | None = None, defaults: Mapping[str, Any] | None = None, **values: Any
    ) -> Self:
        """As for every settings class; PORT set by a platform also opens the address to the outside."""
        environ = os.environ if environ is None else environ
        if values.get("bind") is None and environ.get("PORT"):
            values["bind"] = "0.0.0.0"
        return super().load(environ, defaults, **values)


@dataclasses.dataclass(frozen=True)
class InterfaceSettings(_Settings):
    """What the interface server decides. Every limit protects; each can be raised."""

    max_body_size: int = setting(
        100 * MIB, "Largest request body; larger ones are answered 413.", unit="bytes", minimum=0
    )
    inline_body_size: int = setting(
        MIB // 2,
        "Bodies up to this size travel in one message; larger ones are streamed to the worker.",
        unit="bytes",
        minimum=0,
    )
    body_timeout: float = setting(
        60.0, "A client that sends nothing of its body for this long is answered 408.", unit="seconds", minimum=0.1
    )
    max_header_bytes: int = setting(
        64 * 1024, "Bytes of the headers of one request; larger ones are answered 431.", unit="bytes", minimum=1024
    )
    header_timeout: float = setting(
        20.0, "A client that does not get to the end of its headers in time is answered 408.", unit="seconds",
        minimum=0.1,
    )  # fmt: skip
    keep_alive_timeout: float = setting(
        75.0, "A connection without a request is closed after this long.", unit="seconds", minimum=0.1
    )
    request_timeout: float = setting(
        120.0,
        "A request without the start of a response after this long is answered 504, or 503 if no worker took it.",
        unit="seconds",
        minimum=0.1,
    )
    handshake_timeout: float = setting(
        20.0, "A WebSocket that no consumer accepted after this long is answered 503.", unit="seconds", minimum=0.1
    )
    max_message_size: int = setting(
        MIB, "Largest WebSocket message; larger ones close the socket with 1009.", unit="bytes", minimum=1
    )
    websocket_compression: bool = setting(
        False, "Agree to compressed WebSocket messages (permessage-deflate), each compressed by itself."
    )
    max_message_rate: float = setting(
        1000.0,
        "Messages that one WebSocket may send per second, after a burst of as many (0: no limit); past it reading from "
        "that socket pauses. Nothing is dropped.",
        minimum=0,
    )
    max_waiting_frames: int = setting(
        64, "Frames of one socket that wait for their consumer; past it reading from that socket pauses.", minimum=1
    )
    write_limit: int = setting(
        MIB,
        "Unsent bytes of one socket; a reader that is further behind is closed with 1013. CHANNELS_SLOW_READERS lets "
        "messages of a group be dropped instead.",
        unit="bytes",
        minimum=1024,
    )
    write_timeout: float = setting(
        10.0,
        "Age of the oldest unsent byte of one socket; a reader that is further behind is closed with 1013.",
        unit="seconds",
        minimum=0.1,
    )
    ping_interval: float = setting(
        20.0, "An idle WebSocket is pinged this often; 0 switches pings off.", unit="seconds", minimum=0
    )
    ping_timeout: float = setting(
        30.0, "A WebSocket that does not answer a ping for this long is closed.", unit="seconds", minimum=0.1
    )
    max_connections: int = setting(
        15_000,
        "Connections open at once; further ones are answered 503. The limit on open files may lower it.",
        minimum=1,
    )
    max_connections_per_address: int = setting(
        1_000,
        "Connections open at once from one address, and WebSockets that a trusted proxy passes on from it (0: no "
        "limit); further ones are answered 429.",
        minimum=0,
    )
    max_sockets: int = setting(10_000, "WebSockets open at once; further ones are answered 503.", minimum=1)
    max_requests: int = setting(2_000, "HTTP requests in progress at once; further ones are answered 503.", minimum=1)
    forwarded_allow_ips: str = setting(
        "127.0.0.1,::1",
        "Addresses and networks of proxies whose X-Forwarded-For, X-Forwarded-Proto and X-Request-ID are believed; * "
        "is whoever connects.",
        env="FORWARDED_ALLOW_IPS",
    )
    ssl_certfile: str = setting("", "Certificate (PEM, with its chain) to serve https and wss with.")
    ssl_keyfile: str = setting("", "Key of the certificate (PEM), if it is not in the same file.")
    ssl_password_file: str = setting("", "File with the password of the key.")
    ssl_ca_certs: str = setting("", "Authorities (PEM) of which every client needs a certificate.")
    root_path: str = setting("", "Path below which a proxy serves this site.")
    drain_timeout: float = setting(
        8.0, "Time for requests in progress when the interface stops.", unit="seconds", minimum=0
    )
    health_path: str = setting(
        "/-",
        "Path of /healthz (this process answers) and /readyz (a worker takes messages); off switches them off.",
    )
    metrics_bind: str = setting(
        "",
        "HOST:PORT at which each interface process answers Prometheus; interface.2 has the next port. Empty: nowhere.",
    )
    static: bool = setting(False, "Serve STATIC_ROOT without DEBUG, too; with DEBUG static files are served anyway.")
    request_id_header: bool = setting(False, "Tell clients the request id, as X-Request-ID.")
    access_log: bool = setting(True, "One log line per finished request and WebSocket.")
    access_log_format: str = setting(
        "text", "Access log lines for people, or JSON objects for programs.", choices=("text", "json")
    )


@dataclasses.dataclass(frozen=True)
class WorkerSettings(_Settings):
    """What one worker process decides."""

    threads: int = setting(1, "Consumers that may run at once in this process.", minimum=1, maximum=256)
    consumer_timeout: float = setting(
        300.0,
        "Seconds that a consumer may take for a request or a WebSocket message before its worker is ended and its "
        "client told (0: no limit). @consumer_timeout sets it for one consumer.",
        unit="s",
        env="PROCMAN_CONSUMER_TIMEOUT",
        minimum=0,
        maximum=86400,
    )
    max_messages: int = setting(
        0,
        "Messages, give or take a tenth, after which a worker is replaced by a successor (0: never): for leaks of "
        "memory that cannot be mended.",
        minimum=0,
    )
    max_streams: int = setting(
        20,
        "Responses of several parts that one worker may have open beside the messages it takes; past it 503.",
        minimum=1,
        maximum=1000,
    )
    stream_grace: float = setting(
        5.0,
        "Seconds that such responses may go on after their worker was asked to stop; then they are cut.",
        unit="s",
        minimum=0,
        maximum=3600,
    )


@dataclasses.dataclass(frozen=True)
class LayerSettings(_Settings):
    """What the hub of the IPC layer decides. Every limit protects; each can be raised."""

    layer_max_bytes: int = setting(
        512 * MIB,
        "Bytes of all messages in the layer process; past it sends and requests are refused as by a full channel.",
        unit="bytes",
        env="PROCMAN_LAYER_MAX_BYTES",
        minimum=MIB,
    )
    layer_max_channel_bytes: int = setting(
        64 * MIB,
        "Bytes that wait on one channel; past it the channel is full.",
        unit="bytes",
        env="PROCMAN_LAYER_MAX_CHANNEL_BYTES",
        minimum=1024,
    )
    layer_max_unsent_bytes: int = setting(
        64 * MIB,
        "Bytes that a process has not read from the layer; past it the layer gives up its connection.",
        unit="bytes",
        env="PROCMAN_LAYER_MAX_UNSENT_BYTES",
        minimum=MIB,
    )
    layer_stall_timeout: float = setting(
        30.0,
        "A process that reads nothing of what waits for it, or stops within a frame, for this long is given up.",
        unit="seconds",
        env="PROCMAN_LAYER_STALL_TIMEOUT",
        minimum=0.1,
    )
    layer_max_connections: int = setting(
        4096,
        "Connections to the layer process; a worker has one per thread and two more. Further ones are refused.",
        env="PROCMAN_LAYER_MAX_CONNECTIONS",
        minimum=4,
    )


def drain_timeout(shutdown_timeout: float) -> float:
    """Seconds that a stop of *shutdown_timeout* leaves to requests in progress; the rest is for what comes after."""
    return shutdown_timeout - 2 if shutdown_timeout >= 3 else shutdown_timeout / 4


@dataclasses.dataclass(frozen=True)
class ProjectConfiguration:
    """What processes without Django must know of a project, as plain data.

    ``layer`` is the address URL of the channel layer, such as ``ipc:///run/user/1000/procman/3fa2.sock``;
    ``layer_config`` is the ``CONFIG`` of ``CHANNEL_LAYERS["default"]``, ``ws_protocols`` the setting
    ``CHANNELS_WS_PROTOCOLS``: WebSocket sub-protocols that are agreed to where a client offers them, and
    ``slow_readers`` ``CHANNELS_SLOW_READERS``: globs of groups, each with what happens to clients that read slowly.
    ``static_roots`` are directories of static files, each with the prefix below ``static_url`` that it is served at;
    the first that has a file counts.
    """

    settings_module: str
    layer: str
    layer_config: dict[str, Any] = dataclasses.field(default_factory=dict)
    allowed_hosts: list[str] = dataclasses.field(default_factory=list)
    debug: bool = False
    ws_protocols: list[str] = dataclasses.field(default_factory=list)
    slow_readers: dict[str, str] = dataclasses.field(default_factory=dict)
    static_url: str = ""
    static_roots: list[list[str]] = dataclasses.field(default_factory=list)

    def to_json(self) -> str:
        """One line of JSON for ``PROCMAN_PROJECT``."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The configuration in *text*.

        Raises:
            ConfigurationError: *text* is not what ``to_json`` makes, of this version.
        """
        try:
            return cls(**json.loads(text))
        except (TypeError, ValueError) as error:
            raise ConfigurationError(f"{ENV_PROJECT} does not hold a project configuration: {error}") from error
