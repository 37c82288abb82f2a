"""Views that the end-to-end tests ask for."""

import hashlib
import os
import re
import select
import signal
import subprocess

from django.contrib import admin
from django.contrib.auth.models import User
from django.db import transaction
from django.http import HttpResponse, JsonResponse, StreamingHttpResponse
from django.middleware.csrf import get_token
from django.urls import path
from django.views.decorators.csrf import csrf_exempt

from mysite.marks import mark
from procman.channels import Channel, Group
from procman.channels.exceptions import ResponseLater


def hello(request):
    """The trivial view."""
    return HttpResponse("hello", content_type="text/plain")


def pid(request):
    """Which worker answered."""
    return HttpResponse(str(os.getpid()), content_type="text/plain")


def form(request):
    """A form with a file: GET gives the CSRF token, POST what arrived."""
    if request.method == "GET":
        return HttpResponse(get_token(request), content_type="text/plain")
    upload = request.FILES.get("file")
    digest = hashlib.sha256()
    for chunk in upload.chunks() if upload else ():
        digest.update(chunk)
    return JsonResponse(
        {"name": request.POST.get("name"), "size": upload.size if upload else None, "sha256": digest.hexdigest()}
    )


def stream(request):
    """Numbered parts, as many as asked for."""
    parts = int(request.GET.get("parts", 10))
    size = int(request.GET.get("size", 8))
    return StreamingHttpResponse((str(n).rjust(size).encode() for n in range(parts)), content_type="text/plain")


def endless(request):
    """Parts without end; ``size`` bytes each, ``pause`` seconds apart. Leaves a mark when it is closed."""
    size, pause = int(request.GET.get("size", 10)), float(request.GET.get("pause", 0))

    def parts():
        mark("endless begun", worker=os.getpid())
        try:
            while True:
                yield b"x" * size
                select.select((), (), (), pause)
        finally:
            mark("endless closed", queries=User.objects.count())

    return StreamingHttpResponse(parts(), content_type="text/plain")


def events(request):
    """Server-Sent Events that are numbered on from the last one that the browser has; three per connection."""
    first = int(request.headers.get("Last-Event-ID", 0)) + 1

    def lines():
        yield "retry: 100\n\n"
        for number in range(first, first + 3):
            yield f"id: {number}\ndata: event {number}\n\n"

    return StreamingHttpResponse(lines(), content_type="text/event-stream", headers={"Cache-Control": "no-store"})


def broken_stream(request):
    """A part, and then an error."""

    def parts():
        yield b"begun"
        raise ValueError("broken midway")

    return StreamingHttpResponse(parts(), content_type="text/plain")


def events_page(request):
    """A page without anything, for a script that opens an EventSource."""
    return HttpResponse("<title>events</title>")


def boom(request):
    """Fail."""
    raise ValueError("asked to")


@csrf_exempt
def die(request):
    """Kill the worker, as a crash in C code would."""
    mark("die", method=request.method)
    os.kill(os.getpid(), signal.SIGKILL)
    return HttpResponse("unreachable")


@csrf_exempt
def die_once(request):
    """Kill the worker the first time only."""
    if not request.message.redelivered:
        mark("die", method=request.method)
        os.kill(os.getpid(), signal.SIGKILL)
    return HttpResponse("second time lucky", content_type="text/plain")


@csrf_exempt
def hang(request):
    """Take very long, in the way that is asked for."""
    mark("hang", method=request.method, how=request.GET["how"])
    if request.GET["how"] == "stream":
        return StreamingHttpResponse(hanging_parts(), content_type="text/plain")
    return HttpResponse(stuck(request.GET["how"]))


def hanging_parts():
    """A part, and then nothing more."""
    yield b"begun "
    yield stuck("wait").encode()


def stuck(how):
    """Wait, compute, or hold the interpreter in C code."""
    if how == "wait":
        select.select((), (), (), 600)
    if how == "loop":
        while True:
            pass
    return str(re.match("(a+)+$", "a" * 50 + "b"))


def left_open(request):
    """Begin a transaction and never end it."""
    transaction.atomic().__enter__()
    return HttpResponse(str(User.objects.count()))


def users(request):
    """Ask the database."""
    return HttpResponse(str(User.objects.count()))


def grandchild(request):
    """Start a process that outlives the request."""
    process = subprocess.Popen(["sleep", "600"])
    return HttpResponse(str(process.pid), content_type="text/plain")


def say(request):
    """Send to the group from a view."""
    Group("everybody").send({"text": request.GET.get("text", "")})
    return HttpResponse("said", content_type="text/plain")


def later(request):
    """Have another consumer answer; with ``?nobody`` none does."""
    request.session["asked"] = True
    name = "forgotten" if "nobody" in request.GET else "answers"
    Channel(name).send({"reply_channel": request.reply_channel.name, "parts": int(request.GET.get("parts", 1))})
    raise ResponseLater


async def later_async(request):
    """As ``later``."""
    Channel("answers").send({"reply_channel": request.reply_channel.name, "parts": 1})
    raise request.ResponseLater


urlpatterns = [
    path("", hello),
    path("pid/", pid),
    path("form/", form),
    path("stream/", stream),
    path("endless/", endless),
    path("events/", events),
    path("events-page/", events_page),
    path("broken-stream/", broken_stream),
    path("boom/", boom),
    path("die/", die),
    path("die-once/", die_once),
    path("hang/", hang),
    path("left-open/", left_open),
    path("users/", users),
    path("grandchild/", grandchild),
    path("say/", say),
    path("later/", later),
    path("later-async/", later_async),
    path("admin/", admin.site.urls),
]
