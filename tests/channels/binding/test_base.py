"""Which groups hear of a change, and when."""

from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.exceptions import ImproperlyConfigured
from django.core.management import call_command
from django.db import transaction
from django.db.models.signals import post_save
from django.test import TestCase

from procman.channels.binding.base import CREATE, DELETE, UPDATE, Binding, BindingMetaclass
from procman.channels.exceptions import InvalidFrame
from procman.channels.message import Message
from procman.layers.errors import LayerUnavailable
from tests.channels.layer import RecordingLayer


@pytest.fixture
def bound() -> Iterator[Any]:
    """Makes bindings of the user model; they are gone after the test."""
    made: list[Any] = []

    def make(**body: Any) -> Any:
        def group_names(cls: Any, instance: User) -> list[str]:
            return instance.last_name.split() or ["users"]

        def serialize(self: Any, instance: User, action: str) -> dict[str, Any]:
            return {"action": action, "name": instance.username}

        body = {
            "model": User, "fields": ["username"], "stream": "users", "group_names": classmethod(group_names),
            "serialize": serialize, "encode": classmethod(lambda cls, stream, payload: {stream: payload}), **body,
        }  # fmt: skip
        made.append(BindingMetaclass("UserBinding", (Binding,), body))
        return made[-1]

    yield make
    for each in made:
        BindingMetaclass.binding_classes.remove(each)
        for signal, receiver in _receivers(each):
            signal.disconnect(receiver, sender=User)


def _receivers(binding: Any) -> Iterator[tuple[Any, Any]]:
    from django.db.models import signals

    for when in ("pre_save", "post_save", "pre_delete", "post_delete"):
        yield getattr(signals, when), getattr(binding, f"{when}_receiver")


@pytest.fixture
def heard(layer: RecordingLayer, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, str]]:
    """(group, action, name) of everything that was sent."""
    sent: list[tuple[str, str, str]] = []

    def send_group(name: str, message: Any) -> None:
        sent.append((name, message["users"]["action"], message["users"]["name"]))

    monkeypatch.setattr(layer, "send_group", send_group)
    return sent


@pytest.fixture
def commit(database: None) -> Any:
    """A context whose end commits, as far as sends can tell."""
    return lambda: TestCase.captureOnCommitCallbacks(execute=True)


def test_a_change_is_told_to_the_groups_of_before_and_after(bound: Any, heard: Any, commit: Any) -> None:
    class_groups = {"before": ["old", "both"], "after": ["both", "new"]}
    now = ["before"]
    bound(group_names=classmethod(lambda cls, instance: class_groups[now[0]]))
    with commit():
        user = User.objects.create(username="ada")
    assert heard == [("both", CREATE, "ada"), ("old", CREATE, "ada")]
    heard.clear()

    def move(**kwargs: Any) -> None:
        now[0] = "after"

    from django.db.models.signals import pre_save

    # Connected after the binding, so that it moves between the two looks.
    pre_save.connect(move, sender=User)
    try:
        with commit():
            user.save()
    finally:
        pre_save.disconnect(move, sender=User)
    assert heard == [("old", DELETE, "ada"), ("both", UPDATE, "ada"), ("new", CREATE, "ada")]
    heard.clear()
    with commit():
        user.delete()
    assert heard == [("both", DELETE, "ada"), ("new", DELETE, "ada")]


def test_a_change_that_is_rolled_back_is_never_heard_of(bound: Any, heard: Any, commit: Any) -> None:
    bound()
    with commit():
        with pytest.raises(LookupError), transaction.atomic():
            User.objects.create(username="ada")
            raise LookupError
        User.objects.create(username="bob")
    assert heard == [("users", CREATE, "bob")]


def test_nothing_is_sent_before_the_commit_and_then_what_was_at_the_change(bound: Any, heard: Any, commit: Any) -> None:
    bound()
    with commit():
        user = User.objects.create(username="ada")
        user.username = "changed, not saved"
        assert heard == []
    assert heard == [("users", CREATE, "ada")]


def test_a_receiver_that_saves_again_does_not_confuse_the_groups(bound: Any, heard: Any, commit: Any) -> None:
    def again(instance: User, created: bool, **kwargs: Any) -> None:
        if created:
            instance.first_name = "x"
            instance.save()

    # Connected first: it runs between the binding's look before the change and the one after.
    post_save.connect(again, sender=User)
    try:
        bound()
        with commit():
            user = User.objects.create(username="ada")
    finally:
        post_save.disconnect(again, sender=User)
    assert sorted(heard) == [("users", CREATE, "ada"), ("users", UPDATE, "ada")]
    assert "_binding_group_names" not in user.__dict__


def test_each_binding_of_a_model_sends_for_itself(bound: Any, heard: Any, commit: Any) -> None:
    bound()
    bound(group_names=classmethod(lambda cls, instance: ["others"]))
    with commit():
        User.objects.create(username="ada")
    assert sorted(heard) == [("others", CREATE, "ada"), ("users", CREATE, "ada")]


def test_an_empty_payload_is_not_sent(bound: Any, heard: Any, commit: Any) -> None:
    bound(serialize=lambda self, instance, action: {})
    with commit():
        User.objects.create(username="ada")
    assert heard == []


def test_a_binding_without_a_stream_says_so(bound: Any, heard: Any, commit: Any) -> None:
    bound(stream=None)
    with pytest.raises(ValueError, match="needs a stream"):
        User.objects.create(username="ada")


