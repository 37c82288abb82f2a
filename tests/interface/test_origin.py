"""Which pages may open WebSockets."""

import pytest

from procman.interface.origin import host_matches, is_allowed, origin_host


def test_a_client_without_an_origin_is_no_browser_and_allowed():
    assert is_allowed([], [])


@pytest.mark.parametrize(
    ("origin", "hosts", "allowed"),
    [
        ("https://example.com", ["example.com"], True),
        ("https://example.com:8443", ["example.com"], True),
        ("https://EXAMPLE.com", ["Example.COM"], True),
        ("https://example.com.", ["example.com"], True),
        ("https://www.example.com", ["example.com"], False),
        ("https://www.example.com", [".example.com"], True),
        ("https://example.com", [".example.com"], True),
        ("https://evilexample.com", [".example.com"], False),
        ("https://example.com.evil.org", ["example.com", ".example.com"], False),
        ("http://[::1]:8000", ["[::1]"], True),
        ("http://127.0.0.1:8000", ["127.0.0.1"], True),
        ("https://anything.org", ["*"], True),
        ("null", ["example.com"], False),
        ("null", ["*"], True),
        ("file://", ["example.com"], False),
        ("file://", ["*"], True),
        ("https://example.com", [], False),
        ("https://user@example.com", ["example.com"], False),
        ("https://evil.org/example.com", ["example.com"], False),
        ("https://evil.org#example.com", ["example.com"], False),
        ("https://evil.org\\.example.com", [".example.com"], False),
        ("https://example.com:port", ["example.com"], False),
        ("https://exam\tple.com", ["example.com"], False),
        ("https://", ["example.com"], False),
        ("example.com", ["example.com"], False),
        ("", ["example.com"], False),
        ("https://ex\xe4mple.com", [".com"], False),
        ("https://[::1", ["[::1]"], False),
    ],
)
def test_the_origins_host_decides_by_allowed_hosts(origin, hosts, allowed):
    assert is_allowed([origin.encode("latin-1")], hosts) is allowed


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        ("http://localhost:8000", True),
        ("http://app.localhost", True),
        ("http://127.0.0.1:3000", True),
        ("http://[::1]:8000", True),
        ("http://192.168.1.5", False),
        ("http://localhost.evil.org", False),
    ],
)
def test_debug_with_no_hosts_allows_this_machine(origin, allowed):
    assert is_allowed([origin.encode()], [], debug=True) is allowed
    assert is_allowed([origin.encode()], [], debug=False) is False


def test_two_origin_headers_are_refused_even_where_all_hosts_are_allowed():
    assert not is_allowed([b"https://example.com", b"https://example.com"], ["*"])


def test_an_ipv6_host_is_written_in_brackets():
    assert origin_host(b"http://[2001:DB8::1]:80") == "[2001:db8::1]"


def test_a_pattern_with_a_dot_matches_whole_labels():
    assert host_matches("a.b.c", ".b.c")
    assert not host_matches("ab.c", ".b.c")
