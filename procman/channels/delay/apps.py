"""The app's configuration."""

from django.apps import AppConfig


class DelayConfig(AppConfig):
    """``procman.channels.delay`` as a Django app."""

    name = "procman.channels.delay"
    label = "procman_channels_delay"
    verbose_name = "Delayed messages"
    # A project's own choice must not ask for a migration of this app's.
    default_auto_field = "django.db.models.BigAutoField"
