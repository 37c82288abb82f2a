"""Hosts of a network of their own: network namespaces of Linux on one bridge, each with an address. Needs root."""

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

_NETWORK = "10.213.77"


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, timeout=10)


class Network:
    """The bridge, in a namespace of its own, and this process's own place at it."""

    def __init__(self) -> None:
        self._tag = f"pm{os.getpid() % 100_000}"
        self._bridge = f"{self._tag}br"
        self._namespaces: list[str] = []
        self._processes: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        """Make the bridge, and join it as .1. Raises CalledProcessError."""
        self._add_namespace(self._bridge)
        _ip("-n", self._bridge, "link", "add", "br0", "type", "bridge")
        _ip("-n", self._bridge, "link", "set", "br0", "up")
        self._plug("", 1)

    def close(self) -> None:
        """End the processes and take everything down."""
        for process in self._processes:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in self._processes:
            try:
                process.wait(12)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for name in reversed(self._namespaces):  # what hangs on them goes with them
            with contextlib.suppress(subprocess.CalledProcessError):
                _ip("netns", "del", name)

    def add(self, number: int) -> "Host":
        """The host with address .NUMBER."""
        host = Host(self, f"{self._tag}h{number}", number)
        self._add_namespace(host.name)
        _ip("-n", host.name, "link", "set", "lo", "up")
        self._plug(host.name, number)
        return host

    def _add_namespace(self, name: str) -> None:
        _ip("netns", "add", name)
        self._namespaces.append(name)

    def _plug(self, namespace: str, number: int) -> None:
        """Give *namespace* ("" for this one) a cable to the bridge."""
        here, there = f"{self._tag}a{number}", f"{self._tag}b{number}"
        where = ["-n", namespace] if namespace else []
        _ip(*where, "link", "add", here, "type", "veth", "peer", "name", there, "netns", self._bridge)
        _ip(*where, "addr", "add", f"{_NETWORK}.{number}/24", "dev", here)
        _ip(*where, "link", "set", here, "up")
        _ip("-n", self._bridge, "link", "set", there, "master", "br0")
        _ip("-n", self._bridge, "link", "set", there, "up")

    def set_link(self, number: int, state: str) -> None:
        """Cut the cable of host .NUMBER (``down``), or mend it (``up``)."""
        _ip("-n", self._bridge, "link", "set", f"{self._tag}b{number}", state)

    def run(
        self, namespace: str, words: Sequence[str], directory: Path, log: Path, environ: Mapping[str, str]
    ) -> subprocess.Popen[bytes]:
        """Start a program on a host; it is ended with the network."""
        with log.open("ab") as output:
            process = subprocess.Popen(
                ["ip", "netns", "exec", namespace, *words], cwd=directory, env=dict(environ), stdout=output,
                stderr=output, stdin=subprocess.DEVNULL,
            )  # fmt: skip
        self._processes.append(process)
        return process


class Host:
    """One host; ``address`` is its own."""

    def __init__(self, network: Network, name: str, number: int) -> None:
        self.network, self.name, self.number = network, name, number
        self.address = f"{_NETWORK}.{number}"
        self.log_path = Path(os.devnull)

    @property
    def log(self) -> str:
        """What the programs of this host have printed."""
        return self.log_path.read_text(errors="replace")

    def run(self, *words: str, directory: Path, environ: Mapping[str, str] = os.environ) -> subprocess.Popen[bytes]:
        """Start a program in *directory*; its output goes to a file there."""
        self.log_path = directory / f"{self.name}.log"
        return self.network.run(self.name, words, directory, self.log_path, environ)

    def cut_off(self) -> None:
        """Pull the cable: nothing is refused, nothing arrives."""
        self.network.set_link(self.number, "down")

    def bring_back(self) -> None:
        """Put the cable back."""
        self.network.set_link(self.number, "up")


@contextlib.contextmanager
def network() -> Iterator[Network]:
    """A network that is gone at the end of the block; skips the test where none can be made."""
    if shutil.which("ip") is None or os.getuid() != 0:
        if os.environ.get("PROCMAN_TEST_ALL") and os.getuid() == 0:
            pytest.fail("ip is not installed")
        pytest.skip("needs root and iproute2")
    found = Network()
    try:
        try:
            found.start()
        except subprocess.CalledProcessError as error:
            pytest.skip(f"no network namespaces here: {error.stderr.decode()}")
        yield found
    finally:
        found.close()
