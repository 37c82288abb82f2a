"""``scripts/soak``: a site under load for a long time, while its processes are killed, stopped, scaled and restarted.

Runs in epochs. In each, sockets send numbered frames and clients ask for pages while faults happen; at its end every
frame must have been answered once and in order with its session, and every page must have been served. At the very end
the processes that have lived throughout must not have grown, and nothing may be left behind.
"""

import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import psutil
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from tests.support.clients import Browser, Talkers
from tests.support.processes import Site, copy_project, descendants, is_alive, running_site
from tests.support.redis import running_redis
from tests.support.waiting import wait_until

EPOCH = 20.0  # seconds
SOCKETS, CLIENTS, WORKERS = 30, 3, 3
# Seconds between two faults: a message that two deaths hit is dropped, as it should be, and that is not the subject.
SHORTEST, LONGEST = 1.5, 4.0
PATIENCE = 60.0  # seconds for what is still to be answered
MOST_GROWTH, SPARE_GROWTH = 1.3, 12 * 1024 * 1024  # of a process's memory, from the end of the second epoch
SPARE_DESCRIPTORS = 40
KEPT = ("layer", "interface.1", "preloader")


class Clients:
    """Threads that ask for a page again and again, and note each answer that is not it."""

    def __init__(self, url: str) -> None:
        self._url, self._is_running = url, True
        self.served, self.violations = 0, []  # type: int, list[str]
        self._threads = [threading.Thread(target=self._ask, daemon=True) for _ in range(CLIENTS)]
        for thread in self._threads:
            thread.start()

    def _ask(self) -> None:
        browser = Browser(self._url)
        while self._is_running:
            asked = time.monotonic()
            try:
                answer = browser.get("/", timeout=PATIENCE)
                said = "" if (answer.status, answer.text) == (200, "hello") else f"{answer.status} {answer.text[:80]!r}"
            except OSError as error:
                said = repr(error)
            if said:
                self.violations.append(f"GET / after {time.monotonic() - asked:.1f} s: {said}")
            else:
                self.served += 1

    def finish(self) -> None:
        """End; each waits for its last answer."""
        self._is_running = False
        for thread in self._threads:
            thread.join(PATIENCE + 5)


class Soak:
    """One site and what is done to it."""

    def __init__(self, site: Site, chance: random.Random) -> None:
        self.site, self.chance = site, chance
        self.violations: list[str] = []
        self.faults: Counter[str] = Counter()
        self.echoes = self.served = 0
        self._before: dict[str, tuple[int, int, int]] = {}  # pid, bytes, descriptors

    def run_epoch(self, until: float, tell: Callable[[], None]) -> None:
        """Load and faults until the moment *until*, then the accounts."""
        clients, talkers = Clients(self.site.url), Talkers(self.site.ws_url, SOCKETS)
        try:
            talkers.start()
            while (left := until - time.monotonic()) > 0:
                threading.Event().wait(min(left, self.chance.uniform(SHORTEST, LONGEST)))
                self._do_something()
                tell()
            talkers.talk_on(SOCKETS, timeout=PATIENCE)
            talkers.finish(PATIENCE)
            talkers.assert_answered()
        except (AssertionError, TimeoutError, OSError) as error:
            self.violations.append(f"sockets: {error}")
        finally:
            clients.finish()
            talkers.close()
        self.echoes += talkers.echoes()
        self.served += clients.served
        self.violations += clients.violations

    def _do_something(self) -> None:
        faults: dict[str, Callable[[], None]] = {
            "kill -9 of a worker": lambda: self._signal("worker", signal.SIGKILL),
            "SIGTERM to a worker": lambda: self._signal("worker", signal.SIGTERM),
            "kill -9 of the layer": lambda: self._signal("layer", signal.SIGKILL),
            "kill -9 of the preloader": lambda: self._signal("preloader", signal.SIGKILL),
            "a worker stopped for a second": lambda: self._pause("worker", 1.0),
            "the supervisor stopped for a second": self._pause_supervisor,
            "SIGHUP": lambda: os.kill(self.site.pid, signal.SIGHUP),
            "restart of a worker": lambda: self._run("restart", "worker.1"),
            "scale": lambda: self._run("scale", f"worker={self.chance.choice([2, 3, 4])}"),
            "status": lambda: self._run("status"),
        }
        name = self.chance.choice(sorted(faults))
        self.faults[name] += 1
        with contextlib.suppress(ProcessLookupError):
            faults[name]()

    def kill_interface(self) -> None:
        """The death of all sockets; between two epochs."""
        self.faults["kill -9 of the interface"] += 1
        pid = self.site.kill("interface.1")
        wait_until(lambda: self.site.pid_of("interface.1") != pid, 30)
        self._before.pop("interface.1", None)

    def _pids(self, kind: str) -> list[int]:
        status = self.site.status()
        return [each["pid"] for each in status.values() if each["type"] == kind and each["pid"]]

    def _signal(self, kind: str, signum: int) -> None:
        pids = self._pids(kind)
        if pids:
            os.kill(self.chance.choice(pids), signum)

    def _pause(self, kind: str, seconds: float) -> None:
        for pid in self._pids(kind)[:1]:
            os.kill(pid, signal.SIGSTOP)
            threading.Event().wait(seconds)
            os.kill(pid, signal.SIGCONT)

    def _pause_supervisor(self) -> None:
        os.kill(self.site.pid, signal.SIGSTOP)
        threading.Event().wait(1.0)
        os.kill(self.site.pid, signal.SIGCONT)

    def _run(self, *words: str) -> None:
        done = self.site.run(*words, check=False)
        # A worker that is killed while it is waited for is no failure of the command.
        if done.returncode not in (0, 1):
            self.violations.append(f"{' '.join(words)}: status {done.returncode}: {done.stderr[-300:]}")

    def look(self, is_last: bool) -> None:
        """Compare what lives since an earlier look with what it was then."""
        pids = {"supervisor": self.site.pid}
        pids |= {name: each["pid"] for name, each in self.site.status().items() if name in KEPT and each["pid"]}
        for name, pid in pids.items():
            with contextlib.suppress(psutil.Error):
                process = psutil.Process(pid)
                now = pid, process.memory_info().rss, process.num_fds()
                before = self._before.setdefault(name, now)
                if before[0] != pid:
                    self._before[name] = now
                elif is_last and now[1] > before[1] * MOST_GROWTH + SPARE_GROWTH:
                    self.violations.append(f"{name} has grown from {before[1]:,} to {now[1]:,} bytes")
                elif is_last and now[2] > before[2] + SPARE_DESCRIPTORS:
                    self.violations.append(f"{name} had {before[2]} open files and has {now[2]}")
        zombies = []
        for pid in descendants(self.site.pid):
            with contextlib.suppress(psutil.Error):
                if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                    zombies.append(pid)
        if is_last and zombies:
            self.violations.append(f"{len(zombies)} zombies")


