"""Requests from messages, messages from responses, and how they leave."""

import pytest
from django.core.exceptions import RequestDataTooBig
from django.db import connection
from django.http import FileResponse, HttpResponse, HttpResponseRedirect, StreamingHttpResponse
from django.test import override_settings

from procman.channels.exceptions import RequestAborted, RequestTimeout
from procman.channels.handler import AsgiHandler, AsgiRequest, ViewConsumer
from procman.channels.message import Message
from procman.channels.pending import pending_message_store
from procman.channels.routing import Router
from procman.channels.worker import Worker

BASE = {"reply_channel": "i!1", "http_version": "1.1", "method": "GET", "path": "/test/"}
FORM = [b"content-type", b"application/x-www-form-urlencoded"]
MULTIPART = (
    b'--BOUNDARY\r\nContent-Disposition: form-data; name="title"\r\n\r\nMy First Book\r\n'
    b'--BOUNDARY\r\nContent-Disposition: form-data; name="file"; filename="book.txt"\r\n'
    b"Content-Type: text/plain\r\n\r\nFAKEPDFBYTESGOHERE\r\n--BOUNDARY--\r\n"
)


def request(wrapper, **content):
    return AsgiRequest(Message({**BASE, **content}, "http.request", wrapper))


def encode(response, handler=AsgiHandler):
    return [dict(message) for message in handler.encode_response(response)]


def serve(wrapper, path, **content):
    """What the default routing answers to a request, through a worker."""
    wrapper.router.check_default()
    wrapper.channel_layer.deliver("http.request", {**BASE, "path": path, **content})
    Worker(wrapper).step(["http.request"])
    return wrapper.channel_layer


# -- requests --------------------------------------------------------------------------------------------------------


def test_the_least_message_is_a_request(wrapper):
    made = request(wrapper)
    assert (made.path, made.path_info, made.method, made.body) == ("/test/", "/test/", "GET", b"")
    assert [key for key in made.META if key.startswith(("HTTP_", "REMOTE_"))] == []
    assert not made.GET
    assert not made.POST
    assert not made.COOKIES
    assert not made.FILES
    assert (made.META["SERVER_NAME"], made.META["SERVER_PORT"]) == ("unknown", "0")
    assert made.reply_channel.name == "i!1"


def test_a_request_is_called_what_the_logs_call_it_whatever_its_client_says(wrapper):
    headers = [[b"x-request-id", b"forged"]]
    assert request(wrapper, headers=headers).META["REQUEST_ID"] == "1"
    assert request(wrapper, headers=headers, request_id="of-the-proxy").META["REQUEST_ID"] == "of-the-proxy"
    assert request(wrapper, headers=headers).headers["X-Request-ID"] == "forged"


@pytest.mark.parametrize("as_dict", [False, True])
def test_a_full_message_fills_meta(wrapper, as_dict):
    headers = {"host": b"example.com", "cookie": b"test-time=1448995585123; test-value=yeah", "x-a": b"\xe9"}
    made = request(
        wrapper,
        path=b"/test2/",
        query_string=b"x=1&y=%26foo%20bar+baz",
        headers=headers if as_dict else [[k.encode(), v] for k, v in headers.items()],
        client=["10.0.0.1", 1234],
        server=("10.0.0.2", 80),
        scheme="https",
    )
    assert made.path == "/test2/"
    assert made.GET.dict() == {"x": "1", "y": "&foo bar baz"}
    assert made.COOKIES == {"test-time": "1448995585123", "test-value": "yeah"}
    assert made.META["HTTP_HOST"] == "example.com"
    assert made.META["HTTP_X_A"] == "\xe9"
    assert (made.META["REMOTE_ADDR"], made.META["REMOTE_HOST"], made.META["REMOTE_PORT"]) == (
        "10.0.0.1",
        "10.0.0.1",
        1234,
    )
    assert (made.META["SERVER_NAME"], made.META["SERVER_PORT"]) == ("10.0.0.2", "80")
    assert made.META["wsgi.multithread"] is made.META["wsgi.multiprocess"] is True
    assert made.is_secure()


