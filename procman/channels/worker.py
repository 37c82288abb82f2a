"""Takes messages from the channel layer and has their consumers run (``consuming.py``), until told to stop.

``step`` handles one message, ``run`` repeats it. Survives an outage of the layer. Starting and restarting workers is
the supervisor's business.
"""

from __future__ import annotations

import fnmatch
import select
import signal
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from procman.channels.consuming import ConsumerRunner
from procman.channels.leftovers import close_connections
from procman.channels.log import Unfailing
from procman.channels.message import Message
from procman.channels.signals import worker_ready
from procman.channels.streams import Seat, streams
from procman.channels.timeouts import watchdog
from procman.clock import SystemClock
from procman.errors import ConfigurationError
from procman.layers.base import Delivery
from procman.layers.errors import LayerUnavailable, ProtocolMismatch
from procman.lifetime import ask_for_successor

logger = Unfailing("django.channels")

# A signal between the look at `termed` and the wait is noticed after this long at the latest.
_TAKE_TIMEOUT = 2.0
# Platforms send SIGTERM to every process of a site in one moment. The interface then closes its sockets, and their
# disconnects are still to be run: a worker below a supervisor goes on until nothing has come for the first of these
# times, at most for the second.
_LINGER, _LONGEST_LINGER = 0.25, 5.0
_FIRST_BACKOFF, _LAST_BACKOFF = 0.05, 1.0


class Quota:
    """How many messages a worker process may still work on; then its successor is asked for, or *stop* is called."""

    def __init__(self, count: int, stop: Callable[[], None]) -> None:
        self._left, self._stop = max(1, count), stop
        self._lock = threading.Lock()

    def use(self) -> None:
        """A message is done."""
        with self._lock:
            self._left -= 1
            is_over = self._left == 0
        if is_over:
            logger.info("worker has done its number of messages and is replaced")
            if not ask_for_successor():
                self._stop()