@contextlib.contextmanager
def _running(layer: str) -> Iterator[Site]:
    with contextlib.ExitStack() as stack:
        directory = copy_project(Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="soak"))) / "project")
        subprocess.run([sys.executable, "manage.py", "migrate", "-v0"], cwd=directory, check=True)
        words = ["--workers", str(WORKERS), "--no-access-log"]
        if layer == "redis":
            words += ["--layer", stack.enter_context(running_redis()).url]
        yield stack.enter_context(running_site(directory, *words))


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--minutes", default=5.0, show_default=True, help="How long, without the start and the end.")
@click.option("--seed", default=1, show_default=True, help="Which faults, and when.")
@click.option("--layer", type=click.Choice(("ipc", "redis")), default="ipc", show_default=True, help="Channel layer.")
def main(minutes: float, seed: int, layer: str) -> None:
    """Serve a site under load while its processes are killed, stopped and scaled; status 1 on any violation."""
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with _running(layer) as site, Progress(*columns, transient=True) as progress:
        soak = Soak(site, random.Random(seed))
        began = time.monotonic()
        task = progress.add_task("", total=minutes * 60)

        def tell() -> None:
            facts = f"{soak.echoes:,} echoes, {soak.served:,} pages, {soak.faults.total()} faults"
            progress.update(
                task, completed=time.monotonic() - began, description=f"{facts}, {len(soak.violations)} violations"
            )

        number = 0
        while (now := time.monotonic()) < began + minutes * 60:
            soak.run_epoch(min(now + EPOCH, began + minutes * 60), tell)
            number += 1
            if number >= 2:  # by then everything has been used once
                soak.look(is_last=False)
            if number % 5 == 0:
                soak.kill_interface()
        soak.look(is_last=True)
        below = descendants(site.pid)
    status = site.process.returncode if site.process is not None else None
    if status != 0:
        soak.violations.append(f"the end had status {status}")
    left = [pid for pid in below if is_alive(pid)]
    if left:
        soak.violations.append(f"{len(left)} processes were left behind")
    click.echo(f"{soak.echoes:,} echoes and {soak.served:,} pages in {minutes:g} minutes over {layer}, seed {seed}")
    for name, count in soak.faults.most_common():
        click.echo(f"{count:5} x {name}")
    for violation in soak.violations[:20]:
        click.echo(f"VIOLATION {violation}")
    click.echo(f"{len(soak.violations)} violations")
    sys.exit(1 if soak.violations else 0)


if __name__ == "__main__":
    main()
