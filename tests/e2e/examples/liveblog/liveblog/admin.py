"""Blogs and posts in the admin."""

from django.contrib import admin

from liveblog.models import Liveblog, Post

admin.site.register(Liveblog, prepopulated_fields={"slug": ["title"]})
admin.site.register(Post, list_display=["id", "liveblog", "body", "created"], ordering=["-id"])
