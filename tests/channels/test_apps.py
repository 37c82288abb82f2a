"""The Django app."""

from django.apps import apps


def test_the_label_does_not_collide_with_channels_4():
    config = apps.get_app_config("procman_channels")
    assert config.name == "procman.channels"
