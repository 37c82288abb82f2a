"""Every view."""

from django.urls import path, re_path

from mirror import views

urlpatterns = [
    re_path(r"^echo/(?P<rest>.*)$", views.echo),
    path("refusing/", views.refusing),
    path("answer/<int:status>/", views.answer),
    path("cookies/", views.cookies),
    path("injected/", views.injected),
    path("boom/", views.boom),
    path("nothing/", views.nothing),
    path("redirected/", views.redirected),
    path("stream/", views.stream),
    path("async-stream/", views.async_stream),
    path("async/", views.async_view),
    path("file/", views.file),
    path("conditional/", views.conditional),
    path("not-modified/", views.not_modified),
    path("large/", views.large),
    path("session/", views.session),
    path("token/", views.token),
    path("protected/", views.protected),
    path("post-only/", views.post_only),
    path("written/", views.written),
    path("iterated/", views.iterated),
    path("json/", views.json_view),
]
