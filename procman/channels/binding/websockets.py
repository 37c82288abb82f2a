"""Data binding over WebSockets: payloads with action, primary key and fields, as streams of a demultiplexer."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, ClassVar

from django.core import serializers
from django.core.exceptions import ValidationError
from django.core.serializers.json import DjangoJSONEncoder
from django.db import models
from django.utils.encoding import is_protected_type

from procman.channels.binding.base import Binding, is_all
from procman.channels.exceptions import InvalidFrame
from procman.channels.generic.websockets import WebsocketMultiplexer
from procman.channels.message import Message


class WebsocketBinding(Binding):
    """A model on a stream of a WebSocket, in both directions::

        class TaskBinding(WebsocketBinding):
            model = "tasks.Task"
            stream = "tasks"
            fields = ["title", "is_done"]

            @classmethod
            def group_names(cls, instance):
                return ["tasks"]

            def has_permission(self, user, action, pk):
                return user.is_staff

        class Page(WebsocketDemultiplexer):
            consumers = {"tasks": TaskBinding.consumer}
            groups = ["tasks"]

    A change sends ``{"stream": "tasks", "payload": {"action": "update", "pk": 1, "data": {...}, "model":
    "tasks.task"}}`` to every group; a client that sends such a payload (without ``model``) asks for a change.
    """

    model: Any = None

    @classmethod
    def encode(cls, stream: str, payload: dict[str, Any]) -> dict[str, Any]:
        """The frame that carries *payload* on *stream*."""
        return WebsocketMultiplexer.encode(stream, payload)

    @property
    def model_label(self) -> str:
        """``app.model``, in lower case."""
        return str(self.model._meta.label_lower)

    @classmethod
    def _may_be_seen(cls, name: str) -> bool:
        if cls.fields is None:
            return name not in (cls.exclude or ())
        return is_all(cls.fields) or name in cls.fields

    def serialize(self, instance: models.Model, action: str) -> dict[str, Any]:
        """The payload that tells of *action* on *instance*."""
        return {
            "action": action,
            "pk": instance.pk,
            "data": self.serialize_data(instance),
            "model": self.model_label,
        }

    def serialize_data(self, instance: models.Model) -> dict[str, Any]:
        """The fields of *instance* that clients may see, inherited ones too, as JSON values.

        The primary key is among them only where ``fields`` names it.
        """
        data: dict[str, Any] = {}
        for field in instance._meta.concrete_fields:
            if self._may_be_seen(field.name) and (not field.primary_key or field.name in (self.fields or ())):
                value = field.value_from_object(instance)
                data[field.name] = value if is_protected_type(value) else field.value_to_string(instance)
        for relation in instance._meta.many_to_many:
            if self._may_be_seen(relation.name):
                # One that has just been deleted has none left.
                related = getattr(instance, relation.name).values_list("pk", flat=True) if instance.pk else ()
                data[relation.name] = list(related)
        encoded: dict[str, Any] = json.loads(json.dumps(data, cls=DjangoJSONEncoder))
        return encoded

    @classmethod
    def trigger_inbound(cls, message: Message, **kwargs: Any) -> None:
        """Carry out what a frame asks for; a connect and a disconnect ask for nothing."""
        if message.channel.name == "websocket.receive":
            super().trigger_inbound(message, **kwargs)

    def deserialize(self, message: Message) -> tuple[str, Any, dict[str, Any]]:
        """Action, primary key and data of a frame's text.

        Raises:
            InvalidFrame: it is no JSON, has no action, or data that is no object.
        """
        try:
            content = json.loads(message["text"])
            action, pk, data = content["action"], content.get("pk"), content.get("data")
        except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
            raise InvalidFrame(f"the payload of {self.stream} is no change: {type(error).__name__} {error}") from error
        if data is None:
            data = {}
        if not isinstance(data, dict) or isinstance(pk, dict | list):
            raise InvalidFrame(f"the payload of {self.stream} has no change: data must be an object, pk a value")
        return action, pk, data

    def _hydrate(self, pk: Any, data: dict[str, Any]) -> Any:
        """An instance with what of *data* clients may set, and its relations. Raises DeserializationError."""
        allowed = {name: value for name, value in data.items() if self._may_be_seen(name)}
        described = json.dumps([{"pk": pk, "model": self.model_label, "fields": allowed}])
        return next(iter(serializers.deserialize("json", described)))

    def create(self, data: dict[str, Any]) -> None:
        """Make an instance of what of *data* clients may set. Raises IntegrityError where there is such a one."""
        hydrated = self._hydrate(None, data)
        key = hydrated.object._meta.pk
        if key.name not in data:
            # Deserialising looks for a row with the same natural key: without this a creation could overwrite one.
            setattr(hydrated.object, key.attname, key.get_default())
        hydrated.object.save(force_insert=True)
        _set_relations(hydrated.object, hydrated.m2m_data)

    def update(self, pk: Any, data: dict[str, Any]) -> None:
        """Set what of *data* clients may set on the instance *pk*; the rest of it is left alone.

        Raises:
            ObjectDoesNotExist, ValidationError: there is no such instance.
        """
        instance = self._get(pk)
        hydrated = self._hydrate(pk, data)
        for field in instance._meta.concrete_fields:
            if field.name in data and self._may_be_seen(field.name) and not field.primary_key:
                setattr(instance, field.attname, getattr(hydrated.object, field.attname))
        instance.save()
        _set_relations(instance, hydrated.m2m_data)

    def delete(self, pk: Any) -> None:
        """Delete the instance *pk*. Raises ObjectDoesNotExist, ValidationError: there is none."""
        self._get(pk).delete()

    def _get(self, pk: Any) -> Any:
        try:
            return self.model._default_manager.select_for_update().get(pk=pk)
        except (TypeError, ValueError, OverflowError) as error:
            raise ValidationError(f"no {self.model_label} has this key: {error}") from error


class WebsocketBindingWithMembers(WebsocketBinding):
    """A binding that also sends ``send_members``: attributes of the instance, or methods, which are called.

    ``"author.get_full_name"`` is sent as ``author__get_full_name``. A client cannot set them.
    """

    model: Any = None
    send_members: ClassVar[Iterable[str]] = ()
    encoder = DjangoJSONEncoder()

    def serialize_data(self, instance: models.Model) -> dict[str, Any]:
        """The fields and the members of *instance*."""
        members = {}
        for path in self.send_members:
            member: Any = instance
            for name in path.split("."):
                member = getattr(member, name)
            members[path.replace(".", "__")] = member() if callable(member) else member
        return {**super().serialize_data(instance), **json.loads(self.encoder.encode(members))}


def _set_relations(instance: Any, relations: dict[str, Any] | None) -> None:
    for name, values in (relations or {}).items():
        getattr(instance, name).set(values)
