"""Views that tell what they see, and views that answer in every way."""

import hashlib
import io
import json
from datetime import UTC, datetime

from django.contrib import messages
from django.core.exceptions import PermissionDenied, SuspiciousOperation
from django.core.files.uploadhandler import FileUploadHandler, SkipFile, StopUpload
from django.http import (
    FileResponse,
    Http404,
    HttpResponse,
    HttpResponseNotModified,
    HttpResponsePermanentRedirect,
    HttpResponseRedirect,
    JsonResponse,
    StreamingHttpResponse,
)
from django.middleware.csrf import get_token
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import condition, require_POST

META = (
    "CONTENT_LENGTH", "CONTENT_TYPE", "PATH_INFO", "QUERY_STRING", "REMOTE_ADDR", "REQUEST_METHOD", "SCRIPT_NAME",
    "SERVER_PROTOCOL",
)  # fmt: skip


def tried(ask):
    """What *ask* returns, or the exception that it raises."""
    try:
        return ask()
    except Exception as error:  # noqa: BLE001 - whatever it is, it is compared
        return f"{type(error).__name__}: {error}"


def files_of(request):
    """Every uploaded file: name, size, type, content, and whether it is in memory."""
    return [
        [field, each.name, each.size, each.content_type, each.charset, dict(each.content_type_extra or {}),
         hashlib.sha256(each.read()).hexdigest(), type(each).__name__]
        for field, found in sorted(request.FILES.lists())
        for each in found
    ]  # fmt: skip


READERS = {
    "body": lambda request: hashlib.sha256(request.body).hexdigest(),
    "length": lambda request: len(request.body),
    "POST": lambda request: sorted(request.POST.lists()),
    "FILES": files_of,
    "read": lambda request: request.read().decode("latin-1"),
    "read3": lambda request: request.read(3).decode("latin-1"),
    "readline": lambda request: request.readline().decode("latin-1"),
    "readlines": lambda request: [line.decode("latin-1") for line in request.readlines()],
    "iterate": lambda request: [part.decode("latin-1") for part in request],
    "encoding": lambda request: str(request.encoding),
    "latin": lambda request: setattr(request, "encoding", "latin-1"),
}


@csrf_exempt
def echo(request, rest=""):
    """All that a view can see, after reading the body in the way that ``ops`` asks for."""
    did = [[name, tried(lambda name=name: READERS[name](request))] for name in request.GET.get("ops", "").split(",")
           if name in READERS]  # fmt: skip
    return JsonResponse(
        {
            "did": did,
            "rest": rest,
            "method": request.method,
            "path": request.path,
            "path_info": request.path_info,
            "full_path": request.get_full_path(),
            "scheme": request.scheme,
            "is_secure": request.is_secure(),
            "host": tried(request.get_host),
            "port": tried(request.get_port) if "HTTP_X_FORWARDED_PORT" in request.META else None,
            "uri": tried(request.build_absolute_uri),
            "GET": tried(lambda: sorted(request.GET.lists())),
            "COOKIES": tried(lambda: sorted(request.COOKIES.items())),
            "META": {name: request.META.get(name) for name in META},
            "headers": sorted((name, value) for name, value in request.META.items() if name.startswith("HTTP_")),
            "content_type": request.content_type,
            "content_params": request.content_params,
            "encoding": str(request.encoding),
            "language": request.LANGUAGE_CODE,
            "accepts": [request.accepts("text/html"), request.accepts("image/png")],
        }
    )


class Refusing(FileUploadHandler):
    """An upload handler that skips or stops at the second chunk."""

    chunk_size = 1000

    def new_file(self, *args, **kwargs):
        super().new_file(*args, **kwargs)
        if self.request.GET["how"] == "skip":
            raise SkipFile

    def receive_data_chunk(self, raw_data, start):
        if start and self.request.GET["how"] == "stop":
            raise StopUpload(connection_reset=False)
        return raw_data

    def file_complete(self, file_size):
        return None


@csrf_exempt
def refusing(request):
    """Uploads with a handler of the project's own."""
    request.upload_handlers.insert(0, Refusing(request))
    return JsonResponse(
        {"POST": tried(lambda: sorted(request.POST.lists())), "FILES": tried(lambda: files_of(request))}
    )


