"""Middleware of every kind: a header, a stream that is changed, an exception."""

from django.core.signals import request_finished, request_started
from django.dispatch import receiver
from django.http import HttpResponse

_counts = {"started": 0, "finished": 0}


@receiver(request_started)
def _started(**kwargs):
    _counts["started"] += 1


@receiver(request_finished)
def _finished(**kwargs):
    _counts["finished"] += 1


def noting(get_response):
    """Say how many requests are open: one, as each signal is sent once."""

    def middleware(request):
        response = get_response(request)
        response["X-Open-Requests"] = _counts["started"] - _counts["finished"]
        return response

    return middleware


def shouting(get_response):
    """Change the parts of a stream, where that is asked for."""

    def middleware(request):
        response = get_response(request)
        if "shout" in request.GET and response.streaming and not response.is_async:
            response.streaming_content = (part.upper() for part in response.streaming_content)
        return response

    return middleware


def raising(get_response):
    """Raise, or answer, in the place of a view."""

    def middleware(request):
        where = request.GET.get("middleware")
        if where == "before":
            raise ValueError("before the view")
        if where == "answer":
            return HttpResponse("from the middleware", status=203)
        response = get_response(request)
        if where == "after":
            raise ValueError("after the view")
        return response

    return middleware