def test_a_str_query_string_is_taken_as_it_is(wrapper):
    assert request(wrapper, query_string="a=%C3%A9").GET["a"] == "\xe9"


@pytest.mark.parametrize(
    ("path", "root_path", "forced", "expected"),
    [
        ("/app/x/", "/app", None, ("/app", "/app/x/", "/x/")),
        ("/app", "/app", None, ("/app", "/app", "/")),
        ("/apple/", "/app", None, ("/app", "/apple/", "/apple/")),
        ("/x/", "", "/app", ("/app", "/app/x/", "/x/")),
        ("/app/x/", "/app", "/other/", ("/other/", "/other/x/", "/x/")),
        ("/app/x/", "", "/app", ("/app", "/app/app/x/", "/app/x/")),
    ],
)
def test_paths_are_those_of_wsgi(wrapper, path, root_path, forced, expected):
    with override_settings(FORCE_SCRIPT_NAME=forced):
        made = request(wrapper, path=path, root_path=root_path)
    assert (made.script_name, made.path, made.path_info) == expected
    assert made.META["SCRIPT_NAME"] == expected[0]


def test_the_root_path_is_the_script_name(wrapper):
    made = request(wrapper, path="/app/x/", root_path="/app")
    assert (made.path, made.script_name, made.path_info) == ("/app/x/", "/app", "/x/")


def test_duplicate_headers_are_joined_and_cookies_stay_apart(wrapper):
    headers = [[b"x-a", b"1"], [b"x-a", b"2"], [b"cookie", b"a=1"], [b"cookie", b"b=2"]]
    made = request(wrapper, headers=headers)
    assert made.META["HTTP_X_A"] == "1,2"
    assert made.COOKIES == {"a": "1", "b": "2"}


def test_a_header_with_an_underscore_cannot_pass_for_another(wrapper):
    assert "HTTP_X_USER" not in request(wrapper, headers=[[b"x_user", b"admin"]]).META


def test_a_known_charset_is_the_encoding_and_an_unknown_one_is_ignored(wrapper):
    assert request(wrapper, headers=[[b"content-type", b"text/plain; charset=latin-1"]]).encoding == "latin-1"
    assert request(wrapper, headers=[[b"content-type", b"text/plain; charset=nonsense"]]).encoding is None


def test_a_form_in_one_message(wrapper):
    made = request(wrapper, method="POST", headers=[FORM], body=b"ponies=are+awesome", query_string=b"a=b")
    assert made.POST.dict() == {"ponies": "are awesome"}
    assert made.GET.dict() == {"a": "b"}
    assert made._post_parse_error is False


def test_a_form_over_body_and_chunks(wrapper, layer):
    layer.send("body?1", {"content": b"re=fou", "more_content": True})
    layer.send("body?1", {"content": b"r+lines"})
    made = request(wrapper, method="POST", headers=[FORM], body=b"there_a", body_channel="body?1")
    assert made.POST.dict() == {"there_are": "four lines"}


@pytest.mark.parametrize("headers", [[], [[b"content-length", str(len(MULTIPART)).encode()]]])
@pytest.mark.parametrize("spool_size", [10, 2_000_000])
def test_a_multipart_form_that_arrives_only_in_chunks(wrapper, layer, headers, spool_size):
    for start in range(0, len(MULTIPART), 50):
        more = start + 50 < len(MULTIPART)
        layer.send("body?1", {"content": MULTIPART[start : start + 50], "more_content": more})
    kind = [b"content-type", b"multipart/form-data; boundary=BOUNDARY"]
    with override_settings(FILE_UPLOAD_MAX_MEMORY_SIZE=spool_size):
        made = request(wrapper, method="POST", headers=[kind, *headers], body_channel="body?1")
        assert made.POST["title"] == "My First Book"
        assert made.FILES["file"].read() == b"FAKEPDFBYTESGOHERE"
        assert made._post_parse_error is False
        made.close()


