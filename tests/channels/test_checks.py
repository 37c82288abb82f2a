"""System checks of CHANNEL_LAYERS."""

import pytest
from django.core.checks import run_checks
from django.test import override_settings

from procman.channels.checks import check_layers

IPC = "procman.layers.ipc.IPCChannelLayer"


def ids(**config):
    with override_settings(CHANNEL_LAYERS={"default": config}):
        return [found.id for found in check_layers()]


def test_a_good_configuration_passes():
    assert ids(BACKEND=IPC, ROUTING=[]) == []


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"BACKEND": "no.such.Layer", "ROUTING": []}, ["procman_channels.E002"]),
        ({"BACKEND": IPC}, ["procman_channels.E003"]),
        ({"BACKEND": IPC, "ROUTING": "no.such.routing"}, ["procman_channels.E004"]),
        ({"BACKEND": "procman.layers.memory.InMemoryChannelLayer", "ROUTING": []}, ["procman_channels.W001"]),
    ],
)
def test_what_is_wrong_is_reported(config, expected):
    assert ids(**config) == expected


def test_a_setting_that_is_no_dict_is_reported():
    with override_settings(CHANNEL_LAYERS=["default"]):
        assert [found.id for found in check_layers()] == ["procman_channels.E001"]


def test_the_app_registers_the_checks():
    assert "procman_channels.W001" in [found.id for found in run_checks()]
