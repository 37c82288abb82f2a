"""Layers by alias, from the settings."""

import subprocess
import sys

import pytest
from django.test import override_settings

from procman.channels.asgi import (
    ChannelLayerManager,
    ChannelLayerWrapper,
    InvalidChannelLayerError,
    channel_layers,
    get_channel_layer,
)
from procman.errors import ConfigurationError
from tests.channels.layer import RecordingLayer

MEMORY = "procman.layers.memory.InMemoryChannelLayer"
IPC = "procman.layers.ipc.IPCChannelLayer"
REDIS = "procman.layers.redis.RedisChannelLayer"
RECORDING = "tests.channels.layer.RecordingLayer"


@pytest.mark.parametrize(
    ("config", "text"),
    [
        ({"ROUTING": []}, "no BACKEND"),
        ({"BACKEND": RECORDING}, "no ROUTING"),
        ({"BACKEND": "procman.no_such.Layer", "ROUTING": []}, "cannot import module 'procman.no_such'"),
        ({"BACKEND": "asgi_redis.RedisChannelLayer", "ROUTING": []}, "procman.layers.redis.RedisChannelLayer"),
        ({"BACKEND": MEMORY, "ROUTING": [], "CONFIG": {"no_such": 1}}, "no option 'no_such'; the layer takes expiry,"),
        ({"BACKEND": MEMORY, "ROUTING": [], "CONFIG": 5}, "CONFIG of .* is 5; write a dict"),
        ({"BACKEND": MEMORY, "ROUTING": [], "OPTIONS": {}}, "'OPTIONS', which means nothing: it may have BACKEND,"),
        ({"BACKEND": IPC, "ROUTING": [], "CONFIG": {"address": 5}}, "address is 5; write a text"),
        ({"BACKEND": IPC, "ROUTING": [], "CONFIG": {"address": "ipc:///x\0"}}, "write a text"),
        ({"BACKEND": IPC, "ROUTING": [], "CONFIG": {"connect_timeout": "x"}}, "connect_timeout is 'x'"),
        ({"BACKEND": IPC, "ROUTING": [], "CONFIG": {"capacity": 10**30}}, "capacity is 1000"),
        ({"BACKEND": REDIS, "ROUTING": [], "CONFIG": {"claim_after": float("nan")}}, "claim_after is nan"),
        ({"BACKEND": REDIS, "ROUTING": [], "CONFIG": {"expiry": float("inf")}}, "expiry is inf"),
        ({"BACKEND": REDIS, "ROUTING": [], "CONFIG": {"hosts": []}}, "names no Redis server"),
        ({"BACKEND": REDIS, "ROUTING": [], "CONFIG": {"hosts": ""}}, "names no Redis server"),
        ({"BACKEND": REDIS, "ROUTING": [], "CONFIG": {"hosts": 5}}, "'hosts' holds an item of type int"),
        ({"BACKEND": REDIS, "ROUTING": [], "CONFIG": {"symmetric_encryption_keys": []}}, "symmetric_encryption_keys"),
        ({"BACKEND": REDIS, "ROUTING": [], "CONFIG": {"channel_capacity": 5}}, "channel_capacity is 5; write a dict"),
    ],
)
def test_a_wrong_configuration_is_named(config, text):
    with (
        override_settings(CHANNEL_LAYERS={"default": config}),
        pytest.raises((InvalidChannelLayerError, ConfigurationError), match=text),
    ):
        ChannelLayerManager()["default"]


def test_options_of_the_layer_in_the_settings_do_not_hinder_another_kind_in_the_environment(monkeypatch):
    config = {"BACKEND": REDIS, "ROUTING": [], "CONFIG": {"hosts": ["redis://a/0"], "capacity": 7}}
    monkeypatch.setenv("PROCMAN_LAYER", "ipc:///tmp/no-such.sock")
    with override_settings(CHANNEL_LAYERS={"default": config}):
        layer = ChannelLayerManager()["default"].channel_layer
    assert (type(layer).__name__, layer.capacity) == ("IPCChannelLayer", 7)


def test_an_unknown_alias_is_named():
    with pytest.raises(InvalidChannelLayerError, match="no layer 'other'"):
        ChannelLayerManager()["other"]


def test_a_layer_is_made_once_with_its_config():
    config = {"BACKEND": RECORDING, "ROUTING": {}, "CONFIG": {"expiry": 5}}
    with override_settings(CHANNEL_LAYERS={"default": config}):
        manager = ChannelLayerManager()
        assert "default" in manager
        assert "other" not in manager
        wrapper = manager["default"]
        assert wrapper is manager["default"]
        assert wrapper.channel_layer.options == {"expiry": 5}
        assert wrapper.alias == "default"


def test_a_test_layer_uses_test_config_and_needs_it():
    layer = ChannelLayerManager().make_test_backend("default")
    assert layer.channel_layer.expiry == 100500
    config = {"BACKEND": RECORDING, "ROUTING": []}
    with (
        override_settings(CHANNEL_LAYERS={"default": config}),
        pytest.raises(InvalidChannelLayerError, match="TEST_CONFIG"),
    ):
        ChannelLayerManager().make_test_backend("default")


def test_a_project_without_the_setting_gets_the_ipc_layer():
    with override_settings():
        from django.conf import settings

        del settings.CHANNEL_LAYERS
        assert ChannelLayerManager().configs == {
            "default": {"BACKEND": "procman.layers.ipc.IPCChannelLayer", "ROUTING": []}
        }


def test_set_returns_what_was_there():
    manager = ChannelLayerManager()
    first, second = (ChannelLayerWrapper(RecordingLayer(), "default", []) for _ in range(2))
    assert manager.set("default", first) is None
    assert manager.set("default", second) is first
    assert manager["default"] is second


def test_the_wrapper_passes_through_and_names_its_layer():
    wrapper = ChannelLayerWrapper(RecordingLayer(expiry=3), "default", [])
    assert wrapper.options == {"expiry": 3}
    assert str(wrapper) == "default (tests.channels.layer.RecordingLayer)"
    with pytest.raises(AttributeError):
        _ = wrapper.no_such


def test_only_the_in_memory_layer_itself_is_local():
    from procman.layers.memory import InMemoryChannelLayer

    class Subclass(InMemoryChannelLayer):
        """Of another module."""

    assert ChannelLayerWrapper(InMemoryChannelLayer(), "default", []).local_only()
    assert not ChannelLayerWrapper(Subclass(), "default", []).local_only()


def test_the_raw_layer_is_there_for_servers(layer):
    assert get_channel_layer() is layer
    assert channel_layers["default"].channel_layer is layer


def test_importing_the_package_needs_neither_django_nor_settings():
    code = (
        "import sys, procman.channels as c; assert c.__version__; assert 'django' not in sys.modules;"
        "from procman.channels import Channel, Group, route, route_class, include, channel_layers;"
        "assert c.DEFAULT_CHANNEL_LAYER == 'default'; import procman.channels.handler, procman.channels.sessions;"
        "import procman.channels.auth, procman.channels.worker"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_an_unknown_name_of_the_package_is_an_attribute_error():
    import procman.channels

    with pytest.raises(AttributeError, match="no_such"):
        _ = procman.channels.no_such
