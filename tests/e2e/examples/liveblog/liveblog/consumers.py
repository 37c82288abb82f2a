"""Who has which blog open."""

import json

from liveblog.models import Liveblog
from procman.channels import Group


def connect_blog(message, slug):
    """Join the group of the blog, or say that there is none and close."""
    try:
        blog = Liveblog.objects.get(slug=slug)
    except Liveblog.DoesNotExist:
        message.reply_channel.send({"text": json.dumps({"error": "bad_slug"}), "close": True})
        return
    message.reply_channel.send({"accept": True})
    Group(blog.group_name).add(message.reply_channel)


def disconnect_blog(message, slug):
    """Leave the group; there is nothing to leave where the blog has gone."""
    blog = Liveblog.objects.filter(slug=slug).first()
    if blog is not None:
        Group(blog.group_name).discard(message.reply_channel)
