"""Pages."""

from django.shortcuts import render

from databinding.models import IntegerValue


def index(request):
    """All numbers, as they are now; changes go over the socket, in both directions."""
    return render(request, "index.html", {"integer_values": IntegerValue.objects.order_by("name")})
