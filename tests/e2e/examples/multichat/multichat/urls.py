"""Pages."""

from django.contrib import admin
from django.contrib.auth.views import LoginView, LogoutView
from django.urls import path

from multichat import views

urlpatterns = [
    path("", views.index),
    path("accounts/login/", LoginView.as_view(template_name="login.html", next_page="/")),
    path("accounts/logout/", LogoutView.as_view(next_page="/accounts/login/")),
    path("admin/", admin.site.urls),
]
