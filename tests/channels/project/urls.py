"""URLs of the test project."""

from django.contrib import admin
from django.urls import path

from tests.channels.project import views

urlpatterns = [
    path("admin/", admin.site.urls),
    path("hello/", views.hello),
    path("form/", views.form),
    path("body/", views.body),
    path("stream/<int:parts>/", views.stream),
    path("astream/<int:parts>/", views.astream),
    path("async/", views.async_hello),
    path("big/<int:size>/", views.big),
    path("boom/", views.boom),
    path("exit/", views.leave),
    path("later/", views.later),
    path("broken-stream/", views.broken_stream),
    path("say/", views.say),
    path("transaction/", views.transaction),
]
