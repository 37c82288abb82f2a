"""Which groups hear of a model's change, in what order, and when; and what becomes of a change that a client asks for.

Outbound starts with Django's save and delete signals. What is sent is made when the change happens and leaves when
its transaction commits: a change that is rolled back is never heard of. Changes without signals (``QuerySet.update``,
``bulk_create``, many-to-many relations) and raw saves (fixtures) send nothing. ``websockets.py`` says what messages
look like.
"""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Callable, Iterable
from typing import Any, ClassVar

from django.apps import apps
from django.core.exceptions import ImproperlyConfigured, ObjectDoesNotExist, ValidationError
from django.core.serializers.base import DeserializationError
from django.db import DataError, IntegrityError, models, router, transaction
from django.db.models import signals

from procman.channels.auth import channel_session_user, user_of_session
from procman.channels.channel import Group, when_committed
from procman.channels.exceptions import InvalidFrame
from procman.channels.message import Message
from procman.channels.sessions import channel_session
from procman.layers import names
from procman.layers.errors import LayerUnavailable
from procman.log import escape

logger = logging.getLogger("django.channels")

CREATE = "create"
UPDATE = "update"
DELETE = "delete"

# Where an instance keeps the groups that it was in before the change that is going on, by binding.
_GROUPS = "_binding_group_names"


class BindingMetaclass(type):
    """Collects the bindings of a project. They are connected to the models' signals once all apps are ready."""

    binding_classes: ClassVar[list[type[Binding]]] = []
    register_immediately: ClassVar[bool] = False

    def __init__(cls, name: str, bases: tuple[type, ...], body: dict[str, Any]) -> None:
        super().__init__(name, bases, body)
        if not bases or ("model" in body and body["model"] is None):
            return  # abstract
        binding: Any = cls
        if binding.model is None:
            raise ValueError(f"{name} needs a model, or `model = None` in its body if others are to inherit from it")
        if binding.fields is None and binding.exclude is None:
            raise ValueError(f"You must set the fields attribute on Binding {name}, or exclude: which may clients see?")
        BindingMetaclass.binding_classes.append(binding)
        for method in ("group_names", "encode"):
            if not isinstance(inspect.getattr_static(cls, method), classmethod | staticmethod):
                raise ValueError(f"{name}.{method} must be a classmethod: @classmethod def {method}(cls, ...)")
        if BindingMetaclass.register_immediately:
            binding.register()

    @classmethod
    def register_all(mcs) -> None:
        """Connect all bindings, and from now on each as it is made. Done by the app when it is ready."""
        if not mcs.register_immediately:
            mcs.register_immediately = True
            for binding in mcs.binding_classes:
                binding.register()


