"""``manage.py rundelay``: one delay server in the foreground."""

from __future__ import annotations

from typing import Any

from django.apps import apps
from django.core.management import BaseCommand, CommandError

from procman.channels import DEFAULT_CHANNEL_LAYER
from procman.channels.asgi import InvalidChannelLayerError, channel_layers
from procman.channels.log import setup_logger


class Command(BaseCommand):
    """Stores messages that are to be sent later, and sends them when they are due."""

    help = "Sends delayed messages of a channel layer until it is stopped (SIGTERM or Ctrl-C)."
    leave_locale_alone = True

    def add_arguments(self, parser: Any) -> None:
        """The options of 1.x."""
        super().add_arguments(parser)
        parser.add_argument("--layer", default=DEFAULT_CHANNEL_LAYER, help="Alias of the channel layer to serve.")
        parser.add_argument(
            "--sleep", type=float, default=1, help="Seconds between looks for messages that other servers stored."
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Run until stopped. Raises CommandError for what cannot work."""
        if not apps.is_installed("procman.channels.delay"):
            raise CommandError("rundelay needs its table: add 'procman.channels.delay' to INSTALLED_APPS and migrate.")
        if options.get("sleep", 1) <= 0:
            raise CommandError("--sleep takes a number of seconds above 0.")
        self.logger = setup_logger("django.channels", options.get("verbosity", 1))
        try:
            self.channel_layer = channel_layers[options.get("layer", DEFAULT_CHANNEL_LAYER)]
        except InvalidChannelLayerError as error:
            raise CommandError(str(error)) from error
        if self.channel_layer.local_only():
            raise CommandError(
                "You cannot use a channel layer that lives in one process (in memory) with rundelay: no message would "
                "ever arrive. Use procman.layers.ipc.IPCChannelLayer."
            )
        # Its model cannot be imported where the app is not installed.
        from procman.channels.delay.worker import Worker

        self.logger.info("Running delay against channel layer %s", self.channel_layer)
        worker = Worker(channel_layer=self.channel_layer, database_sleep_duration=options.get("sleep", 1))
        worker.run()
