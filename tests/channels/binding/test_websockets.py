"""Models over WebSockets, in both directions."""

import json
import logging
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
from django.contrib.auth.models import Group as UserGroup
from django.contrib.auth.models import User
from django.db import models
from django.test import TestCase
from django.test.utils import isolate_apps

from procman.channels.binding.base import BindingMetaclass
from procman.channels.binding.websockets import WebsocketBinding, WebsocketBindingWithMembers
from procman.channels.exceptions import InvalidFrame
from procman.channels.generic.websockets import WebsocketDemultiplexer
from procman.channels.message import Message
from procman.channels.routing import route_class
from procman.channels.test import WSClient, apply_routes


@pytest.fixture
def bound(database: None) -> Iterator[Any]:
    """Makes bindings; they are gone after the test."""
    made: list[Any] = []

    def make(base: Any = WebsocketBinding, **body: Any) -> Any:
        body = {
            "model": User, "stream": "users", "has_permission": lambda *_: True, "channel_session_user": False,
            "group_names": classmethod(lambda cls, instance: ["users"]), **body,
        }  # fmt: skip
        made.append(BindingMetaclass("UserBinding", (base,), body))
        return made[-1]

    yield make
    from django.db.models import signals

    for each in made:
        BindingMetaclass.binding_classes.remove(each)
        for when in ("pre_save", "post_save", "pre_delete", "post_delete"):
            getattr(signals, when).disconnect(getattr(each, f"{when}_receiver"), sender=each.model)


@pytest.fixture
def client(database: None) -> Iterator[WSClient]:
    """A client in the group, over an empty layer in memory."""
    from procman.channels.asgi import channel_layers
    from procman.layers.memory import InMemoryChannelLayer

    before = channel_layers.set("default", None)
    assert isinstance(channel_layers["default"].channel_layer, InMemoryChannelLayer)
    channel_layers["default"].flush()
    client = WSClient()
    client.join_group("users")
    yield client
    channel_layers["default"].flush()
    channel_layers.set("default", before)


def committed() -> Any:
    return TestCase.captureOnCommitCallbacks(execute=True)


def ask(binding: Any, content: Any) -> None:
    text = content if isinstance(content, str) else json.dumps(content)
    binding.consumer(Message({"reply_channel": "a!b", "path": "/", "text": text}, "websocket.receive", None))


# -- outbound ------------------------------------------------------------------------------------------------------


def test_each_change_is_sent_once_with_the_listed_fields(bound: Any, client: WSClient) -> None:
    bound(fields=["username", "email"])
    with committed():
        user = User.objects.create(username="ada", first_name="hidden")
    told = {"action": "create", "pk": user.pk, "data": {"username": "ada", "email": ""}, "model": "auth.user"}
    assert client.receive() == {"stream": "users", "payload": told}
    user.email = "ada@x.test"
    with committed():
        user.save()
    told = {**told, "action": "update", "data": {"username": "ada", "email": "ada@x.test"}}
    assert client.receive() == {"stream": "users", "payload": told}
    with committed():
        user.delete()
    assert client.receive() == {"stream": "users", "payload": {**told, "action": "delete"}}
    assert client.receive() is None


@pytest.mark.parametrize("fields", ["__all__", ["__all__"]])
def test_all_fields_may_be_sent(bound: Any, client: WSClient, fields: Any) -> None:
    bound(fields=fields)
    with committed():
        User.objects.create(username="ada")
    data = client.receive()["payload"]["data"]
    assert {"username", "password", "is_superuser", "groups"} <= set(data)


def test_some_fields_may_be_left_out(bound: Any, client: WSClient) -> None:
    bound(exclude=["password", "email"])
    with committed():
        User.objects.create(username="ada")
    data = client.receive()["payload"]["data"]
    assert {"username", "first_name", "is_superuser"} <= set(data)
    assert not {"password", "email"} & set(data)


@isolate_apps("django.contrib.auth")
def test_inherited_fields_are_sent_and_a_key_where_it_is_asked_for() -> None:
    class Thing(models.Model):
        name = models.CharField(max_length=20, primary_key=True)
        size = models.IntegerField()

        class Meta:
            app_label = "auth"

    class Box(Thing):
        price = models.DecimalField(max_digits=5, decimal_places=2)

        class Meta:
            app_label = "auth"

    binding = type("BoxBinding", (WebsocketBinding,), {"model": None, "fields": ["name", "size", "price"]})
    binding.model = Box
    box = Box(name="b", size=3, price=Decimal("1.50"))
    assert binding().serialize_data(box) == {"name": "b", "size": 3, "price": "1.50"}
    binding.fields = "__all__"
    assert binding().serialize_data(box) == {"size": 3, "price": "1.50"}


def test_a_key_that_is_no_number_is_sent_as_text(bound: Any, client: WSClient) -> None:
    import uuid

    binding = bound(fields=["username"])
    key = uuid.uuid4()
    user = User(pk=key, username="ada")
    encoded = binding.encode("users", binding().serialize(user, "create"))
    assert json.loads(encoded["text"])["payload"]["pk"] == str(key)


