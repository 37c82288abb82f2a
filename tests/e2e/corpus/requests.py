"""The hand-written requests, as bytes, by a name that says what is odd about them."""

from collections.abc import Sequence

from tests.e2e.corpus.servers import HOST

Headers = Sequence[tuple[str | bytes, str | bytes]]
FORM = ("Content-Type", "application/x-www-form-urlencoded")
MULTIPART = ("Content-Type", "multipart/form-data; boundary=BoUnDaRy")


def build(
    target: str | bytes = "/echo/",
    method: str = "GET",
    headers: Headers = (),
    body: bytes = b"",
    chunks: Sequence[bytes] | None = None,
    host: str | None = HOST,
    length: bool = True,
    version: str = "1.1",
) -> bytes:
    """The bytes of one request. A *body* has a length; *chunks* are sent as chunks."""
    pairs: list[tuple[str | bytes, str | bytes]] = [("Connection", "close")]
    if host is not None:
        pairs.insert(0, ("Host", host))
    pairs += headers
    if chunks is not None:
        pairs.append(("Transfer-Encoding", "chunked"))
        body = b"".join(b"%x\r\n%b\r\n" % (len(each), each) for each in [*chunks, b""])
    elif length and (body or method in ("POST", "PUT", "PATCH")):
        pairs.append(("Content-Length", str(len(body))))
    head = b"%b %b HTTP/%b\r\n" % (method.encode(), _bytes(target), version.encode())
    return head + b"".join(b"%b: %b\r\n" % (_bytes(name), _bytes(value)) for name, value in pairs) + b"\r\n" + body


