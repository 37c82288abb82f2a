"""A redis-server of a test's own, at a Unix socket in a private directory; it may be killed and started again."""

import contextlib
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.support.waiting import wait_until


class RedisProcess:
    """Nothing is written to disk: a restart loses everything."""

    def __init__(self) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="pm-", dir="/tmp")
        self.path = Path(self._directory.name) / "redis.sock"
        self.address = f"unix://{self.path}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> "RedisProcess":
        """Start and wait until it answers."""
        command = ["redis-server", "--port", "0", "--unixsocket", str(self.path), "--dir", self._directory.name]
        self.process = subprocess.Popen([*command, "--save", ""], stdout=subprocess.DEVNULL)
        wait_until(self._answers, what="redis-server answers")
        return self

    def call(self, *command: Any) -> Any:
        """The answer to one command."""
        with redis.Redis.from_url(self.address, retry=Retry(NoBackoff(), 0)) as client:
            return client.execute_command(*command)  # type: ignore[no-untyped-call]

    def _answers(self) -> bool:
        with contextlib.suppress(redis.ConnectionError, redis.BusyLoadingError):
            return bool(self.call("PING"))
        return False

    def kill(self) -> None:
        """kill -9."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(10)
        self.path.unlink(missing_ok=True)

    def close(self) -> None:
        """End it."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(10)
        self._directory.cleanup()