class Worker(ConsumerRunner):
    """Runs consumers of *channel_layer* (the wrapper) in the calling thread.

    *callback* is called with channel name and message before each consumer. A message whose consumer raises
    ``ConsumeLater`` is dropped after *message_retries* more tries. *only_channels* and *exclude_channels* are globs.
    """

    termed: Any
    in_job: Any
    quota: Quota | None = None  # of messages
    lingers = False  # below a supervisor, which asks for a stop in another way than by a signal

    def __init__(
        self,
        channel_layer: Any,
        callback: Callable[[str, Message], None] | None = None,
        message_retries: int = 10,
        signal_handlers: bool = True,
        only_channels: Sequence[str] | None = None,
        exclude_channels: Sequence[str] | None = None,
    ) -> None:
        super().__init__(channel_layer, callback, message_retries)
        self.signal_handlers = signal_handlers
        self.only_channels = only_channels
        self.exclude_channels = exclude_channels
        self.termed = False
        self.in_job = False
        self._outage = False
        self._backoff = _FIRST_BACKOFF
        self._lingers_until: float | None = None
        self._is_woken = False
        self._handlers: list[tuple[int, Any]] = []  # as this worker has installed them

    # -- set-up --------------------------------------------------------------------------------------------------

    def install_signal_handler(self) -> None:
        """Stop gracefully on SIGTERM and SIGINT."""
        signal.signal(signal.SIGTERM, self.sigterm_handler)
        signal.signal(signal.SIGINT, self.sigterm_handler)

    def sigterm_handler(self, signo: int, stack_frame: Any) -> None:
        """Have ``run`` return once the current message is finished, or, if it lingers, once no other comes."""
        if not self.lingers:
            self.stop()
        elif self._lingers_until is None:
            self._lingers_until = SystemClock.monotonic() + _LONGEST_LINGER
            self._is_woken = True
            self._wake()

    def stop(self) -> None:
        """Have ``run`` return: now if it waits, else once the current message is finished."""
        self.termed = True
        self._wake()

    def _wake(self) -> None:
        wake = getattr(self.channel_layer, "wake", None)
        if wake is not None:
            wake()

    def ready(self) -> None:
        """Tell everybody who listens to ``worker_ready``."""
        worker_ready.send(sender=self)

    def apply_channel_filters(self, channels: Iterable[str]) -> list[str]:
        """Those of *channels* that ``only_channels`` includes and ``exclude_channels`` does not; order is kept."""
        if self.only_channels:
            channels = [c for c in channels if any(fnmatch.fnmatchcase(c, glob) for glob in self.only_channels)]
        if self.exclude_channels:
            channels = [c for c in channels if not any(fnmatch.fnmatchcase(c, glob) for glob in self.exclude_channels)]
        return list(channels)

    # -- loop ----------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Handle messages until ``termed``; messages behind a streamed response in a thread of their own.

        Raises:
            ConfigurationError: no channel is left to read.
        """
        handlers = None
        if self.signal_handlers:
            handlers = [(number, signal.getsignal(number)) for number in (signal.SIGTERM, signal.SIGINT)]
            self.install_signal_handler()
            self._handlers = [(number, signal.getsignal(number)) for number, _ in handlers]
        channels = self.apply_channel_filters(sorted(self.channel_layer.router.channels))
        if not channels:
            raise ConfigurationError("no channel is left to read: check --only-channels and --exclude-channels")
        try:
            Seat(lambda: self._continues(channels), self._renew_cleaner, self._stop_taking).run()
        finally:
            self.in_job = False
            self._handlers = []
            for number, handler in handlers or ():
                signal.signal(number, handler)

    def _continues(self, channels: Sequence[str]) -> bool:
        return not self.termed and not self._has_lingered(self.step(channels))

    def step(self, channels: Sequence[str]) -> bool:
        """Handle one message of *channels*; False if none came within two seconds."""
        self.in_job = False
        try:
            delivery = self._take(channels)
        except (ConfigurationError, TypeError):
            raise
        except Exception as error:
            self._layer_failed(error)
            return False
        if self._outage:
            logger.info("the channel layer is there again")
            self._outage, self._backoff = False, _FIRST_BACKOFF
        if delivery is None:
            return False
        self.in_job = True
        self.handle(delivery)
        if self.quota is not None:
            self.quota.use()
        if self._handlers and threading.current_thread() is threading.main_thread():
            self._take_signals_back(delivery.channel)
        return True

    def _take_signals_back(self, channel: str) -> None:
        for number, handler in self._handlers:
            if signal.getsignal(number) != handler:
                logger.warning(
                    "a consumer of %s has replaced the handler of signal %d; the worker takes its own back",
                    *(channel, number),
                )
                signal.signal(number, handler)

    def _has_lingered(self, handled: bool) -> bool:
        """Whether a worker that lingers may end, after a step that *handled* a message or waited for one in vain."""
        if self._lingers_until is None:
            return False
        if not handled and not self._is_woken:
            return True
        if not handled:
            self._is_woken = False  # the signal ended that wait; the next one counts
        return SystemClock.monotonic() >= self._lingers_until

    def _take(self, channels: Sequence[str]) -> Delivery | None:
        if self._delivers:
            timeout = _TAKE_TIMEOUT if self._lingers_until is None else _LINGER
            delivery: Delivery | None = self.channel_layer.take(channels, timeout)
            return delivery
        channel, content = self.channel_layer.receive_many(channels, block=True)
        if channel is None:
            select.select((), (), (), 0.01)  # such a layer may not be able to block
            return None
        return Delivery(channel, content, "")

    def _stop_taking(self) -> None:
        stop = getattr(self.channel_layer, "stop_taking", None)
        if stop is not None:
            stop()

    def _layer_failed(self, error: Exception) -> None:
        # Logged once per outage: the supervisor tells already if the layer's process is the reason.
        if not self._outage:
            is_expected = isinstance(error, LayerUnavailable | ProtocolMismatch)
            logger.error("the channel layer does not answer; trying again: %s", error, exc_info=not is_expected)
        self._outage = True
        select.select((), (), (), self._backoff)
        self._backoff = min(self._backoff * 2, _LAST_BACKOFF)


class WorkerGroup(Worker):
    """*n_threads* workers: one in the calling thread, the others in threads of their own. All stop together."""

    def __init__(self, *args: Any, n_threads: int = 1, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.n_threads = n_threads
        kwargs["signal_handlers"] = False
        self.workers = [Worker(*args, **kwargs) for _ in range(n_threads - 1)]
        self.sub_threads: list[threading.Thread] = []
        self._failure: BaseException | None = None

    def stop(self) -> None:
        """Have all threads return, each once its current message is finished."""
        for worker in self.workers:
            worker.termed = True
        super().stop()

    def ready(self) -> None:
        """Tell everybody who listens to ``worker_ready``, once per thread."""
        super().ready()
        for worker in self.workers:
            worker.ready()

    def run(self) -> None:
        """Handle messages in all threads until stopped; returns when the last one has finished its message.

        Raises:
            What ended one of the threads: the others stop then, as the site would go on with fewer than it should have.
        """
        for worker in self.workers:
            worker.quota = self.quota
        self.sub_threads = [
            threading.Thread(target=self._run_beside, args=(worker,), name=f"worker-{number}", daemon=True)
            for number, worker in enumerate(self.workers, 2)
        ]
        for thread in self.sub_threads:
            thread.start()
        try:
            super().run()
        finally:
            for worker in self.workers:
                worker.stop()
            for thread in self.sub_threads:
                thread.join()
        if self._failure is not None:
            raise self._failure

    def _run_beside(self, worker: Worker) -> None:
        try:
            worker.run()
        except BaseException as error:
            self._failure = error
            self.stop()
        finally:
            close_connections()


def load_project(channel_layer: Any) -> None:
    """Import what the first messages would import: URLs, and with the default routes the middleware and the views.

    Raises:
        Whatever the project's modules raise.
    """
    from django.conf import settings
    from django.urls import get_resolver

    from procman.channels import staticfiles

    channel_layer.router.check_default(http_consumer=staticfiles.consumer_for_project())
    if getattr(settings, "ROOT_URLCONF", None):
        _ = get_resolver().url_patterns


def run_worker(settings: Any, only: Sequence[str] = (), exclude: Sequence[str] = (), alias: str = "default") -> int:
    """Be a worker process until SIGTERM or SIGINT; returns the exit status.

    *settings* are ``procman.settings.WorkerSettings``; *only* and *exclude* are globs of channel names.

    Raises:
        ConfigurationError: the project's settings or routing are wrong; one line that says what to change.
    """
    import gc

    worker, channels = load_worker(settings, only, exclude, alias)
    # What is loaded stays for ever: without it the collector has less to look through during a message.
    gc.collect()
    gc.freeze()
    return run_loaded(worker, channels, settings)


def load_worker(
    settings: Any, only: Sequence[str] = (), exclude: Sequence[str] = (), alias: str = "default"
) -> tuple[Worker, list[str]]:
    """The first half of ``run_worker``: import the project. A worker that has not begun, and its channels.

    Raises:
        ConfigurationError: as there.
    """
    import django
    from django.conf import settings as django_settings
    from django.core.exceptions import ImproperlyConfigured

    from procman.channels.asgi import InvalidChannelLayerError, channel_layers
    from procman.channels.log import setup_worker_logging

    try:
        django.setup(set_prefix=False)
        setup_worker_logging(django_settings)
        channel_layer = channel_layers[alias]
        load_project(channel_layer)
    except (ImproperlyConfigured, InvalidChannelLayerError) as error:
        raise ConfigurationError(str(error)) from error
    options: dict[str, Any] = {"only_channels": list(only) or None, "exclude_channels": list(exclude) or None}
    worker: Worker
    if settings.threads > 1:
        worker = WorkerGroup(channel_layer, n_threads=settings.threads, **options)
    else:
        worker = Worker(channel_layer, **options)
    return worker, worker.apply_channel_filters(channel_layer.router.channels)


def run_loaded(worker: Worker, channels: Sequence[str], settings: Any) -> int:
    """The second half of ``run_worker``: take messages until it is over; the exit status."""
    import faulthandler
    import os
    import random

    from procman.channels.signals import worker_process_ready
    from procman.lifetime import announce_ready, keep_beating, watch_lifetime
    from procman.settings import ENV_LIFETIME_FD

    streams.limit, streams.grace = settings.max_streams, settings.stream_grace
    if settings.max_messages:
        worker.quota = Quota(round(settings.max_messages * random.uniform(0.9, 1.1)), worker.stop)
    faulthandler.enable()  # a worker that is stuck says where before it is killed
    worker_process_ready.send(sender=worker)
    worker.ready()
    worker.lingers = bool(os.environ.get(ENV_LIFETIME_FD))
    watch_lifetime(worker.stop)  # the supervisor asks for a stop, or has died
    announce_ready()
    keep_beating()
    logger.info("worker ready, listening on %d channel%s", len(channels), "" if len(channels) == 1 else "s")
    with watchdog.governing(settings.consumer_timeout):
        worker.run()
    return 0
