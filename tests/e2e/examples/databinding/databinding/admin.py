"""Numbers in the admin."""

from django.contrib import admin

from databinding.models import IntegerValue

admin.site.register(IntegerValue)
