"""Real Redis and Valkey servers on private ports and sockets: start, stop, kill, pause, replicate, fail over, TLS."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.support.processes import free_port
from tests.support.waiting import wait_until

_TEXT = {"decode_responses": True, "socket_timeout": 5, "socket_connect_timeout": 5, "protocol": 2}


def server_program(name: str = "redis-server") -> str:
    """The path of *name*; without it a laptop skips the test, and scripts/test, which installs Redis, fails.

    Valkey cannot be had everywhere, so what needs it is skipped there too.
    """
    unpacked = Path(sys.prefix) / "valkey" / "usr" / "bin" / name
    found = shutil.which(name) or (str(unpacked) if unpacked.exists() else None)
    if found is None:
        if name == "redis-server" and os.environ.get("PROCMAN_TEST_ALL"):
            pytest.fail(f"{name} is not installed")
        pytest.skip(f"{name} is not installed")
    return found


class RedisServer:
    """One server in a directory of its own, without persistence unless *options* say so.

    ``port`` and ``path`` stay the same over restarts. *options* are those of redis.conf.
    """

    def __init__(self, directory: Path | str, program: str = "redis-server", **options: str) -> None:
        self.directory = Path(directory)
        self.directory.mkdir(parents=True, exist_ok=True)
        self.program = server_program(program)
        self.port = free_port()
        self.path = str(self.directory / "redis.sock")
        self.log_path = self.directory / "redis.log"
        self.options = {"save": '""', "appendonly": "no"} | {
            name.replace("_", "-"): value for name, value in options.items()
        }
        self.process: subprocess.Popen[bytes] | None = None
        self._client: redis.Redis | None = None

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def url(self) -> str:
        """Its address over TCP."""
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def unix_url(self) -> str:
        """Its address over its Unix socket."""
        return f"unix://{self.path}?db=0"

    @property
    def log(self) -> str:
        """What it has printed."""
        return self.log_path.read_text(errors="replace")

    @property
    def client(self) -> redis.Redis:
        """A client with decoded answers and no retries, for looking and for administration."""
        if self._client is None:
            secret = self.options.get("requirepass")
            self._client = redis.Redis(
                unix_socket_path=self.path, password=secret, retry=Retry(NoBackoff(), 0), **_TEXT  # type: ignore[arg-type]
            )  # fmt: skip
        return self._client

    def _lines(self) -> list[str]:
        where = {"bind": "127.0.0.1", "port": str(self.port), "unixsocket": self.path, "unixsocketperm": "700"}
        return [f"{name} {value}" for name, value in (where | {"dir": str(self.directory)} | self.options).items()]

    def start(self) -> "RedisServer":
        """Start and wait until it answers."""
        file = self.directory / "server.conf"
        if not file.exists():  # a Sentinel and CONFIG REWRITE keep their state in it
            file.write_text("\n".join(self._lines()) + "\n")
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [self.program, str(file), *self._mode()], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        wait_until(self.is_answering, 10, what=f"{self.program} answers")
        return self

    def _mode(self) -> list[str]:
        return []

    def is_answering(self) -> bool:
        """Whether it answers PING."""
        assert self.process is not None and self.process.poll() is None, self.log
        try:
            return bool(self.client.ping())
        except redis.ConnectionError:
            return False

    def _end(self, how: int) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.send_signal(how)
            self.process.wait(10)
        if self._client is not None:
            self._client.close()
        Path(self.path).unlink(missing_ok=True)

    def stop(self) -> None:
        """SIGTERM; nothing of its data is kept unless *options* said so."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """kill -9."""
        self._end(signal.SIGKILL)

    def restart(self) -> "RedisServer":
        """Stop and start; clients lose their connections and, without persistence, all data."""
        self.stop()
        return self.start()

    def config(self, **values: Any) -> None:
        """CONFIG SET."""
        for name, value in values.items():
            self.client.config_set(name.replace("_", "-"), value)

    def pause(self, seconds: float) -> None:
        """CLIENT PAUSE: connections stay open, commands wait."""
        self.client.client_pause(int(seconds * 1000))

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """SIGSTOP: the kernel still accepts connections, nothing answers."""
        os.kill(self.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.pid, signal.SIGCONT)

    def connections(self, name: str = "") -> list[dict[str, Any]]:
        """CLIENT LIST without this one, those whose name begins with *name*."""
        own = self.client.client_id()
        found = [entry for entry in self.client.client_list() if int(entry["id"]) != own]
        return [entry for entry in found if entry["name"].startswith(name)]


class _Sentinel(RedisServer):
    """One Sentinel process; the server program is both."""

    def _mode(self) -> list[str]:
        return ["--sentinel"]


class Sentinels:
    """A master, a replica and three Sentinels that fail over within about two seconds."""

    service = "mymaster"

    def __init__(self, directory: Path | str, **options: str) -> None:
        base = Path(directory)
        self.master = RedisServer(base / "a", **options)
        self.replica = RedisServer(base / "b", replicaof=f"127.0.0.1 {self.master.port}", **options)
        for server in (self.master, self.replica):
            # The default waits 5 s for more replicas before it copies to the first one.
            server.options |= {"repl-diskless-sync-delay": "0"}
        watched = f"{self.service} 127.0.0.1 {self.master.port} 2"
        self.sentinels = [_Sentinel(base / f"s{number}") for number in range(3)]
        for sentinel in self.sentinels:
            sentinel.options = {
                "sentinel monitor": watched,
                f"sentinel down-after-milliseconds {self.service}": "700",
                f"sentinel failover-timeout {self.service}": "4000",
            }

    @property
    def url(self) -> str:
        """The address that a layer is given."""
        places = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)
        return f"redis+sentinel://{places}/{self.service}/0"

    def start(self) -> "Sentinels":
        """Start all and wait until the Sentinels know each other and the replica."""
        self.master.start()
        self.replica.start()
        wait_until(lambda: self.replica.client.info("replication")["master_link_status"] == "up", 10)
        for sentinel in self.sentinels:
            sentinel.start()
        wait_until(lambda: all(self._is_complete(sentinel) for sentinel in self.sentinels), 15, what="Sentinels met")
        return self

    def _is_complete(self, sentinel: RedisServer) -> bool:
        state = sentinel.client.sentinel_master(self.service)
        return int(state["num-other-sentinels"]) == 2 and int(state["num-slaves"]) == 1

    def current(self) -> RedisServer:
        """The server that most Sentinels call the master."""
        ports = [sentinel.client.sentinel_get_master_addr_by_name(self.service)[1] for sentinel in self.sentinels]
        port = max(ports, key=ports.count)
        return next(server for server in (self.master, self.replica) if server.port == int(port))

    def failover(self, timeout: float = 20.0) -> RedisServer:
        """Kill the master and return the server that has taken its place."""
        old = self.current()
        old.kill()
        wait_until(lambda: self.current() is not old, timeout, what="the Sentinels chose another master")
        chosen = self.current()
        wait_until(lambda: chosen.client.info("replication")["role"] == "master", timeout)
        return chosen

    def stop(self) -> None:
        """Stop all."""
        for server in (*self.sentinels, self.replica, self.master):
            server.stop()


class Certificates:
    """A certificate authority of this test, and a certificate for localhost and 127.0.0.1 that it has signed."""

    def __init__(self, directory: Path | str) -> None:
        base = Path(directory)
        base.mkdir(parents=True, exist_ok=True)
        self.authority, self.certificate, self.key = base / "ca.pem", base / "server.pem", base / "server.key"
        authority_key, request, extensions = base / "ca.key", base / "server.csr", base / "extensions"
        extensions.write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
        new_key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
        self._openssl(
            "req", "-x509", *new_key, "-days", "2", "-subj", "/CN=procman test authority", "-keyout", authority_key,
            "-out", self.authority, "-addext", "keyUsage=critical,keyCertSign",
        )  # fmt: skip
        self._openssl("req", *new_key, "-subj", "/CN=localhost", "-keyout", self.key, "-out", request)
        self._openssl(
            "x509", "-req", "-in", request, "-CA", self.authority, "-CAkey", authority_key, "-CAcreateserial",
            "-days", "2", "-extfile", extensions, "-out", self.certificate,
        )  # fmt: skip

    @staticmethod
    def _openssl(*arguments: str | Path) -> None:
        done = subprocess.run(["openssl", *map(str, arguments)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


class TLSServer(RedisServer):
    """A server whose TCP port speaks TLS only."""

    def __init__(self, directory: Path | str, program: str = "redis-server", **options: str) -> None:
        super().__init__(directory, program, **options)
        self.certificates = Certificates(self.directory / "tls")
        self.options |= {
            "port": "0",
            "tls-port": str(self.port),
            "tls-cert-file": str(self.certificates.certificate),
            "tls-key-file": str(self.certificates.key),
            "tls-ca-cert-file": str(self.certificates.authority),
            "tls-auth-clients": "no",
        }

    @property
    def url(self) -> str:
        return f"rediss://localhost:{self.port}/0?ssl_ca_certs={self.certificates.authority}"


@contextlib.contextmanager
def redis_directory() -> Iterator[Path]:
    """A directory with a path short enough for Unix sockets, removed at the end."""
    with tempfile.TemporaryDirectory(prefix="pm-", dir="/tmp") as directory:
        yield Path(directory)


@contextlib.contextmanager
def running_redis(program: str = "redis-server", **options: str) -> Iterator[RedisServer]:
    """A server that is stopped at the end."""
    with redis_directory() as directory:
        server = RedisServer(directory, program, **options)
        try:
            yield server.start()
        finally:
            server.stop()


@contextlib.contextmanager
def running_tls() -> Iterator[TLSServer]:
    """A server with TLS that is stopped at the end."""
    with redis_directory() as directory:
        server = TLSServer(directory)
        try:
            server.start()
            yield server
        finally:
            server.stop()


@contextlib.contextmanager
def running_sentinels(**options: str) -> Iterator[Sentinels]:
    """Master, replica and Sentinels that are stopped at the end."""
    with redis_directory() as directory:
        sentinels = Sentinels(directory, **options)
        try:
            yield sentinels.start()
        finally:
            sentinels.stop()