def test_what_the_signal_came_with_is_there_while_it_is_serialised(bound: Any, heard: Any, commit: Any) -> None:
    seen: list[Any] = []

    def serialize(self: Any, instance: User, action: str) -> dict[str, Any]:
        seen.append((self.signal_kwargs["update_fields"], self.signal_kwargs["using"]))
        return {}

    bound(serialize=serialize)
    user = User.objects.create(username="ada")
    user.save(update_fields=["username"])
    assert seen == [(None, "default"), (frozenset({"username"}), "default")]


def test_fixtures_are_loaded_without_a_word(bound: Any, heard: Any, commit: Any, tmp_path: Any) -> None:
    bound()
    fixture = tmp_path / "users.json"
    fixture.write_text('[{"model": "auth.user", "pk": 7, "fields": {"username": "ada", "password": ""}}]')
    with commit():
        call_command("loaddata", str(fixture), verbosity=0)
    assert User.objects.get(pk=7).username == "ada"
    assert heard == []


def test_a_model_may_be_named(bound: Any, heard: Any, commit: Any) -> None:
    assert bound(model="auth.User").model is User
    with commit():
        User.objects.create(username="ada")
    assert heard == [("users", CREATE, "ada")]


@pytest.mark.parametrize(
    ("body", "problem"),
    [({"model": User}, "fields"), ({"fields": ["username"]}, "needs a model"), ({}, "needs a model")],
)
def test_a_binding_says_what_it_lacks_when_it_is_made(body: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        BindingMetaclass("Incomplete", (Binding,), body)


def test_a_binding_without_a_model_on_purpose_is_abstract(bound: Any) -> None:
    count = len(BindingMetaclass.binding_classes)
    BindingMetaclass("Abstract", (Binding,), {"model": None})
    assert len(BindingMetaclass.binding_classes) == count


def test_bindings_that_were_made_before_the_apps_were_ready_are_connected_then(
    bound: Any, heard: Any, commit: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BindingMetaclass, "register_immediately", False)
    bound()
    with commit():
        User.objects.create(username="early")
    BindingMetaclass.register_all()
    with commit():
        User.objects.create(username="late")
    assert heard == [("users", CREATE, "late")]


def test_nobody_may_change_anything_until_it_is_allowed(bound: Any, layer: RecordingLayer) -> None:
    done: list[Any] = []
    binding = bound(
        channel_session_user=False,
        deserialize=lambda self, message: (message["action"], 1, {}),
        create=lambda self, data: done.append("create"),
        update=lambda self, pk, data: done.append(("update", pk)),
        delete=lambda self, pk: done.append(("delete", pk)),
    )

    def ask(action: Any) -> None:
        binding.consumer(Message({"reply_channel": "a!b", "action": action}, "websocket.receive", None))

    for action in (CREATE, UPDATE, DELETE):
        ask(action)
    assert done == []
    asked: list[Any] = []

    def has_permission(self: Any, user: Any, action: str, pk: Any) -> bool:
        asked.append((user.is_anonymous, action, pk))
        return True

    binding.has_permission = has_permission
    for action in (CREATE, UPDATE, DELETE):
        ask(action)
    assert done == ["create", ("update", 1), ("delete", 1)]
    assert asked == [(True, CREATE, 1), (True, UPDATE, 1), (True, DELETE, 1)]
    for action in ("drop", None, ["create"]):
        with pytest.raises(InvalidFrame, match="Bad action"):
            ask(action)


def test_a_binding_must_say_who_hears(bound: Any, commit: Any) -> None:
    bound(group_names=classmethod(Binding.group_names.__func__))
    with pytest.raises(NotImplementedError, match="group_names"):
        User.objects.create(username="ada")


def test_a_name_that_is_one_text_is_no_list_of_groups(bound: Any, commit: Any) -> None:
    bound(group_names=classmethod(lambda cls, instance: "users"))
    with pytest.raises(TypeError, match="list of names"):
        User.objects.create(username="ada")


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ({"exclude": ["pasword"], "fields": None}, "lists 'pasword', and User has no such field; it has .*password"),
        ({"fields": ["usrname"]}, "lists 'usrname'"),
        ({"fields": "username"}, "write a list of names"),
        ({"model": "auth.Nobody"}, "auth.Nobody"),
        ({"model": "Nobody"}, "model 'Nobody'"),
    ],
)
def test_a_misspelt_name_is_refused_instead_of_sending_what_it_was_to_keep(
    bound: Any, body: dict[str, Any], problem: str
) -> None:
    count = len(BindingMetaclass.binding_classes)
    with pytest.raises(ImproperlyConfigured, match=problem):
        bound(**body)
    del BindingMetaclass.binding_classes[count:]


def test_groups_must_be_asked_for_by_the_class() -> None:
    body = {"model": User, "fields": ["username"], "group_names": lambda self, instance, action: ["users"]}
    with pytest.raises(ValueError, match="must be a classmethod"):
        BindingMetaclass("Old", (Binding,), body)


def test_a_save_where_no_layer_runs_is_no_failure(
    bound: Any, layer: RecordingLayer, commit: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def send_group(name: str, message: Any) -> None:
        raise LayerUnavailable("nothing listens")

    monkeypatch.setattr(layer, "send_group", send_group)
    bound()
    with commit():
        User.objects.create(username="ada")
    assert "group users is not told: nothing listens" in caplog.text
