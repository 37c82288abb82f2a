"""Pages."""

from django.contrib.auth.decorators import login_required
from django.shortcuts import render

from multichat.models import Room


@login_required(login_url="/accounts/login/")
def index(request):
    """All rooms; what is said in them comes over the socket."""
    return render(request, "index.html", {"rooms": Room.objects.order_by("title")})