def _bytes(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode("utf-8")


def part(disposition: str, content: bytes, *headers: str) -> bytes:
    """One part of a multipart body."""
    lines = [f"Content-Disposition: form-data; {disposition}", *headers]
    return b"--BoUnDaRy\r\n" + "\r\n".join(lines).encode() + b"\r\n\r\n" + content + b"\r\n"


END = b"--BoUnDaRy--\r\n"


def post(
    ops: str, body: bytes, *headers: tuple[str, str | bytes], target: str = "/echo/", method: str = "POST"
) -> bytes:
    """A POST with *body* that the view reads in the way of *ops*."""
    return build(f"{target}?ops={ops}", method, headers, body)


def upload(ops: str, *parts: bytes, end: bytes = END, target: str = "/echo/") -> bytes:
    """A multipart POST."""
    return build(f"{target}?ops={ops}", "POST", [MULTIPART], b"".join(parts) + end)


SIMPLE = [part('name="a"', b"1"), part('name="f"; filename="x.txt"', b"content", "Content-Type: text/plain")]
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND")
PATHS = (
    "/echo/%2F", "/echo/a%2Fb/", "/echo/%00", "/echo/%41", "/echo/%e9", "/echo/%FF%fe", "/echo/%C3%A9", "/echo/%E2%82%AC",
    "/echo/%E2%82", "/echo//double//", "//echo/", "/echo/../x", "/echo/./x", "/echo/a;b=c", "/echo/a+b", "/echo/a%20b",
    "/echo/a%2525", "/echo/%", "/echo/%zz", "/echo/a'b\"c", "/echo/~user/*", "/echo/a:b@c", "/echo/[x]", "/echo/a|b",
    "/echo/a\\b", "/echo/{x}", "/echo/" + "long/" * 400, "/echo/%0d%0aX:%20y", "/echo/%3F", "/echo/%23x", "/nowhere/",
    "/stream", "/echo", "/", "/post-only",
)  # fmt: skip
QUERIES = (
    "", "a=1", "a=1&a=2", "&&", "a", "a=", "=b", "a=b=c", "a=%FF", "a=%E2%82%AC", "a=%C3", "a+b=c+d", "a=%00", "a=b;c=d",
    "a=%26&%3D=x", "a[]=1&a[]=2", "%61=1", "a=" + "x" * 3000, "q=a b".replace(" ", "%20"), "?", "a=%", "a=%u1234",
    "&".join(f"k{n}=v" for n in range(60)),
)  # fmt: skip
COOKIES = (
    "a=b", "a=b; c=d", "a=b;c=d", "a=b; a=c", 'a="q u o"; b="x\\"y"', "a", "=b", "a=", "; ;", "a=b; ; c", "a=b=c", "a=%20",
    "a={json: 1}", "sessionid=bad; csrftoken=x", "a=b, c=d", " a = b ", "a=(b)", 'a="\\303\\251"',
)  # fmt: skip
HEADERS: dict[str, Headers] = {
    "two of one name": [("X-A", "1"), ("X-A", "2")],
    "two that differ in case": [("X-A", "1"), ("x-a", "2")],
    "two cookies": [("Cookie", "a=b"), ("Cookie", "c=d")],
    "latin-1": [("X-A", "caf\xe9".encode("latin-1"))],
    "utf-8": [("X-A", "caf\xe9")],
    "an empty value": [("X-A", "")],
    "spaces": [("X-A", "  a  b  ")],
    "tabs": [("X-A", "\ta\tb")],
    "underscores": [("X_A", "1"), ("X-B_C", "2")],
    "a hidden scheme": [("X_Forwarded_Proto", "https")],
    "a proxy": [("Proxy", "http://evil")],
    "languages": [("Accept-Language", "de, en;q=0.5")],
    "accept": [("Accept", "image/*;q=0.8, text/plain")],
    "a content type without a body": [("Content-Type", "text/plain; charset=latin-1")],
    "an odd content type": [("Content-Type", 'a/b; c="d;e"; charset=none')],
    "a long value": [("X-A", "v" * 4000)],
    "many": [(f"X-N{n}", str(n)) for n in range(60)],
    "punctuation": [("X-A", 'a,b;c="d" <e> {f} |g|')],
    "digits and dots in a name": [("X-1.2", "a"), ("X!#$%&'*+^`|~", "b")],
    "authorization": [("Authorization", "Basic dTpw")],
    "a referrer and an agent": [("Referer", "http://x/?a=\xe9"), ("User-Agent", "Moz\u0131lla")],
}
PROXIED: dict[str, Headers] = {
    "nothing": [],
    "https": [("X-Forwarded-Proto", "https")],
    "http": [("X-Forwarded-Proto", "http")],
    "two schemes": [("X-Forwarded-Proto", "https,http")],
    "a host": [("X-Forwarded-Host", "www.example.com")],
    "a host that is not allowed": [("X-Forwarded-Host", "evil.test")],
    "a port": [("X-Forwarded-Port", "8443")],
    "a host with a port": [("X-Forwarded-Host", "www.example.com:81"), ("X-Forwarded-Port", "8443")],
    "a client": [("X-Forwarded-For", "10.1.2.3, 10.1.2.4")],
    "forwarded": [("Forwarded", "for=10.1.2.3;proto=https;host=evil.test")],
}


def _plain() -> dict[str, bytes]:
    found = {f"method {method}": build(method=method) for method in METHODS}
    found |= {
        f"{method} with a body": post("length,body,POST", b"a=1&b=2", FORM, method=method) for method in METHODS[2:6]
    }
    found |= {f"GET with a body of {length}": build("/echo/?ops=body", body=b"x" * length) for length in (1, 100)}
    found |= {
        f"HEAD of {target}": build(target, "HEAD") for target in ("/large/", "/stream/", "/file/", "/json/", "/x/")
    }
    found |= {f"path {path[:40]}": build(path) for path in PATHS}
    found |= {f"POST without a slash {path}": build(path, "POST") for path in ("/echo", "/post-only")}
    found |= {f"query {query[:40]}": build(f"/echo/?{query}") for query in QUERIES}
    found |= {f"cookie {cookie}": build(headers=[("Cookie", cookie)]) for cookie in COOKIES}
    found |= {"cookie in utf-8": build(headers=[("Cookie", "a=\u20ac; b=\xe9")])}
    found |= {"cookie in latin-1": build(headers=[("Cookie", "a=caf\xe9".encode("latin-1"))])}
    found |= {f"headers: {name}": build(headers=headers) for name, headers in HEADERS.items()}
    found |= {f"host {host}": build(host=host) for host in (
        "mirror.test", "MIRROR.TEST", "mirror.test:80", "mirror.test.", "evil.test", "www.example.com", "[::1]:8000", "a b",
        "mirror.test:x", "127.0.0.1", "mirror.test@evil.test", "", "mirror.test:99999")}  # fmt: skip
    found |= {"HTTP/1.0": build(version="1.0"), "HTTP/1.0 without a host": build(host=None, version="1.0")}
    return found


def _bodies() -> dict[str, bytes]:
    field, file = SIMPLE
    latin = ("Content-Type", "application/x-www-form-urlencoded; charset=latin-1")
    unknown = ("Content-Type", "application/x-www-form-urlencoded; charset=nonesuch")
    text = ("Content-Type", "text/plain")
    big = part('name="f"; filename="big.bin"', b"x" * 15_000, "Content-Type: application/octet-stream")
    found = {
        "form": post("POST,FILES,body", b"a=1&b=%E2%82%AC&a=2", FORM),
        "form in latin-1": post("encoding,POST", b"a=%E9", latin),
        "form in a charset that there is not": post("encoding,POST", b"a=%E9", unknown),
        "form, encoding set by the view": post("latin,POST,encoding", b"a=%E9", FORM),
        "form with broken escapes": post("POST", b"a=%&b=%zz&c=%FF", FORM),
        "form with too many fields": post("POST", "&".join(f"k{n}=v" for n in range(51)).encode(), FORM),
        "form that is too large": post("POST", b"a=" + b"x" * 20_000, FORM),
        "form of exactly the limit": post("POST", b"a=" + b"x" * 19_998, FORM),
        "body that is too large": post("body", b"x" * 20_001, text),
        "body of exactly the limit": post("length", b"x" * 20_000, text),
        "body too large but read as a stream": post("read3", b"x" * 30_000, text),
        "body too large and not read": post("", b"x" * 600_000, text),
        "empty body": post("body,POST,FILES", b"", FORM),
        "empty multipart": post("POST,FILES", b"", MULTIPART),
        "body, then POST": post("body,POST", b"a=1", FORM),
        "POST, then body": post("POST,body", b"a=1", FORM),
        "read, then body": post("read3,body,read", b"abcdef", text),
        "read, then POST": post("read3,POST", b"a=1&b=2", FORM),
        "body, then read": post("body,read,readline", b"abcdef", text),
        "lines": post("readline,readlines", b"a\nb\nc", text),
        "iterated": post("iterate", b"a\nb\nc", text),
        "JSON": post("length,POST", b'{"a": 1}', ("Content-Type", "application/json")),
        "multipart": upload("POST,FILES", *SIMPLE),
        "multipart, then body": upload("POST,body", *SIMPLE),
        "body, then multipart": upload("body,POST,FILES", *SIMPLE),
        "multipart after a read": upload("read3,POST,FILES", *SIMPLE),
        "several files of a field": upload("FILES", file, file, part('name="f"; filename="y"', b"")),
        "too many files": upload("POST,FILES", *[file] * 6),
        "too many fields": upload("POST", *[field] * 51),
        "fields that are too large": upload("POST", part('name="a"', b"x" * 20_001)),
        "large file in a temporary one": upload("FILES", big, field),
        "large file, small field after it": upload("POST,FILES", big, field),
        "file names": upload(
            "FILES",
            *(
                part(f'name="f"; filename="{name}"', b"x")
                for name in ("../../etc/passwd", "a\\b\\c.txt", "\u20ac.txt", "a%22b.txt", "&#8364;.txt")
            ),
        ),
        "no file name": upload("POST,FILES", part('name="f"; filename=""', b"x")),
        "encoded file name": upload("FILES", part("name=\"f\"; filename*=UTF-8''%e2%82%ac.txt", b"x")),
        "no name": upload("POST,FILES", part("", b"x"), field),
        "base64": upload(
            "POST,FILES", part('name="f"; filename="b"', b"aGVsbG8=", "Content-Transfer-Encoding: base64")
        ),
        "bad base64": upload("FILES", part('name="f"; filename="b"', b"a!!!", "Content-Transfer-Encoding: base64")),
        "charset of a part": upload(
            "FILES", part('name="f"; filename="b"', b"x", "Content-Type: text/x; charset=latin-1; z=1")
        ),
        "no end": upload("POST,FILES", *SIMPLE, end=b""),
        "no boundary": build("/echo/?ops=POST", "POST", [("Content-Type", "multipart/form-data")], b"x"),
        "bad boundary": build("/echo/?ops=POST", "POST", [("Content-Type", "multipart/form-data; boundary=")], b"x"),
        "garbage": upload("POST,FILES", b"garbage\r\n", *SIMPLE),
        "text before the first part": upload("POST", b"preamble\r\n", field),
        "upload that is skipped": upload("", *SIMPLE, target="/refusing/").replace(b"?ops=", b"?how=skip"),
        "upload that is stopped": upload("", big, *SIMPLE, target="/refusing/").replace(b"?ops=", b"?how=stop"),
        "chunks": build("/echo/?ops=length,POST", "POST", [FORM], chunks=[b"a=1", b"&b=2"]),
        "one chunk": build("/echo/?ops=body", "POST", [text], chunks=[b"abc"]),
        "no chunk": build("/echo/?ops=length", "POST", [text], chunks=[]),
        "chunks of a multipart": build("/echo/?ops=POST,FILES", "POST", [MULTIPART], chunks=[b"".join(SIMPLE), END]),
        "large chunks": build("/echo/?ops=read3,read", "POST", [text], chunks=[b"y" * 9000] * 2),
        "upload of a megabyte": upload("FILES", part('name="f"; filename="m"', bytes(range(256)) * 4096)),
        "upload in chunks of a megabyte": build(
            "/echo/?ops=FILES", "POST", [MULTIPART], chunks=[part('name="f"; filename="m"', b"z" * 1_000_000), END]
        ),
        "CSRF missing": post("", b"a=1", FORM, target="/protected/"),
        "CSRF wrong": post("", b"csrfmiddlewaretoken=x", FORM, ("Cookie", "csrftoken=y"), target="/protected/"),
        "CSRF right": post(
            "", b"csrfmiddlewaretoken=" + b"a" * 32, FORM, ("Cookie", "csrftoken=" + "a" * 32), target="/protected/"
        ),
        "CSRF right, other origin": post(
            "",
            b"csrfmiddlewaretoken=" + b"a" * 32,
            FORM,
            ("Cookie", "csrftoken=" + "a" * 32),
            ("Origin", "http://evil.test"),
            target="/protected/",
        ),
        "CSRF right, own origin": post(
            "",
            b"csrfmiddlewaretoken=" + b"a" * 32,
            FORM,
            ("Cookie", "csrftoken=" + "a" * 32),
            ("Origin", f"http://{HOST}"),
            target="/protected/",
        ),
        "Expect": build("/echo/?ops=body", "POST", [text, ("Expect", "100-continue")], b"abc"),
    }
    return found


def _answers() -> dict[str, bytes]:
    gzip, modified = ("Accept-Encoding", "gzip"), ("If-Modified-Since", "Thu, 02 Jan 2020 03:04:05 GMT")
    found = {f"status {status}": build(f"/answer/{status}/") for status in (200, 201, 202, 204, 205, 206, 299, 304, 400, 401,
             403, 404, 405, 410, 418, 429, 451, 499, 500, 503, 599)}  # fmt: skip
    found |= {f"HEAD of status {status}": build(f"/answer/{status}/", "HEAD") for status in (200, 204, 304, 404, 500)}
    found |= {f"raises {what}": build(f"/boom/?what={what}") for what in ("404", "403", "400", "key", "exit", "x")}
    found |= {f"middleware {where}": build(f"/echo/?middleware={where}") for where in ("before", "answer", "after")}
    for path in ("/cookies/", "/injected/", "/nothing/", "/redirected/", "/stream/", "/async-stream/", "/async/", "/file/",
                 "/not-modified/", "/session/", "/token/", "/written/", "/iterated/", "/json/", "/stream/?kind=empty",
                 "/stream/?kind=bytes", "/stream/?shout", "/file/?shout", "/async-stream/?shout", "/async/?boom", "/file/?attach",
                 "/file/?lines=100000", "/file/?attach&name=%E2%82%AC%3B%22x%22.txt", "/redirected/?permanent",
                 "/redirected/?to=//evil.test", "/redirected/?to=javascript:x", "/redirected/?to=/%E2%82%AC",
                 "/injected/?value=plain", "/injected/?value=%E2%82%AC", "/injected/?value=caf%C3%A9", "/answer/200/?reason=Fine",
                 "/answer/200/?body=", "/answer/200/?type=text/x%3B%20charset%3Dlatin-1&body=%C3%A9", "/large/?tens=52428",
                 "/large/?tens=52429", "/post-only/"):  # fmt: skip
        found[f"answer of {path}"] = build(path)
    found |= {
        f"compressed {path}": build(path, headers=[gzip]) for path in ("/stream/", "/async-stream/", "/json/", "/file/")
    }
    conditions: dict[str, list[tuple[str, str]]] = {
        "none": [], "etag": [("If-None-Match", '"version-1"')], "other etag": [("If-None-Match", '"x"')],
        "any": [("If-None-Match", "*")], "weak": [("If-None-Match", 'W/"version-1"')], "date": [modified],
        "later": [("If-Modified-Since", "Fri, 03 Jan 2020 03:04:05 GMT")], "bad date": [("If-Modified-Since", "soon")],
        "match": [("If-Match", '"version-1"')], "no match": [("If-Match", '"x"')],
        "unmodified": [("If-Unmodified-Since", "Wed, 01 Jan 2020 03:04:05 GMT")], "compressed": [gzip],
        "range": [("Range", "bytes=0-9")], "both": [("If-None-Match", '"x"'), modified],
    }  # fmt: skip
    found |= {f"condition {name}": build("/conditional/", headers=headers) for name, headers in conditions.items()}
    found |= {
        f"HEAD, condition {name}": build("/conditional/", "HEAD", headers) for name, headers in conditions.items()
    }
    found |= {f"OPTIONS of {path}": build(path, "OPTIONS") for path in ("/post-only/", "/async/", "*")}
    return found


PLAIN, BODIES, ANSWERS = _plain(), _bodies(), _answers()
REQUESTS = PLAIN | BODIES | ANSWERS
PROXIED_REQUESTS = {
    f"{name}, {path}": build(path, headers=headers)
    for name, headers in PROXIED.items()
    for path in ("/echo/", "/mounted/echo/x", "/mounted", "/redirected/")
}
DEBUG_REQUESTS = {
    name: request
    for name, request in REQUESTS.items()
    if name.startswith(("raises", "middleware", "host", "path /nowhere", "body that", "form", "answer of /inj", "answer of /not",
                        "answer of /async/", "too many", "CSRF"))
}  # fmt: skip
