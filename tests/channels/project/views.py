"""Views of the test project."""

from collections.abc import AsyncIterator, Iterator

from django.db import connection
from django.http import HttpResponse, JsonResponse, StreamingHttpResponse
from django.views.decorators.csrf import csrf_exempt

from procman.channels import Channel
from procman.channels.exceptions import ResponseLater


def hello(request):
    """The trivial view."""
    return HttpResponse("hello")


async def async_hello(request):
    """The trivial view, asynchronous."""
    return HttpResponse("async hello")


@csrf_exempt
def form(request):
    """What was posted."""
    upload = request.FILES.get("file")
    return JsonResponse({"post": request.POST.dict(), "file": upload.read().decode() if upload else None})


@csrf_exempt
def body(request):
    """The length of the body."""
    return HttpResponse(str(len(request.body)))


def stream(request, parts):
    """Numbered parts."""
    return StreamingHttpResponse(str(number) for number in range(parts))


def astream(request, parts):
    """Numbered parts, asynchronously made."""

    async def numbers() -> AsyncIterator[str]:
        for number in range(parts):
            yield str(number)

    return StreamingHttpResponse(numbers())


def big(request, size):
    """A response of *size* bytes, not streaming."""
    return HttpResponse(b"x" * size)


def boom(request):
    """Fail."""
    raise ValueError("asked to")


def leave(request):
    """Leave."""
    raise SystemExit(3)


def later(request):
    """Have somebody else answer."""
    raise ResponseLater()


def broken_stream(request):
    """Fail after two parts."""

    def parts() -> Iterator[str]:
        yield "one"
        yield "two"
        raise ValueError("asked to")

    return StreamingHttpResponse(parts())


def say(request):
    """Send something, then stream."""
    Channel("said").send({"text": "before"})
    return StreamingHttpResponse(["part"])


def transaction(request):
    """Whether the view runs in a transaction."""
    return HttpResponse("atomic" if connection.in_atomic_block else "autocommit")