def test_the_body_can_be_read_in_parts(wrapper):
    made = request(wrapper, method="PUT", body=b"onetwothree")
    assert made.read(3) == b"one"
    assert made.read() == b"twothree"


def test_no_further_chunk_is_a_timeout(wrapper, layer):
    class Impatient(AsgiRequest):
        body_receive_timeout = 0

    layer.send("body?1", {"content": b"a", "more_content": True})
    with pytest.raises(RequestTimeout):
        Impatient(Message({**BASE, "body_channel": "body?1"}, "http.request", wrapper))


def test_a_closed_chunk_aborts(wrapper, layer):
    layer.send("body?1", {"closed": True})
    with pytest.raises(RequestAborted):
        request(wrapper, body_channel="body?1")


def test_a_chunk_without_content_is_empty(wrapper, layer):
    layer.send("body?1", {"more_content": True})
    layer.send("body?1", {"content": b"x"})
    assert request(wrapper, body_channel="body?1").body == b"x"


@pytest.mark.parametrize("in_chunks", [False, True])
def test_a_body_over_djangos_limit_is_refused(wrapper, layer, in_chunks):
    with override_settings(DATA_UPLOAD_MAX_MEMORY_SIZE=100):
        if in_chunks:
            layer.send("body?1", {"content": b"x" * 500})
        made = request(wrapper, method="POST", **({"body_channel": "body?1"} if in_chunks else {"body": b"x" * 500}))
        with pytest.raises(RequestDataTooBig):
            _ = made.body
        made.close()


# -- encoding --------------------------------------------------------------------------------------------------------


def test_a_plain_response_is_one_message():
    response = HttpResponse(b"Hi there!", content_type="text/plain")
    response["X-Int"] = 5
    response["X-Gone"] = "x"
    del response["X-Gone"]
    response.set_cookie("foo", "bar")
    (message,) = encode(response)
    assert message["status"] == 200
    assert message["content"] == b"Hi there!"
    assert message["more_content"] is False
    assert message["headers"] == [
        (b"Content-Type", b"text/plain"),
        (b"X-Int", b"5"),
        (b"Set-Cookie", b"foo=bar; Path=/"),
    ]


def test_an_iterator_body_is_one_message():
    assert [message["content"] for message in encode(HttpResponse(range(10)))] == [b"0123456789"]


def test_an_empty_304_is_one_message():
    (message,) = encode(HttpResponse(status=304))
    assert (message["status"], message["content"], message["more_content"]) == (304, b"", False)


@pytest.mark.parametrize("location", ["/", "..", "https://example.com/x"])
def test_a_location_is_passed_on_unchanged(location):
    (message,) = encode(HttpResponseRedirect(location))
    assert (b"Location", location.encode()) in message["headers"]


class SmallChunks(AsgiHandler):
    chunk_size = 30


@pytest.mark.parametrize(
    ("data", "chunks"),
    [
        (b"", [(b"", True)]),
        (b"x" * 30, [(b"x" * 30, True)]),
        (b"x" * 31, [(b"x" * 30, False), (b"x", True)]),
        (b"x" * 60, [(b"x" * 30, False), (b"x" * 30, True)]),
    ],
)
def test_data_is_cut_into_chunks(data, chunks):
    assert list(SmallChunks.chunk_bytes(data)) == chunks


def test_only_the_first_message_of_many_has_status_and_headers():
    messages = encode(HttpResponse(b"x" * 100), SmallChunks)
    assert [message["more_content"] for message in messages] == [True, True, True, False]
    assert ["status" in message for message in messages] == [True, False, False, False]
    assert b"".join(message["content"] for message in messages) == b"x" * 100


def test_ten_streamed_parts_are_eleven_messages():
    messages = encode(StreamingHttpResponse(str(number) for number in range(10)))
    assert [message.get("content") for message in messages] == [b"%d" % number for number in range(10)] + [None]
    assert [message["more_content"] for message in messages] == [True] * 10 + [False]
    assert ["status" in message for message in messages] == [True] + [False] * 10


