"""``DelayedMessage``: what is to be sent, where to, and when."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import Any, ClassVar

from django.db import models
from django.utils import timezone

from procman.channels import DEFAULT_CHANNEL_LAYER
from procman.channels.asgi import channel_layers
from procman.channels.channel import Channel
from procman.layers.errors import ChannelFull


class DelayedMessageQuerySet(models.QuerySet["DelayedMessage"]):
    """Messages that are to be sent later."""

    def is_due(self) -> DelayedMessageQuerySet:
        """Those whose time has come."""
        return self.filter(due_date__lte=timezone.now())


class DelayedMessage(models.Model):
    """A message to *channel_name* from *due_date* on. ``content`` is JSON; ``delay=`` sets the date from now."""

    due_date: models.DateTimeField[datetime, datetime] = models.DateTimeField(db_index=True)
    channel_name: models.CharField[str, str] = models.CharField(max_length=512)
    content: models.TextField[str, str] = models.TextField()

    objects: ClassVar[Any] = DelayedMessageQuerySet.as_manager()

    def __str__(self) -> str:
        return f"{self.channel_name} at {self.due_date}"

    @property
    def delay(self) -> float:
        """Milliseconds from now until the message is due; negative once it is. Can be set."""
        return (self.due_date - timezone.now()) / timedelta(milliseconds=1)

    @delay.setter
    def delay(self, milliseconds: float) -> None:
        self.due_date = timezone.now() + timedelta(milliseconds=milliseconds)

    def send(self, channel_layer: Any = None, requeue_delay: float = 1000) -> None:
        """Send the message now over *channel_layer* (the default one) and delete it; if its channel is full, put it
        off by *requeue_delay* milliseconds.

        Raises:
            TypeError, ValueError: channel name or content are none. MessageTooLarge, LayerUnavailable.
        """
        layer = channel_layers[DEFAULT_CHANNEL_LAYER] if channel_layer is None else channel_layer
        try:
            Channel(self.channel_name, channel_layer=layer).send(json.loads(self.content), immediately=True)
        except (ChannelFull, getattr(layer, "ChannelFull", ChannelFull)):
            self.put_off(requeue_delay)
        else:
            self.delete()

    def put_off(self, milliseconds: float) -> None:
        """Have the message come due *milliseconds* from now."""
        self.delay = milliseconds
        self.save(update_fields=["due_date"])