class Binding(metaclass=BindingMetaclass):
    """A model whose changes are sent to groups, and may be asked for by clients. See ``WebsocketBinding``.

    ``model`` is a class or ``"app.Model"``; ``fields`` lists what clients may see and set (``["__all__"]``: all), or
    ``exclude`` what not; ``stream`` names the stream. While ``serialize`` runs, ``signal_kwargs`` has what the signal
    came with, such as ``update_fields``.
    """

    model: Any = None
    fields: Iterable[str] | None = None
    exclude: Iterable[str] | None = None
    stream: str | None = None
    channel_session_user: bool = True
    channel_session: bool = False

    # Of an inbound change.
    message: Message
    kwargs: dict[str, Any]
    user: Any
    # Of an outbound one.
    signal_kwargs: dict[str, Any]

    @classmethod
    def register(cls) -> None:
        """Connect this binding to the signals of its model.

        Raises:
            ImproperlyConfigured: there is no such model, or it has not the fields that are listed.
        """
        if isinstance(cls.model, str):
            try:
                cls.model = apps.get_model(cls.model)
            except (LookupError, ValueError) as error:
                raise ImproperlyConfigured(f"model {cls.model!r} of {cls.__name__}: {error}") from error
        cls._check_fields()
        for signal, receiver in (
            (signals.pre_save, cls.pre_save_receiver),
            (signals.post_save, cls.post_save_receiver),
            (signals.pre_delete, cls.pre_delete_receiver),
            (signals.post_delete, cls.post_delete_receiver),
        ):
            signal.connect(receiver, sender=cls.model)

    @classmethod
    def _check_fields(cls) -> None:
        """Refuse names that are no fields: a misspelt one in ``exclude`` would be sent to everybody."""
        known = {field.name for field in cls.model._meta.get_fields()}
        for option, listed in (("fields", cls.fields), ("exclude", cls.exclude)):
            if listed is None or (option == "fields" and is_all(listed)):
                continue
            if isinstance(listed, str):
                raise ImproperlyConfigured(f"{option} of {cls.__name__} is {listed!r}: write a list of names")
            unknown = [name for name in listed if name not in known]
            if unknown:
                raise ImproperlyConfigured(
                    f"{option} of {cls.__name__} lists {unknown[0]!r}, and {cls.model.__name__} has no such field; it "
                    f"has {', '.join(sorted(known))}"
                )

    # -- outbound: a model has changed ---------------------------------------------------------------------------

    @classmethod
    def pre_save_receiver(cls, instance: models.Model, raw: bool = False, **kwargs: Any) -> None:
        """Note the groups of *instance* before it is saved."""
        if not raw:
            cls.pre_change_receiver(instance, CREATE if instance._state.adding else UPDATE)

    @classmethod
    def post_save_receiver(
        cls, instance: models.Model, created: bool = False, raw: bool = False, **kwargs: Any
    ) -> None:
        """Tell the groups of *instance* that it was saved."""
        if not raw:
            cls.post_change_receiver(instance, CREATE if created else UPDATE, created=created, **kwargs)

    @classmethod
    def pre_delete_receiver(cls, instance: models.Model, **kwargs: Any) -> None:
        """Note the groups of *instance* before it is deleted."""
        cls.pre_change_receiver(instance, DELETE)

    @classmethod
    def post_delete_receiver(cls, instance: models.Model, **kwargs: Any) -> None:
        """Tell the groups of *instance* that it was deleted."""
        cls.post_change_receiver(instance, DELETE, **kwargs)

    @classmethod
    def pre_change_receiver(cls, instance: models.Model, action: str) -> None:
        """Note the groups that know of *instance*: none of one that is being created."""
        groups = set() if action == CREATE else cls._groups_of(instance)
        instance.__dict__.setdefault(_GROUPS, {})[cls] = groups

    @classmethod
    def post_change_receiver(cls, instance: models.Model, action: str, **kwargs: Any) -> None:
        """Send what the groups before and after the change must hear: deletions first, then updates, then creations."""
        after = set() if action == DELETE else cls._groups_of(instance)
        noted = instance.__dict__.get(_GROUPS, {})
        # A receiver that saved the instance again has taken the note already; its groups are those of now.
        before = noted.pop(cls, after) if action != CREATE else set()
        noted.pop(cls, None)
        if not noted:
            instance.__dict__.pop(_GROUPS, None)
        self = cls()
        self.send_messages(instance, before - after, DELETE, **kwargs)
        self.send_messages(instance, before & after, UPDATE, **kwargs)
        self.send_messages(instance, after - before, CREATE, **kwargs)

    def send_messages(self, instance: models.Model, group_names: set[str], action: str, **kwargs: Any) -> None:
        """Send *action* once to each of *group_names*, with the commit. An empty payload is not sent."""
        if not group_names:
            return
        self.signal_kwargs = kwargs
        payload = self.serialize(instance, action)
        if not payload:
            return
        if self.stream is None:
            raise ValueError(f"{type(self).__name__} needs a stream, the name by which clients know it")
        message = self.encode(self.stream, payload)
        for name in sorted(group_names):
            names.check_group(name)
            when_committed(functools.partial(_tell, name, message), kwargs.get("using"))

    @classmethod
    def _groups_of(cls, instance: models.Model) -> set[str]:
        found = cls.group_names(instance)
        if isinstance(found, str):
            raise TypeError(f"group_names of {cls.__name__} must return a list of names, not {found!r}")
        return set(found)

    @classmethod
    def group_names(cls, instance: Any) -> Iterable[str]:
        """Names of the groups that hear of *instance*. Asked before and after a change; to be overridden.

        Before a save the instance has its new values already: where the groups depend on a field that changes, look
        the old value up in the database.
        """
        raise NotImplementedError(f"{cls.__name__} must say in group_names(cls, instance) who hears of an instance")

    @classmethod
    def encode(cls, stream: str, payload: dict[str, Any]) -> dict[str, Any]:
        """The message that carries *payload*."""
        raise NotImplementedError

    def serialize(self, instance: Any, action: str) -> dict[str, Any]:
        """The payload that tells of *action* on *instance*; an empty one sends nothing."""
        raise NotImplementedError

    # -- inbound: a client asks for a change ---------------------------------------------------------------------

    @classmethod
    def get_handler(cls) -> Callable[..., Any]:
        """``trigger_inbound`` with the decorators that the class asks for."""
        if cls.channel_session_user:
            return channel_session_user(cls.trigger_inbound)
        return channel_session(cls.trigger_inbound) if cls.channel_session else cls.trigger_inbound

    @classmethod
    def consumer(cls, message: Message, **kwargs: Any) -> None:
        """The consumer of changes, for routes and for ``WebsocketDemultiplexer.consumers``."""
        cls.get_handler()(message, **kwargs)

    @classmethod
    def trigger_inbound(cls, message: Message, **kwargs: Any) -> None:
        """Carry out what *message* asks for, if its user may. What cannot be done is one line in the log.

        Raises:
            InvalidFrame: the message cannot be read. The worker closes the WebSocket with 1007.
        """
        self = cls()
        self.message, self.kwargs = message, kwargs
        self.user = getattr(message, "user", None) or user_of_session(None)
        action, pk, data = self.deserialize(message)
        try:
            with transaction.atomic(using=router.db_for_write(cls.model)):
                self.run_action(action, pk, data)
        except (DeserializationError, ObjectDoesNotExist, ValidationError, IntegrityError, DataError) as error:
            logger.warning(
                "%s: a client's %s of %s cannot be done: %s",
                cls.__name__, action, escape(str(pk)[:100]), escape(str(error)[:500]),
            )  # fmt: skip

    def deserialize(self, message: Message) -> tuple[str, Any, dict[str, Any]]:
        """Action, primary key (None: of a new instance) and data of *message*. Raises InvalidFrame."""
        raise NotImplementedError

    def has_permission(self, user: Any, action: str, pk: Any) -> bool:
        """Whether *user* may do *action* to the instance *pk*. Nobody may, until this is overridden."""
        return False

    def run_action(self, action: str, pk: Any, data: dict[str, Any]) -> None:
        """Do *action*, if the user may. Raises InvalidFrame for one that there is not."""
        if action not in (CREATE, UPDATE, DELETE):
            raise InvalidFrame(f"Bad action {str(action)[:100]!r}")
        if not self.has_permission(self.user, action, pk):
            return
        if action == CREATE:
            self.create(data)
        elif action == UPDATE:
            self.update(pk, data)
        else:
            self.delete(pk)

    def create(self, data: dict[str, Any]) -> None:
        """Make an instance of *data*."""
        raise NotImplementedError

    def update(self, pk: Any, data: dict[str, Any]) -> None:
        """Change what *data* has of the instance *pk*."""
        raise NotImplementedError

    def delete(self, pk: Any) -> None:
        """Delete the instance *pk*."""
        raise NotImplementedError


def is_all(fields: Iterable[str]) -> bool:
    """Whether *fields* stand for all that a model has."""
    return fields == "__all__" or list(fields) == ["__all__"]


def _tell(group: str, message: dict[str, Any]) -> None:
    """Send *message*. The row is committed: whoever saved it where no layer runs has not failed."""
    try:
        Group(group).send(message)
    except LayerUnavailable as error:
        logger.error("a change is saved, but group %s is not told: %s", group, error)
