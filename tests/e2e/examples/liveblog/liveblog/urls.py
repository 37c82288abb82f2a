"""Pages."""

from django.contrib import admin
from django.urls import path

from liveblog import views

urlpatterns = [
    path("", views.index),
    path("liveblog/<slug:slug>/", views.liveblog, name="liveblog"),
    path("admin/", admin.site.urls),
]
