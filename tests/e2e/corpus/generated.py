"""Requests made up by hypothesis: methods, paths, queries, headers, cookies and bodies in any combination."""

from dataclasses import dataclass

from hypothesis import strategies as st

from tests.e2e.corpus.requests import END, FORM, MULTIPART, build, part

READERS = ("body", "length", "POST", "FILES", "read", "read3", "readline", "readlines", "iterate", "encoding", "latin")
# What a path or query may have as it is, and escapes of every byte, right UTF-8 and not.
plain = st.text("abcXYZ019-._~!$'()*+,;:@", min_size=1, max_size=8)
escape = st.binary(min_size=1, max_size=3).map(lambda data: "".join(f"%{byte:02x}" for byte in data))
segment = st.lists(st.one_of(plain, escape, st.sampled_from(["%2F", "%E2%82%AC", "%C3%A9"])), max_size=4).map("".join)
path = st.lists(segment, max_size=4).map(lambda segments: "/echo/" + "/".join(segments))
pair = st.tuples(segment, segment).map("=".join)
query = st.lists(st.one_of(pair, segment, st.just("")), max_size=5).map("&".join)
# Visible characters of latin-1 with spaces between, as a header line may carry them.
visible = [chr(code) for code in (*range(0x21, 0x7F), *range(0xA1, 0x100))]
word = st.text(visible, min_size=1, max_size=10)
value = st.lists(word, min_size=1, max_size=3).map(" ".join).map(lambda text: text.encode("latin-1"))
name = st.from_regex(r"X-[A-Za-z0-9]{1,6}(-[A-Za-z0-9]{1,6})?", fullmatch=True)
cookie = st.tuples(st.text("abc_", min_size=1, max_size=3), st.text('xyz "%=,019{}', max_size=6)).map("=".join)
cookies = st.lists(cookie, min_size=1, max_size=3).map("; ".join).map(lambda text: ("Cookie", text.strip() or "a=b"))
languages = st.sampled_from(["de", "en-GB, fr;q=0.5", "*", "x" * 40]).map(lambda text: ("Accept-Language", text))
headers = st.lists(st.one_of(st.tuples(name, value), languages), max_size=4)

field_name = st.text("abc[]\u20ac", min_size=1, max_size=4)
field = st.tuples(field_name, st.binary(max_size=40)).map(lambda each: part(f'name="{each[0]}"', each[1]))
upload = st.tuples(field_name, st.text("ab./\\ \u20ac", max_size=8), st.binary(max_size=3000), st.booleans()).map(
    lambda each: part(
        f'name="{each[0]}"; filename="{each[1]}"', each[2], "Content-Type: " + ("text/plain" if each[3] else "a/b; c=d")
    )
)
multipart = st.lists(st.one_of(field, upload), max_size=5).map(b"".join).map(lambda body: (MULTIPART, body + END))
form = st.binary(max_size=60).map(lambda body: (FORM, body)) | query.map(lambda text: (FORM, text.encode()))
raw = st.tuples(
    st.sampled_from(
        [("Content-Type", "text/plain"), ("Content-Type", "application/json; charset=latin-1"), ("X-None", "")]
    ),
    st.binary(max_size=200),
)


@dataclass(frozen=True)
class Request:
    """One request, as it is sent to both; ``chunked`` is the same with its body in chunks, or None without a body."""

    whole: bytes
    chunked: bytes | None


@st.composite
def requests(draw: st.DrawFn) -> Request:
    """A request for the view that tells what it sees."""
    method = draw(st.sampled_from(["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]))
    ops = draw(st.lists(st.sampled_from(READERS), max_size=3))
    target = f"{draw(path)}?ops={','.join(ops)}&{draw(query)}"
    chosen = [*draw(headers), *draw(st.lists(cookies, max_size=1))]
    if not draw(st.booleans()):
        return Request(build(target, method, chosen), None)
    content_type, body = draw(st.one_of(form, multipart, raw))
    cut = draw(st.integers(0, len(body)))
    chunks = [each for each in (body[:cut], body[cut:]) if each]
    whole = build(target, method, [*chosen, content_type, ("Content-Length", str(len(body)))], body, length=False)
    return Request(whole, build(target, method, [*chosen, content_type], chunks=chunks))