def test_an_empty_stream_is_one_message():
    (message,) = encode(StreamingHttpResponse([]))
    assert message["status"] == 200
    assert message["more_content"] is False
    assert "content" not in message


def test_a_file_is_two_messages_and_a_str_one_per_character(tmp_path):
    (tmp_path / "f").write_text("some text")
    response = FileResponse((tmp_path / "f").open("rb"))
    assert len(encode(response)) == 2
    response.close()
    assert len(encode(FileResponse("abcd"))) == 5


def test_a_file_response_cannot_pretend_not_to_stream():
    response = FileResponse("abcd")
    with pytest.raises(AttributeError):
        response.streaming = False
        encode(response)


# -- through a worker ------------------------------------------------------------------------------------------------


def test_a_view_answers_together_with_the_finish(layer, wrapper):
    serve(wrapper, "/hello/")
    ((_, (send,), _),) = layer.finished
    assert send.name == "i!1"
    assert (send.message["status"], send.message["content"]) == (200, b"hello")
    assert layer.log == []


def test_an_async_view_answers_too(layer, wrapper):
    assert serve(wrapper, "/async/").sent()[0]["content"] == b"async hello"


def test_a_form_is_posted(layer, wrapper):
    serve(wrapper, "/form/", method="POST", headers=[FORM], body=b"a=1")
    assert layer.sent()[0]["content"] == b'{"post": {"a": "1"}, "file": null}'


def test_a_post_without_a_csrf_token_is_forbidden(layer, wrapper):
    assert serve(wrapper, "/hello/", method="POST").sent()[0]["status"] == 403


def test_a_large_body_answers_413_or_400_as_django_does(layer, wrapper):
    with override_settings(DATA_UPLOAD_MAX_MEMORY_SIZE=10):
        assert serve(wrapper, "/body/", method="POST", body=b"x" * 11).sent()[0]["status"] in (400, 413)


@pytest.mark.parametrize("path", ["/stream/10/", "/astream/10/"])
def test_a_stream_leaves_part_by_part(layer, wrapper, path):
    serve(wrapper, path)
    contents = [message.get("content") or b"" for _, message in layer.waited]
    assert contents[:9] == [b"%d" % n for n in range(9)]  # the first ones each for itself
    assert b"".join(contents) == b"0123456789"
    assert [message["more_content"] for _, message in layer.waited] == [True] * (len(contents) - 1) + [False]
    assert layer.sent() == []
    assert len(layer.finished) == 1


def test_a_response_larger_than_a_chunk_leaves_part_by_part(layer, wrapper):
    serve(wrapper, f"/big/{512 * 1024 + 1}/")
    assert [len(message["content"]) for _, message in layer.waited] == [512 * 1024, 1]
    assert [message["more_content"] for _, message in layer.waited] == [True, False]


def test_a_response_of_exactly_a_chunk_is_held(layer, wrapper):
    serve(wrapper, f"/big/{512 * 1024}/")
    assert layer.waited == []
    assert len(layer.sent()) == 1


def test_streamed_parts_do_not_overtake_what_the_view_has_sent(layer, wrapper):
    serve(wrapper, "/say/")
    assert layer.log == [("send", "said"), ("send_and_wait", "i!1"), ("send_and_wait", "i!1")]


def test_a_client_that_left_closes_the_stream_without_an_error(layer, wrapper, caplog):
    closed = []

    def parts():
        try:
            yield from ("a", "b", "c")
        finally:
            closed.append(True)

    class Handler(AsgiHandler):
        def get_response(self, request):
            response = StreamingHttpResponse(parts())
            response._resource_closers.append(request.close)
            return response

    class Consumer(ViewConsumer):
        handler_class = Handler

    layer.gone_after = 1
    wrapper.router.check_default(Consumer())
    layer.deliver("http.request", dict(BASE))
    Worker(wrapper).step(["http.request"])
    assert closed == [True]
    assert len(layer.waited) == 1
    assert layer.sent() == []
    assert not caplog.records


