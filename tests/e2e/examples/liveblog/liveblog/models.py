"""Blogs and their posts. A post that is saved is told to everybody who has its blog open."""

import json

from django.db import models

from procman.channels import Group


class Liveblog(models.Model):
    """A blog."""

    title = models.CharField(max_length=200)
    slug = models.SlugField(unique=True)

    def __str__(self):
        return self.title

    @property
    def group_name(self):
        """The group of the sockets that have this blog open."""
        return f"liveblog-{self.pk}"


class Post(models.Model):
    """A post."""

    liveblog = models.ForeignKey(Liveblog, related_name="posts", on_delete=models.CASCADE)
    body = models.TextField()
    created = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-created", "-pk"]

    def __str__(self):
        return f"#{self.pk}: {self.body[:60]}"

    def save(self, *args, **kwargs):
        """Save, and tell the open pages once the transaction has committed."""
        super().save(*args, **kwargs)
        notice = {"id": self.pk, "body": self.body, "created": self.created.isoformat()}
        Group(self.liveblog.group_name).send({"text": json.dumps(notice)}, on_commit=True)
