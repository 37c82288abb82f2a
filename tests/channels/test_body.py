"""Bodies that are read as they come, and how a view, the middleware and the client see one that breaks off."""

import io

import pytest
from django.core.files.uploadedfile import TemporaryUploadedFile
from django.core.files.uploadhandler import FileUploadHandler, StopUpload
from django.core.handlers.exception import convert_exception_to_response
from django.http import HttpResponse, UnreadablePostError
from django.test import override_settings
from django.views.decorators.csrf import csrf_exempt

from procman.channels.body import ChunkReader, spool
from procman.channels.exceptions import RequestAborted, RequestLost, RequestTimeout
from procman.channels.handler import AsgiHandler, AsgiRequest
from procman.channels.message import Message
from procman.layers.errors import LayerUnavailable

CHANNEL = "body?1"
HEAD = b'--X\r\nContent-Disposition: form-data; name="file"; filename="f.bin"\r\n\r\n'
TAIL = b"\r\n--X--\r\n"


def put(layer, *chunks, more=False):
    """Chunks on the body channel; with *more*, others are to follow."""
    for number, chunk in enumerate(chunks):
        layer.send(CHANNEL, {"content": chunk, "more_content": more or number < len(chunks) - 1})


def waiting(layer):
    """How many chunks have not been read."""
    return len(layer.queues.get(CHANNEL, ()))


def message(wrapper, length, kind=b"application/octet-stream", **content):
    headers = [[b"content-length", b"%d" % length], [b"content-type", kind], [b"cookie", b"csrftoken=" + b"a" * 32]]
    return Message(
        {"reply_channel": "i!1", "method": "POST", "path": "/", "headers": headers, "body_channel": CHANNEL, **content},
        "http.request",
        wrapper,
    )


def reader(layer, first=b""):
    return ChunkReader(layer, CHANNEL, first, 0)


def answer(wrapper, view, length=1000, middleware=(), **content):
    """What a handler whose only view is *view* says to the request."""

    @csrf_exempt
    def exempt(request):
        return view(request)

    class Handler(AsgiHandler):
        def resolve_request(self, request):
            return (view if middleware else exempt), (), {}

    with override_settings(MIDDLEWARE=list(middleware)):
        return list(Handler()(message(wrapper, length, **content)))


# -- reading ---------------------------------------------------------------------------------------------------------


def test_reading_takes_only_the_chunks_that_it_needs(wrapper, layer):
    put(layer, b"abc" * 100_000, b"def", b"ghi")
    made = AsgiRequest(message(wrapper, 300_006))
    assert waiting(layer) == 3
    assert made.read(3) == b"abc"
    assert waiting(layer) == 2
    assert made.read() == b"abc" * 99_999 + b"defghi"
    assert made.read() == b""


def test_lines_may_cross_chunks(wrapper, layer):
    put(layer, b"one\ntw", b"", b"o\nthree")
    made = AsgiRequest(message(wrapper, 13, body=b"zero\n"))
    assert list(made) == [b"zero\n", b"one\n", b"two\n", b"three"]


def test_the_body_is_what_the_message_and_the_chunks_hold(wrapper, layer):
    put(layer, b"b", b"c")
    made = AsgiRequest(message(wrapper, 3, body=b"a"))
    assert made.body == made.body == b"abc"


@override_settings(DATA_UPLOAD_MAX_MEMORY_SIZE=None)
def test_without_a_limit_the_body_is_read_at_once(wrapper, layer):
    put(layer, b"b", b"c")
    assert AsgiRequest(message(wrapper, 3, body=b"a")).body == b"abc"


def test_a_body_without_a_length_is_read_whole_first(layer):
    put(layer, b"b" * 10, b"c")
    spooled, size = spool(reader(layer, b"a"))
    assert (spooled.read(), size) == (b"a" + b"b" * 10 + b"c", 12)
    spooled.close()


def test_closing_takes_away_the_chunks_that_wait(layer):
    put(layer, b"a", b"b", more=True)
    source = reader(layer)
    source.close()
    source.close()
    assert waiting(layer) == 0


def test_closing_needs_no_layer(layer, monkeypatch):
    def lost(*args, **kwargs):
        raise LayerUnavailable("gone")

    monkeypatch.setattr(layer, "receive_many", lost)
    source = reader(layer)
    source.close()
    assert source.closed


@pytest.mark.parametrize(
    ("last", "failure"), [(None, RequestTimeout), ({"closed": True}, RequestAborted), ({"lost": True}, RequestLost)]
)
@pytest.mark.parametrize("how", ["read", "readall", "body", "line", "post"])
def test_a_body_that_breaks_off_is_an_oserror_of_its_kind_each_time(wrapper, layer, monkeypatch, last, failure, how):
    monkeypatch.setattr(AsgiRequest, "body_receive_timeout", 0)
    put(layer, b"a", more=True)
    if last:
        layer.send(CHANNEL, last)
    made = AsgiRequest(message(wrapper, 5, b"application/x-www-form-urlencoded"))
    read = {
        "read": lambda: made.read(5),
        "readall": made.read,
        "body": lambda: made.body,
        "line": made.readline,
        "post": lambda: made.POST,
    }[how]
    with pytest.raises(failure) as caught:
        read()
    assert isinstance(caught.value, UnreadablePostError) and isinstance(caught.value, OSError)
    assert type(made.body_failure) is failure
    if how not in ("body", "post"):
        with pytest.raises(failure):
            made.read(1)