def answer(request, status):
    """Any status, with a body and headers."""
    response = HttpResponse(request.GET.get("body", "body"), status=status, content_type=request.GET.get("type"))
    if "reason" in request.GET:
        response.reason_phrase = request.GET["reason"]
    response["X-Number"] = 17
    response["x-lower"] = "kept"
    response["X-Latin"] = "caf\xe9"
    response["X-Gone"] = "gone"
    del response["X-Gone"]
    return response


def cookies(request):
    """Cookies in all their forms."""
    response = HttpResponse("cookies")
    response.set_cookie("plain", "value")
    response.set_cookie("odd", 'sp ace;semi"quote', max_age=60, path="/x", secure=True, httponly=True, samesite="Lax")
    response.set_signed_cookie("number", "17", salt="s", domain="example.com")
    response.delete_cookie("old")
    return response


def injected(request):
    """A header that would be two."""
    return HttpResponse("x", headers={"X-Bad": request.GET.get("value", "a\r\nSet-Cookie: b=c")})


def boom(request):
    """Raise what is asked for."""
    raise {
        "404": Http404("not here"),
        "403": PermissionDenied("not you"),
        "400": SuspiciousOperation("odd"),
        "key": KeyError("missing"),
        "exit": SystemError("no exit"),
    }.get(request.GET.get("what"), ValueError("on purpose"))


def nothing(request):
    """No response at all."""


def redirected(request):
    """Redirects of both kinds."""
    kind = HttpResponsePermanentRedirect if "permanent" in request.GET else HttpResponseRedirect
    return kind(request.GET.get("to", "/echo/"))


def parts(count):
    """Numbered parts."""
    for number in range(count):
        yield f"part {number}\n"


def stream(request):
    """Parts of a stream, some of them empty."""
    kind = request.GET.get("kind")
    if kind == "empty":
        return StreamingHttpResponse(iter(()))
    if kind == "bytes":
        return StreamingHttpResponse(iter([b"a" * 5000, b"", b"b" * 70_000]), content_type="application/octet-stream")
    return StreamingHttpResponse(parts(10), content_type="text/plain")


async def async_parts():
    """Numbered parts, made in an event loop."""
    for part in parts(5):
        yield part


async def async_stream(request):
    """A stream that an event loop makes."""
    return StreamingHttpResponse(async_parts(), content_type="text/plain")


async def async_view(request):
    """An asynchronous view."""
    if "boom" in request.GET:
        raise ValueError("in an asynchronous view")
    return HttpResponse(f"async {request.method}")


def file(request):
    """A file, as an attachment and with a name that is not ASCII."""
    content = io.BytesIO(b"content of a file\n" * int(request.GET.get("lines", 10)))
    return FileResponse(content, as_attachment="attach" in request.GET, filename=request.GET.get("name", "f.txt"))


@condition(
    etag_func=lambda request: '"version-1"',
    last_modified_func=lambda request: datetime(2020, 1, 2, 3, 4, 5, tzinfo=UTC),
)
@csrf_exempt
def conditional(request):
    """A response with an ETag and a date."""
    return HttpResponse("x" * 500, content_type="text/plain")


def not_modified(request):
    """A 304 of the view's own."""
    return HttpResponseNotModified()


def large(request):
    """Text that is worth compressing, and longer than a message of the layer carries in one piece."""
    return HttpResponse("0123456789" * int(request.GET.get("tens", 200_000)), content_type="text/plain")


def session(request):
    """Count in the session, and leave a message."""
    request.session["count"] = request.session.get("count", 0) + 1
    messages.info(request, "hello")
    return JsonResponse(
        {"count": request.session["count"], "messages": [str(m) for m in messages.get_messages(request)]}
    )


def token(request):
    """Set the CSRF cookie."""
    return HttpResponse(str(len(get_token(request))))


def protected(request):
    """A view with CSRF protection."""
    return JsonResponse({"POST": sorted(request.POST.lists())})


@require_POST
@csrf_exempt
def post_only(request):
    """A view for POST alone."""
    return HttpResponse("posted")


def written(request):
    """A response that is written to."""
    response = HttpResponse(content_type="text/csv; charset=utf-8")
    response.write("a,b\n")
    response.writelines(["\xe9,2\n", "3,4\n"])
    return response


def iterated(request):
    """A response of an iterator."""
    return HttpResponse(str(number) for number in range(10))


def json_view(request):
    """JSON."""
    return JsonResponse(json.loads('{"a": [1, null, "\\u20ac"]}'), json_dumps_params={"ensure_ascii": False})
