"""The app's configuration. Its label does not collide with Channels 4 in the same project."""

from django.apps import AppConfig


class ChannelsConfig(AppConfig):
    """``procman.channels`` as a Django app."""

    name = "procman.channels"
    label = "procman_channels"
    verbose_name = "Channels"

    def ready(self) -> None:
        """Register the system checks."""
        from procman.channels import checks

        checks.register()
