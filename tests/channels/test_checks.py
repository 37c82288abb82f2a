"""System checks of CHANNEL_LAYERS."""

import pytest
from django.apps import apps
from django.core.checks import run_checks
from django.core.management import get_commands
from django.test import override_settings

from procman.channels import checks
from procman.channels.checks import check_layers, check_runserver

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


@pytest.mark.parametrize(
    ("layer", "problem"), [("x", "is 'x'; write a dict"), ({"BACKEND": 5, "ROUTING": []}, "dotted name")]
)
def test_a_layer_of_a_wrong_type_is_reported(layer, problem):
    with override_settings(CHANNEL_LAYERS={"default": layer}):
        (found,) = check_layers()
    assert found.id == "procman_channels.E002"
    assert problem in found.msg


def test_a_setting_that_is_no_dict_is_reported():
    with override_settings(CHANNEL_LAYERS=["default"]):
        assert [found.id for found in check_layers()] == ["procman_channels.E001"]


def test_the_app_registers_the_checks():
    assert "procman_channels.W001" in [found.id for found in run_checks()]


def test_a_layer_in_memory_is_no_mistake_where_one_process_serves_the_site(monkeypatch):
    monkeypatch.setattr(checks, "_is_one_process", False)
    checks.expect_one_process()
    assert ids(BACKEND="procman.layers.memory.InMemoryChannelLayer", ROUTING=[]) == []


@pytest.mark.parametrize(
    ("installed", "hidden_by"),
    [
        (["procman.channels", "django.contrib.staticfiles"], None),
        (["procman.channels"], None),
        (["django.contrib.staticfiles", "procman.channels"], "django.contrib.staticfiles"),
    ],
)
def test_a_runserver_that_hides_ours_is_reported_with_the_order_that_is_right(installed, hidden_by):
    get_commands.cache_clear()
    apps.set_installed_apps(installed)
    try:
        found = check_runserver()
    finally:
        apps.unset_installed_apps()
        get_commands.cache_clear()
    assert [each.id for each in found] == (["procman_channels.W002"] if hidden_by else [])
    assert all(f"before {hidden_by!r} in INSTALLED_APPS" in each.hint for each in found)
