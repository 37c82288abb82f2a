"""``manage.py runworker``: one worker process in the foreground."""

from __future__ import annotations

from typing import Any

from django.core.management import BaseCommand, CommandError

from procman.channels import DEFAULT_CHANNEL_LAYER
from procman.channels.asgi import InvalidChannelLayerError, channel_layers
from procman.channels.log import setup_logger
from procman.channels.message import Message
from procman.channels.signals import worker_process_ready
from procman.channels.timeouts import watchdog
from procman.channels.worker import Worker, WorkerGroup, load_project
from procman.settings import WorkerSettings


class Command(BaseCommand):
    """Takes messages from a channel layer and runs their consumers."""

    help = "Runs consumers of a channel layer until it is stopped (SIGTERM or Ctrl-C)."
    leave_locale_alone = True

    def add_arguments(self, parser: Any) -> None:
        """The options of 1.x."""
        super().add_arguments(parser)
        parser.add_argument("--layer", default=DEFAULT_CHANNEL_LAYER, help="Alias of the channel layer to read.")
        parser.add_argument("--only-channels", action="append", help="Read only these channels (globs, repeatable).")
        parser.add_argument("--exclude-channels", action="append", help="Do not read these (globs, repeatable).")
        parser.add_argument("--threads", type=int, default=1, help="Consumers that may run at once.")
        parser.add_argument(
            "--disable-graceful-stop",
            action="store_true",
            help="Has no effect, for start scripts of 1.x: every worker finishes the message that it has in hand.",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Run until stopped. Raises CommandError for a layer that no other process could reach."""
        self.verbosity = options.get("verbosity", 1)
        self.logger = setup_logger("django.channels", self.verbosity)
        alias = options.get("layer", DEFAULT_CHANNEL_LAYER)
        try:
            self.channel_layer = channel_layers[alias]
        except InvalidChannelLayerError as error:
            raise CommandError(str(error)) from error
        if self.channel_layer.local_only():
            raise CommandError(
                "You cannot use a channel layer that lives in one process (in memory) with runworker: no message "
                "would ever arrive. Use procman.layers.ipc.IPCChannelLayer."
            )
        load_project(self.channel_layer)
        keywords: dict[str, Any] = {
            "channel_layer": self.channel_layer,
            "callback": self.consumer_called if self.verbosity > 1 else None,
            "only_channels": options.get("only_channels"),
            "exclude_channels": options.get("exclude_channels"),
        }
        threads = options.get("threads") or 1
        if threads > 1:
            worker: Worker = WorkerGroup(n_threads=threads, **keywords)
        else:
            worker = Worker(**keywords)
        self.logger.info("Running worker against channel layer %s", self.channel_layer)
        worker_process_ready.send(sender=worker)
        worker.ready()
        with watchdog.governing(WorkerSettings.load().consumer_timeout):
            worker.run()

    def consumer_called(self, channel: str, message: Message) -> None:
        """Say what comes in, at verbosity 2 and above."""
        self.logger.debug("%s", channel)
