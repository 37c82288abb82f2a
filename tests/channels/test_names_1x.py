"""Every public name of Channels 1.x is below ``procman.channels``, and takes the calls that it took there."""

import importlib
import inspect
from typing import Any

import pytest
from django.core.management import load_command_class

# Module -> name -> the parameters of 1.x; "" takes no arguments, None: not called by users, or no callable.
NAMES: dict[str, dict[str, str | None]] = {
    "": {
        "__version__": None,
        "DEFAULT_CHANNEL_LAYER": None,
        "channel_layers": None,
        "Channel": "name, alias='default', channel_layer=None",
        "Group": "name, alias='default', channel_layer=None",
        "route": "channels, consumer, **kwargs",
        "route_class": "consumer, **kwargs",
        "include": "routing, **kwargs",
    },
    "asgi": {
        "InvalidChannelLayerError": None,
        "ChannelLayerManager": "",
        "ChannelLayerManager.configs": None,
        "ChannelLayerManager.make_backend": "self, name",
        "ChannelLayerManager.make_test_backend": "self, name",
        "ChannelLayerManager.__getitem__": "self, key",
        "ChannelLayerManager.__contains__": "self, key",
        "ChannelLayerManager.set": "self, key, layer",
        "ChannelLayerWrapper": "channel_layer, alias, routing",
        "ChannelLayerWrapper.local_only": "self",
        "get_channel_layer": "alias='default'",
        "channel_layers": None,
    },
    "auth": {
        "transfer_user": "from_session, to_session",
        "channel_session_user": "func",
        "http_session_user": "func",
        "channel_session_user_from_http": "func",
        "channel_and_http_session_user_from_http": "func",
    },
    "binding": {"CREATE": None, "UPDATE": None, "DELETE": None},
    "binding.base": {
        "CREATE": None,
        "UPDATE": None,
        "DELETE": None,
        "BindingMetaclass": None,
        "BindingMetaclass.register_all": "",
        "Binding": None,
        "Binding.model": None,
        "Binding.stream": None,
        "Binding.fields": None,
        "Binding.exclude": None,
        "Binding.channel_session_user": None,
        "Binding.channel_session": None,
        "Binding.register": "",
        "Binding.group_names": "instance",
        "Binding.encode": "stream, payload",
        "Binding.serialize": "self, instance, action",
        "Binding.send_messages": "self, instance, group_names, action, **kwargs",
        "Binding.get_handler": "",
        "Binding.consumer": "message, **kwargs",
        "Binding.trigger_inbound": "message, **kwargs",
        "Binding.deserialize": "self, message",
        "Binding.has_permission": "self, user, action, pk",
        "Binding.run_action": "self, action, pk, data",
        "Binding.create": "self, data",
        "Binding.update": "self, pk, data",
        "Binding.delete": "self, pk",
    },
    "binding.websockets": {
        "WebsocketBinding": None,
        "WebsocketBinding.model_label": None,
        "WebsocketBinding.serialize_data": "self, instance",
        "WebsocketBindingWithMembers": None,
        "WebsocketBindingWithMembers.send_members": None,
    },
    "channel": {
        "Channel": "name, alias='default', channel_layer=None",
        "Channel.send": "self, content, immediately=False",
        "Group": "name, alias='default', channel_layer=None",
        "Group.add": "self, channel",
        "Group.discard": "self, channel",
        "Group.send": "self, content, immediately=False",
    },
    "delay.models": {
        "DelayedMessage": None,
        "DelayedMessage.objects": None,
        "DelayedMessage.delay": None,
        "DelayedMessage.send": "self, channel_layer=None, requeue_delay=1000",
        "DelayedMessageQuerySet.is_due": "self",
    },
    "delay.worker": {
        "Worker": "channel_layer, signal_handlers=True, database_sleep_duration=1",
        "Worker.install_signal_handler": "self",
        "Worker.sigterm_handler": "self, signo, stack_frame",
        "Worker.run": "self",
    },
    "exceptions": {
        "ConsumeLater": None,
        "ResponseLater": None,
        "RequestTimeout": None,
        "RequestAborted": None,
        "DenyConnection": None,
        "ChannelSocketException": None,
        "ChannelSocketException.run": "self, message",
        "WebsocketCloseException": "code=None",
        "SendNotAvailableOnDemultiplexer": "",
    },
    "generic": {"BaseConsumer": "message, **kwargs"},
    "generic.base": {
        "BaseConsumer": "message, **kwargs",
        "BaseConsumer.method_mapping": None,
        "BaseConsumer.channel_session": None,
        "BaseConsumer.channel_session_user": None,
        "BaseConsumer.channel_names": "",
        "BaseConsumer.as_route": "attrs=None, **kwargs",
        "BaseConsumer.get_handler": "self, message, **kwargs",
        "BaseConsumer.dispatch": "self, message, **kwargs",
    },
    "generic.websockets": {
        "WebsocketConsumer": "message, **kwargs",
        "WebsocketConsumer.http_user": None,
        "WebsocketConsumer.http_user_and_session": None,
        "WebsocketConsumer.strict_ordering": None,
        "WebsocketConsumer.slight_ordering": None,
        "WebsocketConsumer.groups": None,
        "WebsocketConsumer.connection_groups": "self, **kwargs",
        "WebsocketConsumer.raw_connect": "self, message, **kwargs",
        "WebsocketConsumer.connect": "self, message, **kwargs",
        "WebsocketConsumer.raw_receive": "self, message, **kwargs",
        "WebsocketConsumer.receive": "self, text=None, bytes=None, **kwargs",
        "WebsocketConsumer.raw_disconnect": "self, message, **kwargs",
        "WebsocketConsumer.disconnect": "self, message, **kwargs",
        "WebsocketConsumer.send": "self, text=None, bytes=None, close=False",
        "WebsocketConsumer.group_send": "name, text=None, bytes=None, close=False",
        "WebsocketConsumer.close": "self, status=True",
        "JsonWebsocketConsumer.receive": "self, content, **kwargs",
        "JsonWebsocketConsumer.send": "self, content, close=False",
        "JsonWebsocketConsumer.group_send": "name, content, close=False",
        "JsonWebsocketConsumer.encode_json": "content",
        "JsonWebsocketConsumer.decode_json": "text",
        "WebsocketMultiplexer": "stream, reply_channel",
        "WebsocketMultiplexer.send": "self, payload",
        "WebsocketMultiplexer.encode_json": "content",
        "WebsocketMultiplexer.encode": "stream, payload",
        "WebsocketMultiplexer.group_send": "name, stream, payload, close=False",
        "WebsocketDemultiplexer": "message, **kwargs",
        "WebsocketDemultiplexer.consumers": None,
        "WebsocketDemultiplexer.multiplexer_class": None,
    },
    "handler": {
        "AsgiRequest": "message",
        "AsgiRequest.ResponseLater": None,
        "AsgiRequest.body_receive_timeout": None,
        "AsgiHandler": "",
        "AsgiHandler.__call__": "self, message",
        "AsgiHandler.request_class": None,
        "AsgiHandler.chunk_size": None,
        "AsgiHandler.encode_response": "response",
        "AsgiHandler.chunk_bytes": "data",
        "ViewConsumer": "",
        "ViewConsumer.__call__": "self, message",
        "ViewConsumer.handler_class": None,
    },
    "log": {"handler": None, "setup_logger": "name, verbosity=1"},
    "message": {
        "Message": "content, channel_name, channel_layer",
        "Message.__getitem__": "self, key",
        "Message.__setitem__": "self, key, value",
        "Message.__contains__": "self, key",
        "Message.keys": "self",
        "Message.values": "self",
        "Message.items": "self",
        "Message.get": "self, key, default=None",
        "Message.copy": "self",
        "PendingMessageStore": "",
        "PendingMessageStore.retry_time": None,
        "PendingMessageStore.retry_interval": None,
        "PendingMessageStore.prepare": "self, **kwargs",
        "PendingMessageStore.active": None,
        "PendingMessageStore.append": "self, sender, message",
        "PendingMessageStore.send_and_flush": "self, **kwargs",
        "pending_message_store": None,
    },
    "routing": {
        "Router": "routing",
        "Router.add_route": "self, route",
        "Router.match": "self, message",
        "Router.check_default": "self, http_consumer=None",
        "Router.resolve_routing": "routing",
        "Router.normalise_re_arg": "value",
        "Route": "channels, consumer, **kwargs",
        "Route.channel_names": "self",
        "Route.match": "self, message",
        "RouteClass": "consumer, **kwargs",
        "Include": "routing, **kwargs",
        "Include.match": "self, message",
        "Include.channel_names": "self",
        "null_consumer": "*args, **kwargs",
        "connect_consumer": "message, *args, **kwargs",
        "route": "channels, consumer, **kwargs",
        "route_class": "consumer, **kwargs",
        "include": "routing, **kwargs",
    },
    "security.websockets": {
        "BaseOriginValidator": "func",
        "BaseOriginValidator.get_header": "self, message, name",
        "BaseOriginValidator.get_origin": "self, message",
        "BaseOriginValidator.validate_origin": "self, message, origin",
        "AllowedHostsOnlyOriginValidator": "func",
        "allowed_hosts_only": "func",
    },
    "sessions": {
        "session_for_reply_channel": "reply_channel",
        "channel_session": "func",
        "http_session": "func",
        "channel_and_http_session": "func",
        "enforce_ordering": "func=None, slight=False",
        "wait_channel_name": "reply_channel",
        "requeue_messages": "message",
    },
    "signals": {
        "consumer_started": None,
        "consumer_finished": None,
        "worker_ready": None,
        "worker_process_ready": None,
    },
    "staticfiles": {"StaticFilesHandler": "", "StaticFilesConsumer": ""},
    "test": {
        "ChannelTestCase": None,
        "TransactionChannelTestCase": None,
        "ChannelLiveServerTestCase": None,
        "Client": None,
        "WSClient": None,
        "HttpClient": None,
        "apply_routes": "routes, aliases=['default']",
    },
    "test.base": {
        "ChannelTestCaseMixin": None,
        "ChannelTestCase.test_channel_aliases": None,
        "ChannelTestCase.get_next_message": "self, channel, alias='default', require=False",
        "TransactionChannelTestCase.get_next_message": "self, channel, alias='default', require=False",
        "Client": "alias='default'",
        "Client.channel_layer": None,
        "Client.get_next_message": "self, channel",
        "Client.get_consumer_by_channel": "self, channel",
        "Client.send": "self, to, content={}",
        "Client.consume": "self, channel, fail_on_none=True",
        "Client.send_and_consume": "self, channel, content={}, fail_on_none=True",
        "Client.receive": "self",
        "Client.join_group": "self, group_name",
        "apply_routes": "routes, aliases=['default']",
        "apply_routes.enter": "self",
        "apply_routes.exit": "self, exc_type=None, exc_val=None, exc_tb=None",
    },
    "test.http": {"HttpClient": None},
    "test.liveserver": {
        "ChannelLiveServerTestCase": None,
        "ChannelLiveServerTestCase.host": None,
        "ChannelLiveServerTestCase.worker_threads": None,
        "ChannelLiveServerTestCase.serve_static": None,
        "ChannelLiveServerTestCase.live_server_url": None,
        "ChannelLiveServerTestCase.live_server_ws_url": None,
    },
    "test.websocket": {
        "WSClient.set_cookie": "self, key, value",
        "WSClient.set_header": "self, key, value",
        "WSClient.get_cookies": "self",
        "WSClient.headers": None,
        "WSClient.session": None,
        "WSClient.receive": "self, json=True",
        "WSClient.send": "self, to, content={}, text=None, path='/'",
        "WSClient.send_and_consume": (
            "self, channel, content={}, text=None, path='/', fail_on_none=True, check_accept=True"
        ),
        "WSClient.consume": "self, channel, fail_on_none=True, check_accept=True",
        "WSClient.login": "self, **credentials",
        "WSClient.force_login": "self, user, backend=None",
    },
    "tests": {"ChannelTestCase": None, "Client": None, "WSClient": None, "HttpClient": None, "apply_routes": None},
    "utils": {"name_that_thing": "thing"},
    "worker": {
        "Worker": (
            "channel_layer, callback=None, message_retries=10, signal_handlers=True, "
            "only_channels=None, exclude_channels=None"
        ),
        "Worker.install_signal_handler": "self",
        "Worker.sigterm_handler": "self, signo, stack_frame",
        "Worker.ready": "self",
        "Worker.apply_channel_filters": "self, channels",
        "Worker.run": "self",
        "WorkerGroup": "*args, **kwargs",
        "WorkerGroup.run": "self",
        "WorkerGroup.ready": "self",
    },
}
# Set when the object is made.
MADE: dict[str, list[str]] = {
    "asgi.ChannelLayerWrapper": ["channel_layer", "alias", "routing", "router"],
    "channel.Channel": ["name", "channel_layer"],
    "message.Message": ["content", "channel", "channel_layer", "reply_channel"],
    "routing.Router": ["root", "channels"],
}
# Command -> app -> options of 1.x.
COMMANDS = {
    "runserver": ("procman.channels", ["noworker", "noasgi", "http_timeout", "websocket_handshake_timeout"]),
    "runworker": (
        "procman.channels",
        ["layer", "only-channels", "exclude-channels", "threads", "disable-graceful-stop"],
    ),
    "rundelay": ("procman.channels.delay", ["layer", "sleep"]),
}
# What 1.x had and this package has not, with the reason.
LEFT_OUT = {
    "hacks": "it made staticfiles' runserver inherit ours; Django takes the app that is listed first",
    "package_checks": "it refused versions of asgi_redis, asgi_ipc and asgi_rabbitmq, none of which is used",
    "database_layer": "a layer in the database, removed in 1.0",
    "test.liveserver.DaphneProcess": "the live server is made of threads: nothing is forked",
    "test.liveserver.WorkerProcess": "the live server is made of threads: nothing is forked",
}

