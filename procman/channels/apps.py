"""The app's configuration. Its label does not collide with Channels 4 in the same project."""

from django.apps import AppConfig


class ChannelsConfig(AppConfig):
    """``procman.channels`` as a Django app."""

    name = "procman.channels"
    label = "procman_channels"
    verbose_name = "Channels"

    def ready(self) -> None:
        """Register the system checks, and the data bindings that models modules have defined."""
        from procman.channels import checks
        from procman.channels.binding.base import BindingMetaclass

        checks.register()
        BindingMetaclass.register_all()