def test_members_are_sent_beside_the_fields(bound: Any, client: WSClient) -> None:
    bound(
        WebsocketBindingWithMembers,
        fields=["username"],
        send_members=["email", "get_full_name", "_meta.model_name", "date_joined"],
    )
    with committed():
        user = User.objects.create(username="ada", first_name="Ada", last_name="L", email="a@x.test")
    data = client.receive()["payload"]["data"]
    assert data.pop("date_joined")[:10] == user.date_joined.isoformat()[:10]
    assert data == {"username": "ada", "email": "a@x.test", "get_full_name": "Ada L", "_meta__model_name": "user"}


def test_a_client_outside_of_the_group_hears_nothing(bound: Any, client: WSClient) -> None:
    bound(fields=["username"])
    other = WSClient()
    with committed():
        User.objects.create(username="ada")
    assert client.receive() is not None
    assert other.receive() is None


# -- inbound -------------------------------------------------------------------------------------------------------


def test_a_client_creates_updates_and_deletes(bound: Any) -> None:
    binding = bound(fields=["username", "email"])
    ask(binding, {"action": "create", "data": {"username": "ada", "email": "a@x.test"}})
    user = User.objects.get()
    assert (user.username, user.email) == ("ada", "a@x.test")
    ask(binding, {"action": "update", "pk": user.pk, "data": {"email": "b@x.test"}})
    user.refresh_from_db()
    assert (user.username, user.email) == ("ada", "b@x.test")
    ask(binding, {"action": "delete", "pk": user.pk})
    assert not User.objects.exists()


@pytest.mark.parametrize("rule", [{"fields": ["username"]}, {"exclude": ["is_superuser", "groups", "id"]}])
def test_a_client_sets_only_what_it_may_see(bound: Any, rule: dict[str, Any]) -> None:
    binding = bound(**rule)
    group = UserGroup.objects.create(name="staff")
    wanted = {"username": "eve", "is_superuser": True, "groups": [group.pk]}
    ask(binding, {"action": "create", "data": wanted})
    user = User.objects.get()
    ask(binding, {"action": "update", "pk": user.pk, "data": wanted | {"id": 99}})
    user = User.objects.get()
    assert user.username == "eve"
    assert not user.is_superuser
    assert not user.groups.exists()


def test_a_client_may_set_relations(bound: Any) -> None:
    binding = bound(fields=["username", "groups"])
    first, second = (UserGroup.objects.create(name=name) for name in ("a", "b"))
    ask(binding, {"action": "create", "data": {"username": "ada", "groups": [first.pk]}})
    user = User.objects.get()
    assert list(user.groups.all()) == [first]
    ask(binding, {"action": "update", "pk": user.pk, "data": {"groups": [second.pk]}})
    assert list(user.groups.all()) == [second]


def test_connect_and_disconnect_ask_for_nothing(bound: Any) -> None:
    binding = bound(fields=["username"])
    for channel in ("websocket.connect", "websocket.disconnect"):
        binding.consumer(Message({"reply_channel": "a!b", "path": "/"}, channel, None))


@pytest.mark.parametrize(
    "text",
    ["no json", "[]", '"create"', "{}", "1", '{"action": "drop"}', '{"action": {}}', '{"action": "create", "data": 1}',
     '{"action": "delete", "pk": {}}', "[" * 100_000],
)  # fmt: skip
def test_a_frame_that_is_no_change_is_refused(bound: Any, text: str) -> None:
    with pytest.raises(InvalidFrame):
        ask(bound(fields=["username"]), text)
    with pytest.raises(InvalidFrame):
        bound(fields=["username"]).consumer(Message({"reply_channel": "a!b", "path": "/"}, "websocket.receive", None))


@pytest.mark.parametrize(
    "content",
    [
        {"action": "update", "pk": 12345, "data": {"username": "x"}},
        {"action": "update", "pk": "no number", "data": {"username": "x"}},
        {"action": "update", "data": {"username": "x"}},
        {"action": "delete", "pk": 12345},
        {"action": "delete", "pk": 10**30},
        {"action": "create", "data": {"date_joined": "yesterday"}},
        {"action": "create", "data": {"username": "taken"}},
        {"action": "create", "data": {"groups": ["x"]}},
        {"action": "update", "pk": 1, "data": {"username": None}},
        {"action": "delete", "pk": "new\nline"},
    ],
    ids=str,
)  # fmt: skip
def test_a_change_that_cannot_be_done_is_one_line_in_the_log(bound: Any, caplog: Any, content: Any) -> None:
    User.objects.create(pk=1, username="taken")
    ask(bound(exclude=["password"]), content)
    (record,) = caplog.records
    assert (record.levelno, record.exc_info) == (logging.WARNING, None)
    assert "\n" not in record.getMessage()
    assert User.objects.get().username == "taken"


def test_a_change_over_a_demultiplexer_comes_back_to_the_group(bound: Any, client: WSClient) -> None:
    binding = bound(fields=["username"], channel_session_user=True)

    class Page(WebsocketDemultiplexer):
        consumers = {"users": binding.consumer}
        groups = ["users"]

    with apply_routes([route_class(Page, path="/")]), committed():
        client.send_and_consume("websocket.connect")
        frame = {"stream": "users", "payload": {"action": "create", "data": {"username": "ada"}}}
        client.send_and_consume("websocket.receive", text=frame)
    payload = client.receive()["payload"]
    assert (payload["action"], payload["data"]) == ("create", {"username": "ada"})