ALL = [(module, name, parameters) for module, names in NAMES.items() for name, parameters in names.items()]


def find(module: str, name: str) -> Any:
    found: Any = importlib.import_module(".".join(filter(None, ("procman.channels", module))))
    for part in name.split("."):
        found = getattr(found, part)
    return found


@pytest.mark.parametrize(("module", "name", "parameters"), ALL, ids=[f"{module}.{name}" for module, name, _ in ALL])
def test_name_of_1x_is_there_and_takes_its_calls(module: str, name: str, parameters: str | None) -> None:
    found = find(module, name)
    if parameters is None:
        return
    assert callable(found)
    ours = inspect.signature(found)
    theirs = inspect.signature(eval(f"lambda {parameters}: None"))
    plain = [each for each in theirs.parameters.values() if each.kind is each.POSITIONAL_OR_KEYWORD]
    required = [each for each in plain if each.default is each.empty]
    values = {each.name: object() for each in plain}
    # With no more than what had to be given, with everything in its place, and with everything by name.
    ours.bind(*(values[each.name] for each in required))
    in_place = ours.bind(*values.values())
    own = [each.name for each in plain if each.name != "self"]
    by_name = ours.bind(*([object()] if "self" in values else []), **{name: values[name] for name in own})
    variable = {each.kind for each in ours.parameters.values()}
    for each in own:
        assert in_place.arguments.get(each, values[each]) is values[each]
        assert each in ours.parameters or inspect.Parameter.VAR_KEYWORD in variable, each
        assert each in by_name.arguments or inspect.Parameter.VAR_KEYWORD in variable, each
    if any(each.kind is each.VAR_KEYWORD for each in theirs.parameters.values()):
        assert inspect.Parameter.VAR_KEYWORD in variable


@pytest.mark.parametrize("name", MADE)
def test_attribute_of_1x_is_there_once_the_object_is_made(name: str) -> None:
    module, _, kind = name.rpartition(".")
    arguments: dict[str, tuple[Any, ...]] = {
        "ChannelLayerWrapper": (object(), "default", []),
        "Channel": ("name", "default", object()),
        "Message": ({}, None, None),
        "Router": ([],),
    }
    made = find(module, kind)(*arguments[kind])
    assert [attribute for attribute in MADE[name] if not hasattr(made, attribute)] == []


@pytest.mark.parametrize("command", COMMANDS)
def test_command_of_1x_has_its_options(command: str) -> None:
    app, options = COMMANDS[command]
    text = load_command_class(app, command).create_parser("manage.py", command).format_help()
    assert [option for option in options if f"--{option}" not in text] == []


@pytest.mark.parametrize("name", LEFT_OUT)
def test_name_that_was_left_out_is_not_there(name: str) -> None:
    module, _, last = name.rpartition(".")
    with pytest.raises((AttributeError, ImportError)):
        find(module, last)
    with pytest.raises(ImportError):
        importlib.import_module(f"procman.channels.{name}")
