"""Rooms in the admin."""

from django.contrib import admin

from multichat.models import Room

admin.site.register(Room, list_display=["id", "title", "staff_only"], list_display_links=["id", "title"])
