"""Rooms."""

import json

from django.db import models

from procman.channels import Group


class Room(models.Model):
    """A room that people talk in, or only staff."""

    title = models.CharField(max_length=255)
    staff_only = models.BooleanField(default=False)

    def __str__(self):
        return self.title

    @property
    def websocket_group(self):
        """The group of the sockets that are in this room."""
        return Group(f"room-{self.pk}")

    def send_message(self, text, user, kind="message"):
        """Send *text* of *user* to everybody in the room."""
        content = {"room": str(self.pk), "message": text, "username": user.username, "kind": kind}
        self.websocket_group.send({"text": json.dumps(content)})