def test_an_error_in_a_view_is_djangos_500(layer, wrapper, caplog):
    (answer,) = serve(wrapper, "/boom/").sent()
    assert answer["status"] == 500
    assert b"Server Error" in answer["content"]


def test_debug_shows_the_traceback_page(layer, wrapper, caplog):
    with override_settings(DEBUG=True):
        serve(wrapper, "/boom/")
    assert b"ValueError" in layer.sent()[0]["content"]


def test_a_view_that_exits_is_answered_500(layer, wrapper, caplog):
    (answer,) = serve(wrapper, "/exit/").sent()
    assert answer["status"] == 500
    assert "SystemExit" in caplog.text


def test_a_stream_that_fails_is_cut_off(layer, wrapper, caplog):
    serve(wrapper, "/broken-stream/")
    assert [message["content"] for _, message in layer.waited] == [b"one", b"two"]
    assert [message["status"] for message in layer.sent()] == [
        500
    ]  # a second status: the interface cuts the connection
    assert "asked to" in caplog.text


@pytest.mark.parametrize("debug", [False, True])
def test_response_later_sends_nothing_through_the_middleware(layer, wrapper, debug):
    with override_settings(DEBUG=debug):
        serve(wrapper, "/later/")
    assert layer.sent() == []
    assert len(layer.finished) == 1


def test_bytes_that_are_not_utf8_are_a_bad_request(layer, wrapper, caplog):
    assert serve(wrapper, "/hello/", query_string=b"\xff").sent()[0]["status"] == 400


def test_a_slow_upload_is_answered_408(layer, wrapper, monkeypatch):
    monkeypatch.setattr(AsgiRequest, "body_receive_timeout", 0)
    assert serve(wrapper, "/body/", method="POST", body_channel="body?1").sent()[0]["status"] == 408


def test_an_upload_of_which_the_layer_lost_a_part_is_answered_503(layer, wrapper):
    layer.send("body?1", {"content": b"a", "more_content": True})
    layer.send("body?1", {"lost": True})
    assert serve(wrapper, "/body/", method="POST", body_channel="body?1").sent()[0]["status"] == 503


def test_an_aborted_upload_is_not_answered(layer, wrapper):
    layer.send("body?1", {"closed": True})
    serve(wrapper, "/body/", method="POST", body_channel="body?1")
    assert layer.sent() == []


def test_outside_a_worker_a_response_leaves_at_once(layer, wrapper):
    assert not pending_message_store.active
    ViewConsumer()(Message({**BASE, "path": "/hello/"}, "http.request", wrapper))
    assert layer.queues["i!1"][0]["content"] == b"hello"


def test_the_admin_logs_in(layer, wrapper, database):
    from django.contrib.auth.models import User

    User.objects.create_superuser("root", password="secret")
    serve(wrapper, "/admin/login/")
    cookies = [value for name, value in layer.sent()[0]["headers"] if name == b"Set-Cookie"]
    token = cookies[0].split(b";")[0].split(b"=")[1]
    form = b"username=root&password=secret&next=/admin/&csrfmiddlewaretoken=" + token
    headers = [FORM, [b"cookie", b"csrftoken=" + token]]
    wrapper.router = Router([])
    answer = serve(wrapper, "/admin/login/", method="POST", headers=headers, body=form).sent()[1]
    assert answer["status"] == 302
    assert any(value.startswith(b"sessionid=") for name, value in answer["headers"] if name == b"Set-Cookie")


@pytest.mark.parametrize("atomic", [True, False])
def test_atomic_requests_holds_for_views(wrapper, real_transactions, monkeypatch, atomic):
    monkeypatch.setitem(connection.settings_dict, "ATOMIC_REQUESTS", atomic)
    assert serve(wrapper, "/transaction/").sent()[0]["content"] == (b"atomic" if atomic else b"autocommit")