# -- forms -----------------------------------------------------------------------------------------------------------


def form(layer, size):
    """A form with a file of *size* bytes in chunks; its length."""
    data = HEAD + b"x" * size + TAIL
    put(layer, *(data[start : start + 100_000] for start in range(0, len(data), 100_000)))
    return len(data)


def test_a_large_file_goes_to_a_temporary_file(wrapper, layer):
    made = AsgiRequest(message(wrapper, form(layer, 3_000_000), b"multipart/form-data; boundary=X"))
    upload = made.FILES["file"]
    assert isinstance(upload, TemporaryUploadedFile)
    assert (upload.size, upload.read(3)) == (3_000_000, b"xxx")
    made.close()


class Stopper(FileUploadHandler):
    """Stops the upload with its first data."""

    def receive_data_chunk(self, raw_data, start):
        raise StopUpload(connection_reset=True)

    def file_complete(self, file_size):
        return None


def test_an_upload_handler_may_stop_with_the_first_chunk(wrapper, layer):
    made = AsgiRequest(message(wrapper, form(layer, 3_000_000), b"multipart/form-data; boundary=X"))
    made.upload_handlers = [Stopper(made)]
    assert not made.FILES
    assert waiting(layer) > 20
    made.close()
    assert waiting(layer) == 0


def test_a_view_that_refuses_early_reads_nothing(wrapper, layer):
    form(layer, 3_000_000)
    before = []

    def refuse(request):
        before.append(waiting(layer))
        return HttpResponse(status=413)

    assert [part["status"] for part in answer(wrapper, refuse, 3_000_000)] == [413]
    assert before == [31]
    assert waiting(layer) == 0


@override_settings(DATA_UPLOAD_MAX_MEMORY_SIZE=100)
def test_an_announced_length_over_djangos_limit_is_refused_unread(wrapper, layer, caplog):
    put(layer, b"x" * 50, more=True)

    def view(request):
        try:
            return HttpResponse(request.body)
        finally:
            assert not isinstance(request._stream, io.BytesIO)

    (part,) = answer(wrapper, view, 101)
    assert part["status"] in (400, 413)


# -- what the client is told -----------------------------------------------------------------------------------------


OUTCOMES = [(None, [408]), ({"closed": True}, []), ({"lost": True}, [503])]
CSRF = "django.middleware.csrf.CsrfViewMiddleware"


@pytest.mark.parametrize(("last", "statuses"), OUTCOMES)
@pytest.mark.parametrize("middleware", [(), (CSRF,)])
def test_a_body_that_breaks_off_is_answered_for_what_it_is(
    wrapper, layer, monkeypatch, caplog, last, statuses, middleware
):
    monkeypatch.setattr(AsgiRequest, "body_receive_timeout", 0)
    put(layer, HEAD, more=True)
    if last:
        layer.send(CHANNEL, last)

    def view(request):
        return HttpResponse(str(request.FILES))

    kind = b"multipart/form-data; boundary=X"
    assert [part["status"] for part in answer(wrapper, view, 1000, middleware, kind=kind)] == statuses
    assert "Internal Server Error" not in caplog.text


def test_an_async_view_is_answered_for_too(wrapper, layer):
    layer.send(CHANNEL, {"lost": True})

    async def view(request):
        return HttpResponse(request.body)

    class Handler(AsgiHandler):
        def resolve_request(self, request):
            return csrf_exempt(view), (), {}

    assert [part["status"] for part in Handler()(message(wrapper, 5))] == [503]


def test_a_view_may_answer_for_itself(wrapper, layer):
    layer.send(CHANNEL, {"closed": True})

    def view(request):
        try:
            return HttpResponse(request.body)
        except OSError as error:
            return HttpResponse(type(error).__name__, status=422)

    (part,) = answer(wrapper, view)
    assert (part["status"], part["content"]) == (422, b"RequestAborted")


def test_a_middleware_hears_of_the_exception_first(wrapper, layer):
    heard = []

    class Listener:
        def __init__(self, get_response):
            self.get_response = convert_exception_to_response(get_response)

        def __call__(self, request):
            return self.get_response(request)

        def process_exception(self, request, exception):
            heard.append(type(exception))

    layer.send(CHANNEL, {"lost": True})

    class Handler(AsgiHandler):
        def load_middleware(self, is_async=False):
            super().load_middleware(is_async)
            self._exception_middleware.insert(0, Listener(None).process_exception)

        def resolve_request(self, request):
            return csrf_exempt(lambda request: HttpResponse(request.body)), (), {}

    assert [part["status"] for part in Handler()(message(wrapper, 5))] == [503]
    assert heard == [RequestLost]
