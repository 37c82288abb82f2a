"""The same requests to gunicorn with Django's WSGI handler and to ``channels-run``: the same answers, the same view."""

import dataclasses
import json
import re
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings

from tests.e2e.corpus.generated import Request, requests
from tests.e2e.corpus.requests import DEBUG_REQUESTS, PROXIED_REQUESTS, REQUESTS
from tests.e2e.corpus.servers import Answer, Pair, ask, differences, running_pair

pytestmark = pytest.mark.slow

# Where ours is different on purpose. A request that is here and answered alike fails: the table is no longer true.
ON_PURPOSE = {
    "headers: two cookies": "HTTP/2 clients send several; joined by '; ' each is one. WSGI makes one broken cookie.",
    "chunks": "A body in chunks is read. Django under WSGI goes by a length and finds nothing.",
    "one chunk": "as above",
    "chunks of a multipart": "as above",
    "large chunks": "as above",
    "upload in chunks of a megabyte": "as above",
}

PROXIED_ON_PURPOSE = {
    "a client, /echo/": "REMOTE_ADDR is the client that a trusted proxy names. gunicorn leaves the proxy's there.",
}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with running_pair(tmp_path_factory.mktemp("plain"), "plain") as pair:
        yield pair


@pytest.fixture(scope="module")
def proxied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """FORCE_SCRIPT_NAME, and the headers of a proxy believed."""
    with running_pair(tmp_path_factory.mktemp("proxied"), "proxied") as pair:
        yield pair


@pytest.fixture(scope="module")
def debug(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """DEBUG, with its pages."""
    with running_pair(tmp_path_factory.mktemp("debug"), "debug") as pair:
        yield pair


@pytest.mark.parametrize("name", [name for name in REQUESTS if name not in ON_PURPOSE])
def test_both_answer_alike(plain: Pair, name: str) -> None:
    assert differences(*plain.ask(REQUESTS[name])) == []


@pytest.mark.parametrize("name", ON_PURPOSE)
def test_what_is_different_on_purpose_is(plain: Pair, name: str) -> None:
    assert differences(*plain.ask(REQUESTS[name])) != []


def test_the_corpus_sees_what_views_see(plain: Pair) -> None:
    """The comparison is of something: a view's account of a request is in both answers, and right."""
    theirs, ours = plain.ask(REQUESTS["multipart"])
    for answer in (theirs, ours):
        assert answer.status == 200
        (post, files) = (found for _, found in answer.seen["did"])
        assert post == [["a", ["1"]]]
        assert files[0][:3] == ["f", "x.txt", 7]
        assert answer.seen["uri"] == "http://mirror.test:8123/echo/?ops=POST,FILES"


@pytest.mark.parametrize("name", [name for name in PROXIED_REQUESTS if name not in PROXIED_ON_PURPOSE])
def test_both_answer_alike_behind_a_proxy(proxied: Pair, name: str) -> None:
    assert differences(*proxied.ask(PROXIED_REQUESTS[name])) == []


@pytest.mark.parametrize("name", PROXIED_ON_PURPOSE)
def test_what_is_different_on_purpose_behind_a_proxy_is(proxied: Pair, name: str) -> None:
    assert differences(*proxied.ask(PROXIED_REQUESTS[name])) != []


@pytest.mark.parametrize("name", DEBUG_REQUESTS)
def test_both_answer_alike_with_debug_on(debug: Pair, name: str) -> None:
    """Of a page that describes an error: the status, the headers, what happened and in which view."""
    theirs, ours = (_essence(answer) for answer in debug.ask(DEBUG_REQUESTS[name]))
    assert differences(theirs, ours) == []


def _essence(answer: Answer) -> Answer:
    if b"Request Method:" not in answer.body:
        return answer
    text = answer.body.decode()
    facts = [
        re.findall(pattern, text, re.DOTALL)
        for pattern in (r"<title>(.*?)</title>", r"<pre class=\"exception_value\">(.*?)</pre>", r"<h1>(.*?)</h1>",
                        r"Raised during:</th>\s*<td>(.*?)</td>", r"Exception Type:</th>\s*<td>(.*?)</td>")
    ]  # fmt: skip
    assert any(facts)
    kept = tuple(each for each in answer.headers if each[0] not in ("content-length", "etag"))
    return dataclasses.replace(answer, headers=kept, body=json.dumps(facts).encode())


@settings(max_examples=400, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), database=None)
@given(request=requests())
def test_both_answer_alike_whatever_is_asked(plain: Pair, request: Request) -> None:
    theirs, ours = plain.ask(request.whole)
    assert differences(theirs, ours) == []
    if request.chunked is not None:
        assert differences(_unframed(theirs), _unframed(ask(plain.ours, request.chunked))) == []


def _unframed(answer: Answer) -> Answer:
    """Without what tells how the request's body was framed."""
    kept = tuple(each for each in answer.headers if each[0] not in ("content-length", "etag"))
    if not answer.body.startswith(b"{"):
        return dataclasses.replace(answer, headers=kept)
    seen = answer.seen
    seen["headers"] = [each for each in seen["headers"] if each[0] != "HTTP_TRANSFER_ENCODING"]
    seen["META"]["CONTENT_LENGTH"] = seen["META"]["CONTENT_LENGTH"] or "0"
    return dataclasses.replace(answer, headers=kept, body=json.dumps(seen).encode())
